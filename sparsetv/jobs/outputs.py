"""Directories that jobs write: apart from what they read, and by one process at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sparsetv.atomic import remove_leftovers
from sparsetv.checkpoint.reading import Checkpoint
from sparsetv.compose.record import ROOM
from sparsetv.errors import BusyError, OutputError


def check_apart(target: Path, base: Checkpoint) -> None:
    """Refuse an output directory that is, holds or lies in the base.

    Raises:
        OutputError: It does, or it is a file.
    """
    resolved, directory = target.resolve(), base.location.directory
    if directory is not None and resolved == directory.resolve():
        raise OutputError(f"{target}: is the base itself; choose another output directory")
    if directory is not None and resolved.is_relative_to(directory.resolve()):
        raise OutputError(f"{target}: lies inside the base; choose another output directory")
    if any(shard.path.resolve().is_relative_to(resolved) for shard in base.shards.values()):
        raise OutputError(f"{target}: holds the base itself; choose another output directory")
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target}: is a file; name a directory")


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the lock of a directory, or fail at once.

    Raises:
        BusyError: Another process holds it.
    """
    resolved = target.resolve()
    if not resolved.parent.is_dir():
        raise OutputError(f"{target}: directory {resolved.parent} does not exist; create it first")
    lock = FileLock(resolved.parent / f".{resolved.name}.{ROOM}-lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyError(f"{target}: another process is changing it; try again when it is done") from None
    except OSError as error:
        raise OutputError(f"{target}: cannot be locked ({error.strerror or error})") from error
    try:
        remove_leftovers(resolved)
        yield
    finally:
        lock.release()
