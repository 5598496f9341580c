"""Stitched directories: the record `sparsetv.json`, and the undo file that gives the base back."""

import hashlib
import json
import random
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from hostile import make_pair, pack_to

from fuzz.json_changes import change_text
from fuzz.room import files_below, room
from fuzz.target import Outcome, Target, refused, require, slack
from fuzz.tensors_file import change_tensors_file
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.compose.directory import Stitched, open_stitched
from sparsetv.compose.record import MEMORY, RECORD, ROOM, read_record
from sparsetv.errors import SparseTVError
from sparsetv.jobs.stitch import stitch

Files = dict[str, bytes]
_UNDO = f"{ROOM}/{MEMORY}"


@cache
def _seed() -> Files:
    """Two tasks on a base."""
    with TemporaryDirectory() as name:
        path = Path(name)
        pair = make_pair(path)
        densities = {"one": 0.2, "two": 0.1}
        tasks = [
            pack_to(path / f"{task}.stv", pair.base, pair.tuned, name=task, density=density)
            for task, density in densities.items()
        ]
        stitch(pair.base, tasks, path / "out")
        return files_below(path / "out")


def make(source: random.Random) -> Files:
    """The directory with its record or its undo file changed; the record's hash of the undo file is repaired."""
    files = dict(_seed())
    kind = source.randrange(8)
    if kind < 4:
        files[_UNDO] = change_tensors_file(source, files[_UNDO])
        files[RECORD] = _naming(files[RECORD], files[_UNDO])
    if kind >= 3:
        files[RECORD] = change_text(source, files[RECORD])
    if not source.randrange(50):
        del files[source.choice(sorted(files))]
    return files


def _naming(record: bytes, undo: bytes) -> bytes:
    value = json.loads(record)
    return json.dumps({**value, "memory_sha256": hashlib.sha256(undo).hexdigest()}).encode()


def examine(files: Files) -> Outcome:
    """A known error, or a base of the size that its headers say, and tasks that are the record's."""
    path = room("record").lay(files)
    try:
        stitched = open_stitched(path)
        _check_record(stitched)
        same = _base(stitched) == _tensors()
        for member in stitched.record.members:
            require(stitched.task(member).digest() == member.digest, f"{member.name}: another task")
    except SparseTVError as error:
        return refused(error)
    return Outcome("same content" if same else "other content")


def _check_record(stitched: Stitched) -> None:
    with TemporaryDirectory() as name:
        other = Path(name)
        (other / ROOM).mkdir()
        (other / RECORD).write_bytes(stitched.record.to_bytes())
        (other / _UNDO).write_bytes((stitched.path / _UNDO).read_bytes())
        try:
            again = read_record(other)
        except SparseTVError as error:
            raise AssertionError(f"the record is refused when it is written again: {error}") from error
        require(again == stitched.record, "the record changes when it is written again")


def _base(stitched: Stitched) -> dict[str, bytes]:
    base = stitched.base()
    found = {}
    for name, entry in base.entries.items():
        found[name] = base.raw(name).tobytes()
        require(len(found[name]) == entry.stop - entry.start, f"{name}: {len(found[name])} bytes")
    stitched.memory.identities()
    stitched.own_files()
    return found


@cache
def _tensors() -> dict[str, bytes]:
    """The base of the seed."""
    with TemporaryDirectory() as name:
        base = open_checkpoint(make_pair(Path(name)).base)
        return {tensor: base.raw(tensor).tobytes() for tensor in base.names}


TARGET = Target("record", make, examine, slack)
