"""Lossless archives with changes and every hash repaired, restored in memory onto the golden base (ARCHIVE)."""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from fuzz.archive_parts import canonical, put_together, take_apart
from fuzz.byte_changes import reframe, scramble, scramble_header
from fuzz.json_changes import change_keys, change_value, respell
from fuzz.seeds import GOLDEN
from fuzz.target import SLACK, Outcome, Target, refused, require
from sparsetv.archive.names import check_other_name, check_weights_name
from sparsetv.archive.reader import Opened, open_bytes
from sparsetv.checkpoint.reading import Checkpoint, open_checkpoint
from sparsetv.errors import SparseTVError
from sparsetv.jobs.archived import check_base, restored, summarise

_HEAP = 32 << 20
"""A block that restoring sets aside and never touches, so that the allocator keeps what it frees."""
_ROOTS = ((), ("files",), ("files",), ("base",))


@dataclass(slots=True)
class _Archive:
    manifest: dict[str, Any]
    data: bytes


@cache
def _seeds() -> tuple[tuple[bytes, bytes, bytes], ...]:
    """Each golden archive: whole, its manifest's text, its data."""
    whole = [path.read_bytes() for path in sorted((GOLDEN / "archives").glob("*.stv"))]
    return tuple((data, canonical(take_apart(data)[0]), take_apart(data)[1]) for data in whole)


@cache
def _base() -> Checkpoint:
    return open_checkpoint(GOLDEN / "archives" / "base")


@cache
def _contents() -> frozenset[str]:
    """What the golden archives hold."""
    return frozenset(_content(open_bytes(data)) for data, _, _ in _seeds())


def _change_manifest_value(source: random.Random, archive: _Archive) -> None:
    change_value(source, archive.manifest, [root for root in _ROOTS if not root or root[0] in archive.manifest])


def _change_manifest_keys(source: random.Random, archive: _Archive) -> None:
    change_keys(source, archive.manifest)


def _change_data(source: random.Random, archive: _Archive) -> None:
    archive.data = scramble(source, archive.data)


def _change_part(source: random.Random, archive: _Archive) -> None:
    """A header's frame, a stored file's or a chunk, changed, with lengths that fit again."""
    try:
        places = list(_places(archive.manifest["files"]))
        if not places:
            return
        holder, key, start = source.choice(places)
        stop = start + holder[key]
        old = archive.data[start:stop]
        new = (reframe if source.randrange(2) else scramble)(source, old)
        holder[key] = len(new)
    except (KeyError, TypeError, IndexError, AttributeError):  # an earlier change left no such part
        return
    archive.data = archive.data[:start] + new + archive.data[stop:]


def _places(files: Any) -> Iterator[tuple[Any, Any, int]]:
    """Where the manifest has the length of each part of the data, as (holder, key), and where the part begins."""
    start = 0
    for file in files:
        for holder, key in _lengths(file):
            yield holder, key, start
            start += holder[key]


def _lengths(file: Any) -> Iterator[tuple[Any, Any]]:
    if "header" in file:
        yield file["header"], 1
    if "stored" in file:
        yield file, "stored"
    for tensor in file.get("tensors", ()):
        for number in range(len(tensor["chunks"])):
            yield tensor["chunks"], number


_CHANGES: tuple[Callable[[random.Random, _Archive], None], ...] = (
    *[_change_manifest_value] * 3, _change_manifest_keys, _change_data, *[_change_part] * 3,
)  # fmt: skip


def make(source: random.Random) -> bytes:
    """An archive that was valid, changed, with every hash repaired but those of the files in it."""
    data, text, content = source.choice(_seeds())
    kind = source.randrange(12)
    if kind == 0:
        return scramble(source, data)
    archive = _Archive(json.loads(text), content)
    if kind == 1:
        return put_together(archive.manifest, archive.data, text=respell(source, text))
    for _ in range(source.choice([1, 1, 2, 3])):
        source.choice(_CHANGES)(source, archive)
    blob = put_together(archive.manifest, archive.data)
    return scramble_header(source, blob) if kind == 2 else blob


def examine(data: bytes) -> Outcome:
    """A known error, or files of the sizes and hashes that the manifest says, under names that stay in a directory."""
    try:
        opened = open_bytes(data)
        summarise(opened)
        check_base(opened, _base())
        found = _content(opened)
    except SparseTVError as error:
        return refused(error)
    for file in opened.manifest.files:
        (check_weights_name if file.kind == "weights" else check_other_name)(file.name)
    return Outcome("same content" if found in _contents() else "other content")


def _content(opened: Opened) -> str:
    """A hash of all files and names, each file compared with what the manifest says."""
    total = hashlib.sha256()
    for file, (name, pieces) in zip(opened.manifest.files, restored(opened, _base()), strict=True):
        content = b"".join(bytes(piece) for piece in pieces)
        require(name == file.name, f"{name} is given for {file.name}")
        require(len(content) == file.size, f"{name}: {len(content)} bytes for {file.size}")
        require(hashlib.sha256(content).hexdigest() == file.sha256, f"{name}: other bytes than the manifest says")
        total.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return total.hexdigest()


def bound(data: bytes) -> int:
    """Nothing in proportion: the golden base is small."""
    return SLACK + _HEAP


TARGET = Target("archive", make, examine, bound)
