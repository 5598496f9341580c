"""Checkpoint directories that say what made them, so that a second run can skip what is there.

A directory takes its final name only when it is complete, and holds a stamp, `demo.json` unless it is named otherwise:
how the directory was made, and the sha256 of its weights.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from sparsetv.atomic import new_directory
from sparsetv.durable import sync_files
from sparsetv.errors import OutputError
from sparsetv.leftovers import tidy

_STAMP = "demo.json"
_WEIGHTS = "model.safetensors"


def ensure(directory: Path, how: Mapping[str, object], *, make: Callable[[Path], None], stamp: str = _STAMP) -> bool:
    """Make a checkpoint directory, unless it is there, complete, and was made the same way.

    Args:
        directory: Where it belongs. One that was made another way, or is damaged, is replaced.
        how: JSON values that determine the weights.
        make: Writes the checkpoint into an empty directory.
        stamp: Name of the file that says how.

    Returns:
        True if it was made, False if it was there.

    Raises:
        OutputError: Something is at `directory` that was not written here, or it cannot be written.
    """
    if directory.exists() and not (directory / stamp).is_file():
        raise OutputError(
            f"cannot write {directory}: it exists, and holds no {stamp} that would show how it was made; choose "
            "another directory"
        )
    if directory.exists() and _is_complete(directory, how, stamp):
        tidy(directory)
        return False
    with new_directory(directory) as temporary:
        make(temporary)
        (temporary / stamp).write_text(_stamp(temporary, how), encoding="utf-8")
        sync_files(temporary)
    return True


def weights_digest(directory: Path) -> str:
    """The sha256 of a checkpoint's weights file, in hexadecimal."""
    return hashlib.sha256((directory / _WEIGHTS).read_bytes()).hexdigest()


def _is_complete(directory: Path, how: Mapping[str, object], stamp: str) -> bool:
    if not all((directory / name).is_file() for name in (_WEIGHTS, "config.json")):
        return False
    return (directory / stamp).read_bytes() == _stamp(directory, how).encode()


def _stamp(directory: Path, how: Mapping[str, object]) -> str:
    return json.dumps({**how, "weights_sha256": weights_digest(directory)}, indent=2, sort_keys=True) + "\n"
