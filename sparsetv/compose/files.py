"""The files of a checkpoint directory that are not weights."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from sparsetv.atomic import sync
from sparsetv.checkpoint.locate import stays_inside
from sparsetv.compose.record import RECORD, ROOM
from sparsetv.errors import CheckpointError
from sparsetv.wire.fields import is_text

_WEIGHTS = {
    ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", ".ot", ".pkl", ".npz", ".stv",
}  # fmt: skip
_HIDDEN = {".git", ".cache"}


def other_files(directory: Path | None) -> dict[str, Path]:
    """Files that are neither weights, shard indices, repository data nor sparsetv's own, by relative path."""
    if directory is None:
        return {}
    found = {}
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory)
        if path.is_file() and not _is_left_out(relative):
            found[relative.as_posix()] = path
    return found


def _is_left_out(relative: Path) -> bool:
    index = relative.name.endswith((".safetensors.index.json", ".bin.index.json"))
    ours = relative.parts[0] == ROOM or relative.as_posix() == RECORD
    return index or ours or relative.suffix.lower() in _WEIGHTS or bool(_HIDDEN & set(relative.parts))


def check_portable(files: Iterable[str], directory: Path | None) -> None:
    """Refuse names that a record could not hold: the directory would be written, and never be changed again.

    Raises:
        CheckpointError: A name is no UTF-8, too long, or would leave a directory on some system.
    """
    odd = next((name for name in files if not is_text(name) or not stays_inside(name)), None)
    if odd is not None:
        raise CheckpointError(f"{directory}: {odd[:120]!r} is no name of a file on every system; rename or remove it")


def copy_files(files: Mapping[str, Path], target: Path) -> None:
    """Copy files, never link them, so that nothing done to the copy reaches the original.

    Of a link that leads to no file there is nothing to copy; it stays a link.
    """
    copies = []
    for relative, source in files.items():
        destination = target / relative
        destination.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink() and not source.is_file():
            destination.symlink_to(source.readlink())
            continue
        shutil.copyfile(source, destination)
        copies.append(destination)
    for copy in copies:
        sync(copy)
