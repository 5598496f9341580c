"""Names of what is not yet in place, and what a writer that died left under such names.

A writer holds a lock (`flock`) on what it makes for as long as it lives. So whoever writes the same target next can
tell what is left over from what is being made, without a lock file.
"""

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NAME = re.compile(r"\.sparsetv-[0-9a-f]{16}\.tmp")
_OLD = ".old"


def is_temporary(name: str) -> bool:
    """Whether a file's name is one that is given here to what is not yet in place."""
    return _NAME.fullmatch(name) is not None


def mark(target: Path) -> str:
    """What names of temporary things have in common that belong to one target."""
    return hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]


def beside(target: Path) -> Path:
    """A new temporary name in the target's directory."""
    return target.with_name(f".sparsetv-{mark(target)}{secrets.token_hex(4)}.tmp")


def aside(target: Path) -> Path:
    """A name for the old directory while the new one takes its place in a second step."""
    return beside(target).with_suffix(_OLD)


@contextmanager
def claimed(target: Path, make: Callable[[Path], int]) -> Iterator[tuple[Path, int]]:
    """A temporary thing that nobody takes for a left-over one until the block ends.

    Args:
        target: What it is to replace.
        make: Creates a file or directory of a name and opens it.

    Yields:
        Its path and descriptor.
    """
    while True:
        path = beside(target)
        descriptor = make(path)
        try:
            with suppress(OSError):  # where there are no locks, nothing is taken for left over, either
                _lock(descriptor)
            if os.fstat(descriptor).st_nlink:  # else it was removed between its making and its lock
                yield path, descriptor
                return
        finally:
            os.close(descriptor)


def remove_dead(target: Path) -> None:
    """Remove temporary files and directories of a target whose writers are dead."""
    for item in _left(target, ".tmp"):
        with suppress(OSError):
            descriptor = os.open(item, os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_RDONLY if item.is_dir() else os.O_RDWR))
            try:
                _lock(descriptor, at_once=True)
                _remove(item)
            finally:
                os.close(descriptor)


def tidy(target: Path) -> None:
    """Tidy up after writers of a directory that are dead; nobody need hold a lock."""
    remove_dead(target)
    put_old_back(target)


def remove_leftovers(path: Path) -> None:
    """Tidy up after a writer of a directory that was killed; the caller holds its lock."""
    target = Path(os.path.realpath(path))
    put_old_back(target)
    for item in _left(target, ".tmp"):
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item, ignore_errors=True)


def put_old_back(target: Path) -> None:
    """Give a directory that was set aside its name again; where the new one has come, remove it."""
    for item in _left(target, _OLD):
        if target.exists():
            shutil.rmtree(item, ignore_errors=True)
        else:
            os.rename(item, target)


def was_set_aside(path: Path) -> bool:
    """Whether a directory is missing because its writer was killed between two renames."""
    target = Path(os.path.realpath(path))
    return not target.exists() and bool(_left(target, _OLD))


def _lock(descriptor: int, *, at_once: bool = False) -> None:
    import fcntl  # noqa: PLC0415  not on Windows, where files can only be read

    fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if at_once else 0))


def _left(target: Path, suffix: str) -> list[Path]:
    start = f".sparsetv-{mark(target)}"
    try:
        found = [item.name for item in os.scandir(target.parent) if item.name.startswith(start)]
    except OSError:
        return []
    return [
        target.with_name(name) for name in sorted(found) if name.endswith(suffix) and is_temporary(name[:-4] + ".tmp")
    ]


def _remove(item: Path) -> None:
    if item.is_dir():
        shutil.rmtree(item, ignore_errors=True)
    else:
        os.unlink(item)
