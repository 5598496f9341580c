"""What jobs may write: names, files in place of their own kind alone, directories apart from what is read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sparsetv.atomic import check_writable, remove_leftovers
from sparsetv.checkpoint.reading import Checkpoint
from sparsetv.compose.record import ROOM
from sparsetv.container.names import check_component
from sparsetv.errors import BusyError, FormatError, OutputError, UsageError


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
