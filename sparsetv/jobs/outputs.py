"""What jobs may write: names, files in place of their own kind alone, directories apart from what is read."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sparsetv.atomic import check_writable
from sparsetv.causes import cause
from sparsetv.checkpoint.reading import Checkpoint
from sparsetv.compose.record import ROOM
from sparsetv.container.names import check_component
from sparsetv.errors import BusyError, FormatError, OutputError, UsageError
from sparsetv.leftovers import remove_leftovers, was_set_aside

_NAME_BYTES = 255


def check_name(name: str) -> str:
    """Return a task's name.

    Raises:
        UsageError: No file may carry it.
    """
    try:
        return check_component(name, what="task name")
    except FormatError as error:
        raise UsageError(f"{error}; pass another with --name") from None


def check_file(output: Path | str, *, is_own: Callable[[Path | str], bool], kind: str) -> None:
    """Refuse an output file that cannot be written, or that would replace one of another kind.

    Raises:
        OutputError: It is such a file.
    """
    check_writable(output)
    if Path(output).exists() and not is_own(output):
        raise OutputError(f"{output}: exists and is no {kind}; choose another output, or remove it first")


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
    """Hold the lock of a directory, or fail at once; what a killed writer left is tidied up.

    Raises:
        BusyError: Another process holds it.
        OutputError: It cannot be locked.
    """
    resolved = target.resolve()
    if not resolved.parent.is_dir():
        raise OutputError(f"{target}: directory {resolved.parent} does not exist; create it first")
    lock = FileLock(resolved.parent / _lock_name(resolved.name))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyError(f"{target}: another process is changing it; try again when it is done") from None
    except (OSError, NotImplementedError) as error:
        raise OutputError(f"{target}: cannot be locked: {cause(error)}") from error
    try:
        _tidy(target)
        yield
    finally:
        lock.release()


def put_back(target: Path) -> None:
    """Where a directory is missing because its writer was killed between two renames, give it its name again."""
    if was_set_aside(target):
        with locked(target):
            pass


def _tidy(target: Path) -> None:
    try:
        remove_leftovers(target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be put back: {cause(error)}") from error


def _lock_name(name: str) -> str:
    """Beside every directory that has a name there can be a lock."""
    plain = f".{name}.{ROOM}-lock"
    if len(os.fsencode(plain)) <= _NAME_BYTES:
        return plain
    return f".{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}.{ROOM}-lock"
