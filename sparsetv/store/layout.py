"""Where things lie in a store, which names they may have, and how a user refers to them."""

import os
import stat
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from sparsetv.container.names import check_component
from sparsetv.errors import FormatError, NotFoundError, UsageError

CONFIG = "sparsetv-store.json"
OBJECTS = "objects"
REFS = "refs"
LOCK = "lock"

OBJECT_SUFFIX = ".stv"
REF_SUFFIX = ".json"
_SHOWN = 8


def is_store(path: Path) -> bool:
    """Whether a directory is a store."""
    try:
        return (path / CONFIG).is_file()
    except OSError:  # a path that is too long for the system is no store either
        return False


def parse_reference(text: str) -> tuple[Path, tuple[str, ...]] | None:
    """Read `STORE:a,b,c*`, where STORE is an existing store; None for any other text.

    STORE may hold colons itself: the last colon that leaves a store divides.
    """
    for place in reversed([place for place, character in enumerate(text) if character == ":"]):
        if place and is_store(Path(text[:place])):
            return Path(text[:place]), tuple(text[place + 1 :].split(","))
    return None


def object_parts(sha256: str) -> tuple[str, str, str]:
    """Path of an object below the store, as parts."""
    return OBJECTS, sha256[:2], sha256 + OBJECT_SUFFIX


def ref_parts(name: str) -> tuple[str, str]:
    """Path of a ref below the store, as parts."""
    return REFS, name + REF_SUFFIX


def check_name(name: str) -> str:
    """Return the name of a task, or raise UsageError where a store cannot hold one of that name."""
    try:
        check_component(name, what="task name")
    except FormatError as error:
        raise UsageError(f"{error}; choose a name with --name") from None
    if "," in name:
        raise UsageError(f"task name {name!r} holds a comma, which divides names in STORE:a,b; choose one with --name")
    return name


def is_name(name: str) -> bool:
    """Whether a store can hold a task of that name."""
    try:
        check_name(name)
    except UsageError:
        return False
    return True


def select(names: Sequence[str], patterns: Sequence[str], *, where: Path) -> tuple[str, ...]:
    """The names that patterns choose, ascending; a pattern is a name, or a glob in which case matters.

    Raises:
        NotFoundError: A pattern matches nothing.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        found = [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]
        if not found:
            raise no_task(where, pattern, names)
        chosen.update(found)
    return tuple(sorted(chosen))


def no_task(where: Path, name: str, names: Sequence[str]) -> NotFoundError:
    """The error for a name or glob that is none of a store's."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return NotFoundError(f"{where}: no task matches {name!r}; it has {', '.join(names[:_SHOWN]) or 'none'}{more}")


def directory(root: Path, *parts: str) -> Path:
    """A directory of a store, reached through no link.

    Raises:
        FormatError: It, or one above it, is missing or something else.
    """
    path = root
    for part in parts:
        path = path / part
        kind = kind_of(path)
        if kind != "directory":
            raise FormatError(f"{path}: expected a directory, found {kind}; restore it from a copy of the store")
    return path


def regular(root: Path, *parts: str) -> Path:
    """A file of a store, reached through no link.

    Raises:
        NotFoundError: It is not there.
        FormatError: It, or a directory above it, is a link or another thing.
    """
    path = root
    for number, part in enumerate(parts, start=1):
        path = path / part
        expected, kind = "directory" if number < len(parts) else "regular file", kind_of(path)
        if kind == "nothing":
            raise NotFoundError(f"{root.joinpath(*parts)}: no such file")
        if kind != expected:
            raise FormatError(f"{path}: expected a {expected}, found {kind}, which a store never follows; remove it")
    return path


def kind_of(path: Path) -> str:
    """What stands at a path, no link followed: nothing, a directory, a regular file, a link or a special file."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return "nothing"
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if stat.S_ISDIR(mode):
        return "directory"
    return "regular file" if stat.S_ISREG(mode) else "a special file"
