"""Stores: their own file, refs, and objects under names that fit or do not."""

import hashlib
import random
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz.byte_changes import scramble
from fuzz.json_changes import change_text
from fuzz.room import files_below, room
from fuzz.seeds import GOLDEN
from fuzz.target import Outcome, Target, refused, require, slack
from sparsetv.errors import SparseTVError
from sparsetv.store.config import read_config
from sparsetv.store.fsck import fsck
from sparsetv.store.layout import CONFIG, OBJECTS, REFS
from sparsetv.store.library import Library
from sparsetv.store.reading import read_object
from sparsetv.store.refs import read_ref, ref_names
from sparsetv.wire import canonical

Files = dict[str, bytes]


@cache
def _seed() -> Files:
    with TemporaryDirectory() as name:
        store = Library.create(Path(name) / "store")
        store.add(GOLDEN / "valid" / "minimal.stv", "first")
        store.add(GOLDEN / "valid" / "minimal.stv", "second")
        return {path: data for path, data in files_below(Path(name) / "store").items() if path != "lock"}


def make(source: random.Random) -> Files:
    """A store with its file, a ref, or an object changed; now and then the object's name is that of its hash again."""
    files = dict(_seed())
    for _ in range(source.choice([1, 1, 2])):
        name = source.choice(sorted(files))
        if not name.startswith(OBJECTS):
            files[name] = change_text(source, files[name])
            continue
        changed = scramble(source, files.pop(name))
        sha256 = hashlib.sha256(changed).hexdigest()
        files[f"{OBJECTS}/{sha256[:2]}/{sha256}.stv" if source.randrange(2) else name] = changed
    if not source.randrange(50):
        del files[source.choice(sorted(files))]
    return files


def examine(files: Files) -> Outcome:
    """A report of all that is wrong, and known errors where it is read; what is sound is the same written again."""
    root = room("store").lay(files)
    for name in (OBJECTS, REFS):
        (root / name).mkdir(exist_ok=True)
    try:
        report = fsck(root)
        config = read_config(root)
        require(_same(config.to_bytes(), files[CONFIG]), "the store's file changes when it is written again")
        for name in ref_names(root):
            ref = read_ref(root, name)
            require(read_object(root, ref).digest() == ref.digest, f"{name}: another task")
        Library.open(root).list()
    except SparseTVError as error:
        return refused(error)
    return Outcome("sound" if not report.problems else "read, with problems")


def _same(first: bytes, second: bytes) -> bool:
    values = [canonical.loads(text, what="text", depth=9) for text in (first, second)]
    return bool(values[0] == values[1])


TARGET = Target("store", make, examine, slack)
