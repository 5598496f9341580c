"""Small changes that outlast a power cut: a line more, a directory more, files that others wrote."""

import os
from contextlib import suppress
from pathlib import Path

from sparsetv.atomic import sync, write_all
from sparsetv.causes import cause
from sparsetv.errors import OutputError


def append(path: Path, data: bytes) -> None:
    """Add a line to a file that exists, durably: all of it, or, where that fails, nothing.

    Raises:
        OutputError: The file cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            size = os.fstat(descriptor).st_size
            try:
                write_all(descriptor, memoryview(data))
                os.fsync(descriptor)
            except BaseException:
                with suppress(OSError):  # readers leave out a last line without its end
                    os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {cause(error)}") from error


def cut_off(path: Path, size: int) -> None:
    """Drop what follows the first `size` bytes of a file; it may be back after a power cut.

    Raises:
        OutputError: The file cannot be written.
    """
    try:
        os.truncate(path, size)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {cause(error)}") from error


def make_directory(path: Path) -> None:
    """Make a directory, and those above it, that may be there; their names are durable.

    Raises:
        OutputError: It cannot be made.
    """
    missing = [part for part in (path, *path.parents) if not part.is_dir()]
    try:
        for part in reversed(missing):
            part.mkdir(exist_ok=True)
            sync(part.parent)
    except OSError as error:
        raise OutputError(f"cannot create {path}: {cause(error)}") from error


def sync_files(root: Path) -> None:
    """Make the content of all files below a directory durable, where others than these functions wrote them."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            sync(path)
