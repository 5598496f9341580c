"""Everything that stands in a store, told apart by name and kind; nothing is read and no link followed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sparsetv.leftovers import is_temporary
from sparsetv.store.layout import OBJECT_SUFFIX, OBJECTS, REFS, kind_of
from sparsetv.store.refs import is_ref_file

_PREFIX = re.compile(r"[0-9a-f]{2}")
_OBJECT = re.compile(r"[0-9a-f]{64}" + re.escape(OBJECT_SUFFIX))


@dataclass(frozen=True, slots=True)
class Survey:
    """What stands in a store, each in order of names.

    Attributes:
        objects: Files that are named like objects.
        refs: Files that are named like refs.
        temporaries: Files that a writer is making, or left when it died.
        strange: One line for each thing that does not belong there.
    """

    objects: tuple[Path, ...]
    refs: tuple[Path, ...]
    temporaries: tuple[Path, ...]
    strange: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Thing:
    path: Path
    role: str
    kind: str


def survey(root: Path) -> Survey:
    """Look at everything in a store."""
    things = [*_top(root), *_refs(root / REFS), *_objects(root / OBJECTS)]

    def of(role: str) -> tuple[Path, ...]:
        return tuple(thing.path for thing in things if thing.role == role)

    return Survey(of("object"), of("ref"), of("temporary"), tuple(_line(thing) for thing in things if not thing.role))


def _top(root: Path) -> Iterator[_Thing]:
    """Other files beside the store's own harm nobody."""
    for path in sorted(root.iterdir()):
        thing = _thing(path, "")
        if thing.role:
            yield thing


def _refs(place: Path) -> Iterator[_Thing]:
    yield from _directory(place)
    for path in _inside(place):
        yield _thing(path, "ref" if is_ref_file(path.name) else "")


def _objects(place: Path) -> Iterator[_Thing]:
    yield from _directory(place)
    for parent in _inside(place):
        if not _PREFIX.fullmatch(parent.name):
            yield _thing(parent, "")
            continue
        yield from _directory(parent)
        for path in _inside(parent):
            named = _OBJECT.fullmatch(path.name) and path.name.startswith(parent.name)
            yield _thing(path, "object" if named else "")


def _directory(place: Path) -> Iterator[_Thing]:
    kind = kind_of(place)
    if kind != "directory":
        yield _Thing(place, "", kind)


def _inside(place: Path) -> list[Path]:
    return sorted(place.iterdir()) if kind_of(place) == "directory" else []


def _thing(path: Path, role: str) -> _Thing:
    """A path by its name's role, which only a regular file can have."""
    kind = kind_of(path)
    role = "temporary" if is_temporary(path.name) else role
    return _Thing(path, role if kind == "regular file" else "", kind)


def _line(thing: _Thing) -> str:
    if thing.kind == "nothing":
        return f"{thing.path}: expected a directory, found nothing; restore it from a copy of the store"
    return f"{thing.path}: {thing.kind} that is no part of a store and is never followed; remove it"
