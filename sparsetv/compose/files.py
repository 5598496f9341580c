"""The files of a checkpoint directory that are not weights."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from sparsetv.atomic import sync
from sparsetv.compose.record import RECORD, ROOM

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


def copy_files(files: Mapping[str, Path], target: Path) -> None:
    """Copy files, never link them, so that nothing done to the copy reaches the original."""
    copies = []
    for relative, source in files.items():
        destination = target / relative
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, destination)
        copies.append(destination)
    for copy in copies:
        sync(copy)
