"""What sparsetv stands on here: versions, devices, places, and whether the whole job works."""

import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from sparsetv import __version__, atomic, renaming
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.errors import SparseTVError, VerifyError
from sparsetv.jobs.options import PackOptions, StitchOptions
from sparsetv.jobs.pack import pack_to
from sparsetv.jobs.stitch import add, remove, stitch
from sparsetv.jobs.verify import verify
from sparsetv.localize.scope import Scope
from sparsetv.wire.header import encode_header, place

PACKAGES = ("torch", "transformers", "safetensors", "numpy", "scipy", "zstandard", "huggingface_hub", "filelock")
"""What sparsetv is built on."""

_SHAPE = (64, 96)
_NAMES = ("h.0.attn.weight", "h.1.mlp.weight")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: What.
        found: What it is.
        good: Whether it is as it should be.
    """

    about: str
    found: str
    good: bool = True


def doctor(room: str | Path = ".") -> tuple[Finding, ...]:
    """Look at versions, devices and places, and pack, verify, stitch, add and remove a made-up task.

    Args:
        room: A directory on the file system that is to be used; the job is done in a temporary one inside it.

    Returns:
        What was found, whether good or not; nothing is left behind.

    Raises:
        OSError: The directory is not there.
    """
    versions = [Finding("sparsetv", f"{__version__}, Python {platform.python_version()}"), *map(_package, PACKAGES)]
    return (*versions, *_devices(), *_places(Path(room)), *_job(Path(room)))


def _package(name: str) -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, f"not installed; pip install {name}", good=False)


def _devices() -> list[Finding]:
    found = [Finding("processor", f"{platform.machine()}, {os.cpu_count()} cores")]
    try:
        import torch  # noqa: PLC0415  a second of import

        cards = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    except (ImportError, OSError, RuntimeError) as error:
        return [*found, Finding("accelerators", f"torch cannot be used ({error}); install it again", good=False)]
    return [*found, Finding("accelerators", ", ".join(cards) or "none; everything runs on the processor")]


def _places(room: Path) -> list[Finding]:
    from huggingface_hub import constants  # noqa: PLC0415  the hub client takes 0.2 s to import

    free = shutil.disk_usage(room).free
    hub = Path(constants.HF_HUB_CACHE)
    offline = ", offline" if constants.HF_HUB_OFFLINE else ""
    return [
        Finding("disk", f"{free / 1e9:.1f} GB free in {room.resolve()}"),
        Finding("hub cache", f"{hub}{' (not there yet)' if not hub.is_dir() else ''}{offline}"),
    ]


def _job(room: Path) -> list[Finding]:
    """Each step on its own line; the first that fails is the last."""
    try:
        with tempfile.TemporaryDirectory(prefix="sparsetv-doctor-", dir=room) as name:
            path = Path(name)
            _write_pair(path)
            return _steps(path)
    except OSError as error:
        return [Finding("files", f"{room}: {error.strerror or error}; choose another directory", good=False)]


def _steps(path: Path) -> list[Finding]:
    steps: list[tuple[str, Callable[[Path], str]]] = [
        ("files", _files), ("pack", _pack), ("verify", _verify), ("stitch", _stitch), ("remove", _remove),
    ]  # fmt: skip
    found: list[Finding] = []
    for about, step in steps:
        try:
            found.append(Finding(about, step(path)))
        except (SparseTVError, OSError) as error:
            return [*found, Finding(about, str(error), good=False)]
    return found


def _write_pair(path: Path) -> None:
    random = np.random.default_rng(0)
    base = {name: random.normal(size=_SHAPE).astype("<f4") for name in _NAMES}
    tuned = {name: value + random.normal(scale=0.01, size=_SHAPE).astype("<f4") for name, value in base.items()}
    for side, tensors in {"base": base, "tuned": tuned}.items():
        (path / side).mkdir()
        stored = place((name, "F32", _SHAPE) for name in _NAMES)
        parts = [encode_header(stored, {"format": "pt"}), *(tensor.tobytes() for tensor in tensors.values())]
        atomic.write_new_file(path / side / "model.safetensors", parts)


def _files(path: Path) -> str:
    """What the file system can do that others stand in for."""
    for name in ("one", "two"):
        (path / name).mkdir()
    old = renaming.put_in_place(path / "one", path / "two")
    exchanged = old == path / "one"
    old.rmdir()
    can = ["directories are exchanged in one call" if exchanged else "directories are replaced in two calls"]
    try:
        os.link(path / "base" / "model.safetensors", path / "link")
        can.append("files are linked")
    except OSError:
        can.append("files are copied instead of linked")
    return ", ".join(can)


def _pack(path: Path) -> str:
    options = PackOptions(density=0.1, scope=Scope("all"), probe=False)
    task = pack_to(path / "task.stv", path / "base", path / "tuned", options=options)
    return f"{task.nnz} of {task.numel} entries, {(path / 'task.stv').stat().st_size} bytes"


def _verify(path: Path) -> str:
    return verify(path / "task.stv", base=path / "base", finetuned=path / "tuned")[-2].found


def _stitch(path: Path) -> str:
    stitch(path / "base", [], path / "merged")
    add(path / "merged", [path / "task.stv"])
    stitch(path / "base", [path / "task.stv"], path / "fresh", options=StitchOptions(scale="auto"))
    _same(path / "merged", path / "fresh")
    return "added, and stitched afresh: the same bits"


def _remove(path: Path) -> str:
    remove(path / "merged", ["*"])
    _same(path / "merged", path / "base")
    return "removed: the base, bit for bit"


def _same(first: Path, second: Path) -> None:
    sides = [open_checkpoint(side) for side in (first, second)]
    for name in sides[1].names:
        if not np.array_equal(sides[0].bits(name), sides[1].bits(name)):
            raise VerifyError(f"{name} of {first.name} and {second.name} differ; report this with the versions above")
