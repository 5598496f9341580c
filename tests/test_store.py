"""A store: names give out the very files that entered, whoever writes beside, and whatever is broken is told."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from filelock import FileLock
from hostile import base_tensors, checkpoint, listing, make_pair, pack_to, run, with_manifest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsetv.container import reader
from sparsetv.errors import (
    BaseMismatchError,
    BusyError,
    FormatError,
    LimitError,
    NotFoundError,
    OutputError,
    SparseTVError,
    UsageError,
)
from sparsetv.jobs.inspect import inspect
from sparsetv.jobs.store import Store
from sparsetv.store.layout import parse_reference
from sparsetv.task_vector import SparseTaskVector
from sparsetv.taskfile import read_task, write_task

DENSITIES = {"one": 0.2, "two": 0.4, "three": 0.6}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Base, fine-tune, three tasks of the base and one of another."""
    path = tmp_path_factory.mktemp("room")
    pair = make_pair(path)
    for name, density in DENSITIES.items():
        pack_to(path / f"{name}.stv", pair.base, pair.tuned, name=name, density=density)
    other = checkpoint(
        path / "other", {**base_tensors(), "pooler.dense.weight": base_tensors(9)["pooler.dense.weight"]}
    )
    pack_to(path / "foreign.stv", other, pair.tuned, name="foreign")
    return path


@pytest.fixture
def store(room: Path, tmp_path: Path, no_sync: None) -> Store:
    """A store with tasks `one` and `two`."""
    made = Store.init(tmp_path / "lib")
    made.add(room / "one.stv")
    made.add(room / "two.stv")
    return made


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def object_file(store: Store, task: Path) -> Path:
    name = sha256(task)
    return store.root / "objects" / name[:2] / f"{name}.stv"


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# What enters is what comes out


def test_a_store_lies_on_disk_as_documented(store: Store, room: Path) -> None:
    files = {name: object_file(store, room / f"{name}.stv") for name in ("one", "two")}
    expected = {*files.values(), *(store.root / name for name in ("lock", "refs/one.json", "refs/two.json"))}
    expected.add(store.root / "sparsetv-store.json")
    assert {path for path in store.root.rglob("*") if path.is_file()} == expected
    assert files["one"].read_bytes() == (room / "one.stv").read_bytes()
    assert json.loads((store.root / "refs" / "one.json").read_text()) == {
        "name": "one",
        "object": sha256(room / "one.stv"),
        "digest": read_task(room / "one.stv").digest(),
        "revision": 1,
        "previous": None,
    }
    config = json.loads((store.root / "sparsetv-store.json").read_text())
    assert (config["format"], config["version"]) == ("sparsetv-store", 1)
    assert config["base"]["digest"] == read_task(room / "one.stv").base.digest
    assert config["base"]["tensors"]["encoder.layer.1.dense.weight"][:2] == ["F32", [6, 5]]


def test_a_task_is_read_under_its_name_in_the_store(store: Store, room: Path) -> None:
    store.add(room / "three.stv", "drei")
    task = store.read("drei")
    assert task.name == "drei"
    assert task.digest() == read_task(room / "three.stv").digest()
    assert store.path_of("drei").read_bytes() == (room / "three.stv").read_bytes()


def test_a_task_in_memory_enters_as_its_file(store: Store, room: Path, tmp_path: Path) -> None:
    task = read_task(room / "three.stv")
    write_task(tmp_path / "written.stv", task)
    assert store.add(task).object == sha256(tmp_path / "written.stv")
    assert store.read("three").digest() == task.digest()


def test_the_list_tells_what_inspect_tells(store: Store, room: Path) -> None:
    store.add(room / "three.stv", "one", replace=True)
    found = {entry.name: entry for entry in store.list()}
    assert list(found) == ["one", "two"]
    summary = inspect(room / "three.stv")
    assert (found["one"].nnz, found["one"].density) == (summary.kept_entries, summary.density)
    assert (found["one"].size, found["one"].digest) == ((room / "three.stv").stat().st_size, summary.digest)
    assert (found["one"].revision, found["two"].revision) == (2, 1)
    shown = store.show("one")
    assert (shown.ref, shown.summary.digest) == (store.ref("one"), summary.digest)


def test_list_and_show_decode_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError

    monkeypatch.setattr("sparsetv.container.reader.decode_block", refuse)
    assert [entry.name for entry in store.list()] == ["one", "two"]
    assert run("store", "show", store.root, "one").exit_code == 0
    with pytest.raises(AssertionError):
        store.read("one")


def test_readers_take_no_lock_and_write_nothing(store: Store) -> None:
    (store.root / "lock").unlink()
    before = listing(store.root)
    for action in (store.list, store.fsck, store.known_base, lambda: store.show("one"), lambda: store.read("one")):
        action()
    assert listing(store.root) == before
    assert not (store.root / "lock").exists()
    with FileLock(store.root / "lock"):
        assert len(store.list()) == 2
        assert store.fsck().problems == ()


# Adding


def test_adding_the_same_file_again_changes_nothing(store: Store, room: Path) -> None:
    before = listing(store.root)
    assert store.add(room / "one.stv") == store.ref("one")
    assert store.add(room / "one.stv", replace=True).revision == 1
    assert listing(store.root) == before


def test_two_names_share_an_object(store: Store, room: Path) -> None:
    store.add(room / "one.stv", "again")
    assert store.path_of("again") == store.path_of("one")
    assert len([*store.root.rglob("*.stv")]) == 2


def test_a_name_is_given_to_another_file_only_on_demand(store: Store, room: Path) -> None:
    before = listing(store.root)
    with pytest.raises(UsageError, match=r"lib: has a task 'one' \(revision 1, digest .*replace it with --replace"):
        store.add(room / "three.stv", "one")
    assert listing(store.root) == before
    ref = store.add(room / "three.stv", "one", replace=True)
    assert (ref.revision, ref.object, ref.previous) == (2, sha256(room / "three.stv"), sha256(room / "one.stv"))
    assert store.ref("one") == ref


def test_the_bytes_that_were_checked_are_the_ones_that_enter(
    store: Store, room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "changing.stv"
    source.write_bytes((room / "three.stv").read_bytes())
    real = reader.decode

    def decode_and_change(opened: reader.Opened) -> SparseTaskVector:
        result = real(opened)
        source.write_bytes(b"changed")
        return result

    monkeypatch.setattr("sparsetv.store.objects.decode", decode_and_change)
    store.add(source)
    assert store.path_of("three").read_bytes() == (room / "three.stv").read_bytes()


def test_a_damaged_object_is_healed_by_adding_its_file_again(store: Store, room: Path) -> None:
    object_file(store, room / "one.stv").write_bytes(b"rust")
    with pytest.raises(FormatError, match=r"SHA-256 is .*…, its name says .*add the task's file again"):
        store.read("one")
    assert store.add(room / "one.stv").revision == 1
    assert store.fsck().problems == ()
    object_file(store, room / "one.stv").unlink()
    with pytest.raises(FormatError, match=r"'one' names object .*…, which is missing; add the task's file again"):
        store.read("one")
    store.add(room / "one.stv")
    assert store.read("one").name == "one"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", r"task name of 0 characters"),
        ("a" * 129, r"task name of 129 characters"),
        ("../up", r"not a portable path component"),
        ("a/b", r"not a portable path component; choose a name with --name"),
        (".hidden", r"not a portable path component"),
        ("con", r"reserved on Windows"),
        ("a\nb", r"control characters"),
        ("a,b", r"holds a comma, which divides names in STORE:a,b"),
        ("ONE", r"has a task 'one', whose file is the same as that of 'ONE' where case does not count"),
    ],
)
def test_names_that_a_store_cannot_hold(name: str, message: str, store: Store, room: Path) -> None:
    before = listing(store.root)
    with pytest.raises(UsageError, match=message):
        store.add(room / "three.stv", name)
    assert listing(store.root) == before


def test_what_is_no_task_file_does_not_enter(store: Store, room: Path, tmp_path: Path) -> None:
    data = (room / "three.stv").read_bytes()
    (tmp_path / "short.stv").write_bytes(data[:-1])
    (tmp_path / "empty.stv").write_bytes(b"")
    (tmp_path / "lfs.stv").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    flipped = bytearray(data)
    flipped[-1] ^= 1
    (tmp_path / "flipped.stv").write_bytes(flipped)
    (tmp_path / "lying.stv").write_bytes(with_manifest(data, ["digest"], "0" * 64))
    (tmp_path / "huge.stv").write_bytes(with_manifest(data, ["files"], [{"name": "config.json", "size": 1 << 40}]))
    os.mkfifo(tmp_path / "fifo.stv")
    before = listing(store.root)
    cases: list[tuple[str, type[SparseTVError], str]] = [
        ("short", FormatError, r"short\.stv: .*cut off"),
        ("empty", FormatError, r"empty\.stv: 0 bytes are too few"),
        ("lfs", FormatError, r"lfs\.stv: is a git-LFS pointer"),
        ("flipped", FormatError, r"flipped\.stv: SHA-256 of the payload differs"),
        ("lying", FormatError, r"lying\.stv: content digest is"),
        ("huge", LimitError, r"huge\.stv: decoding needs up to"),
        ("fifo", FormatError, r"fifo\.stv: not a regular file"),
        ("nowhere", NotFoundError, r"nowhere\.stv: no such file"),
    ]
    for name, error, message in cases:
        with pytest.raises(error, match=message):
            store.add(tmp_path / f"{name}.stv")
    with pytest.raises(FormatError, match=r"base: not a regular file; name a \.stv file"):
        store.add(room / "base")
    assert listing(store.root) == before


# One base


def test_a_task_of_another_base_is_refused(store: Store, room: Path) -> None:
    ours, theirs = read_task(room / "one.stv").base.digest[:12], read_task(room / "foreign.stv").base.digest[:12]
    before = listing(store.root)
    with pytest.raises(
        BaseMismatchError,
        match=rf"foreign\.stv: was packed against base {theirs}…, but .*lib holds tasks of base {ours}… "
        r"\(first difference: pooler\.dense\.weight\); make a store for the other base",
    ):
        store.add(room / "foreign.stv")
    with pytest.raises(BaseMismatchError, match="foreign: was packed"):
        store.add(read_task(room / "foreign.stv"))
    assert listing(store.root) == before


def test_bases_that_differ_in_no_recorded_tag_are_told_apart(store: Store, room: Path) -> None:
    task = read_task(room / "three.stv")
    with pytest.raises(BaseMismatchError, match="first difference: none of the recorded hash tags"):
        store.add(replace(task, base=replace(task.base, digest="0" * 64)))


def test_the_base_stays_when_all_tasks_are_gone(store: Store, room: Path) -> None:
    store.remove("*")
    store.gc(grace=0)
    with pytest.raises(BaseMismatchError):
        store.add(room / "foreign.stv")


def test_a_base_that_nobody_recorded_is_that_of_the_tasks(store: Store, room: Path) -> None:
    """As a writer leaves it that dies between the ref and the record of the base."""
    config = store.root / "sparsetv-store.json"
    edit_json(config, base=None)
    known = store.known_base()
    assert known is not None
    assert known.digest == read_task(room / "one.stv").base.digest
    assert store.fsck().problems == ()
    with pytest.raises(BaseMismatchError):
        store.add(room / "foreign.stv")
    _ref(store).write_text("{")
    assert store.known_base() == known, "one broken ref hides no other"
    store.remove("*")
    assert store.known_base() == known
    edit_json(config, base=None)
    assert store.known_base() is None
    store.add(room / "foreign.stv")


def test_a_base_can_be_given_at_the_start(room: Path, tmp_path: Path) -> None:
    done: list[tuple[str, int, int]] = []
    made = Store.init(tmp_path / "lib", room / "base", progress=lambda *told: done.append(told))
    task = read_task(room / "one.stv")
    known = made.known_base()
    assert known is not None
    assert (known.digest, [*known.tensors]) == (task.base.digest, [*task.base.names])
    assert [item.tag for item in known.tensors.values()] == [*task.base.tags]
    assert made.base == str((room / "base").resolve())
    assert done[-1][0] == "hash the base"
    assert done[-1][1] == done[-1][2]
    with pytest.raises(BaseMismatchError, match=r"\(.*/base\) \(first difference: pooler"):
        made.add(room / "foreign.stv")
    made.add(room / "one.stv")
    assert Store.open(tmp_path / "lib").base == made.base


def test_the_hub_names_the_base_where_it_came_from_there(room: Path, tmp_path: Path) -> None:
    task = read_task(room / "one.stv")
    made = Store.init(tmp_path / "lib")
    assert made.base is None
    made.add(replace(task, base=replace(task.base, repo="org/base", commit="c" * 40)))
    assert made.base == "org/base@" + "c" * 40


# Making and opening


def test_only_a_new_or_empty_directory_becomes_a_store(store: Store, room: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"lib: is a store; add tasks to it"):
        Store.init(store.root)
    with pytest.raises(OutputError, match=r"base: holds config\.json, which is no part of a store"):
        Store.init(room / "base")
    with pytest.raises(OutputError, match=r"one\.stv: is a file; name a directory"):
        Store.init(room / "one.stv")
    with pytest.raises(OutputError, match=r"no/where: directory .*no does not exist; create it first"):
        Store.init(tmp_path / "no" / "where")
    with pytest.raises(NotFoundError, match=r"nowhere: no such file or directory"):
        Store.init(tmp_path / "fresh", "nowhere")
    assert not (tmp_path / "fresh").exists()
    (tmp_path / "empty").mkdir()
    assert Store.init(tmp_path / "empty").list() == ()


def test_what_is_no_store_is_not_opened(room: Path, tmp_path: Path) -> None:
    for path in (room, room / "one.stv", tmp_path / "nowhere", tmp_path / ("x" * 300)):
        with pytest.raises(NotFoundError, match=r"no sparsetv-store\.json, so it is no store; make one with"):
            Store.open(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"not JSON"),
        ("[]", r"expected an object, found list"),
        ('{"format":"sparsetv-store","version":2,"base":null}', r"version 1, found 'sparsetv-store' of 2; update"),
        ('{"format":"sparsetv-store","version":0,"base":null}', r"found 'sparsetv-store' of 0"),
        ('{"format":"other","version":1,"base":null}', r"expected a sparsetv-store of version 1, found 'other'"),
        ('{"format":"sparsetv-store","version":1}', r"missing key 'base'"),
        ('{"format":"sparsetv-store","version":1,"base":null,"more":1}', r"unknown key 'more'"),
        ('{"format":"sparsetv-store","version":1,"base":{}}', r"base: missing key 'tensors'"),
    ],
)
def test_a_broken_store_file_is_told(text: str, message: str, store: Store, room: Path) -> None:
    (store.root / "sparsetv-store.json").write_text(text)
    for action in (store.list, store.gc, lambda: store.read("one"), lambda: store.add(room / "three.stv"),
                   lambda: store.remove("one"), lambda: store.base):  # fmt: skip
        with pytest.raises(FormatError, match=rf"sparsetv-store\.json.*{message}"):
            action()
    assert len(store.fsck().problems) == 1
    assert store.fsck().refs == 2


@pytest.mark.parametrize("value", [1, [], ["F32", [1]], ["F32", 1, "0" * 8], [1, [1], "0" * 8], ["F32", [1], "xyz"]])
def test_a_broken_tensor_of_the_base_is_told(value: object, store: Store) -> None:
    config = store.root / "sparsetv-store.json"
    base = json.loads(config.read_text())["base"]
    edit_json(config, base={**base, "tensors": {**base["tensors"], "pooler.dense.weight": value}})
    with pytest.raises(FormatError, match=r"json\.base\.tensors\.pooler\.dense\.weight"):
        store.list()


# Choosing and removing


def test_patterns_choose_names(store: Store, room: Path) -> None:
    for name in ("a[1]", "a1", "B"):
        store.add(room / "one.stv", name)
    assert store.select("t*", "one", "one") == ("one", "two")
    assert store.select("a[1]") == ("a[1]",), "a name comes before a glob"
    assert store.select("a[[]*", "a?") == ("a1", "a[1]")
    assert store.select("[A-Z]") == ("B",)
    assert store.select() == ()
    for pattern in ("b", "x*", "", "ONE"):
        with pytest.raises(NotFoundError, match=r"no task matches '.*'; it has B, a1, a\[1\], one, two"):
            store.select("one", pattern)
    with pytest.raises(NotFoundError, match=r"no task matches 'o\*'; it has"):
        store.read("o*")
    with pytest.raises(NotFoundError, match=r"no task matches '\.\./refs/one'"):
        store.read("../refs/one")


def test_many_names_are_not_all_told(store: Store, room: Path) -> None:
    for number in range(8):
        store.add(room / "one.stv", f"a{number}")
    with pytest.raises(NotFoundError, match=r"it has a0, a1, .*, a7 and 2 more$"):
        store.select("x")


def test_removing_drops_names_and_keeps_objects(store: Store, room: Path) -> None:
    with pytest.raises(NotFoundError, match="no task matches 'x'"):
        store.remove("one", "x")
    assert store.names() == ("one", "two")
    assert store.remove("o*") == ("one",)
    assert store.names() == ("two",)
    assert object_file(store, room / "one.stv").exists()
    assert store.add(room / "one.stv").revision == 1


# One writer at a time


def test_a_revision_that_is_not_the_expected_one_is_refused(store: Store, room: Path) -> None:
    store.add(room / "two.stv", "one", replace=True, expected_revision=1)
    before = listing(store.root)
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: store.add(room / "three.stv", "one", replace=True, expected_revision=1), "'one' at revision 1, found "
         "revision 2; another writer"),
        (lambda: store.add(room / "two.stv", "one", expected_revision=0), "'one' at revision 0, found revision 2"),
        (lambda: store.add(room / "three.stv", expected_revision=1), "'three' at revision 1, found revision 0"),
        (lambda: store.remove("o*", expected_revision=1), "'one' at revision 1, found revision 2"),
    ]  # fmt: skip
    for action, message in cases:
        with pytest.raises(BusyError, match=message):
            action()
    assert listing(store.root) == before
    store.add(room / "three.stv", expected_revision=0)
    store.remove("one", expected_revision=2)


def test_a_held_lock_is_told_or_waited_for(store: Store, room: Path, tmp_path: Path) -> None:
    lock = FileLock(store.root / "lock", thread_local=False)
    lock.acquire()
    before = listing(store.root)
    for action in (lambda: store.add(room / "three.stv"), lambda: store.remove("one"), store.gc):
        with pytest.raises(BusyError, match=r"lib: another process is changing the store \(waited 0 s\); try again"):
            action()
    with pytest.raises(BusyError, match=r"waited 0\.05 s"):
        store.remove("one", wait=0.05)
    assert listing(store.root) == before
    timer = threading.Timer(0.1, lock.release)
    timer.start()
    assert store.add(room / "three.stv", wait=20).revision == 1
    timer.join()


def test_a_lock_file_that_nobody_holds_is_no_lock(store: Store) -> None:
    (store.root / "lock").write_text("12345\nelsewhere\n")
    assert store.remove("one") == ("one",)


def test_a_lock_that_is_no_file_is_refused(store: Store, tmp_path: Path) -> None:
    (store.root / "lock").unlink()
    (store.root / "lock").symlink_to(tmp_path / "outside")
    with pytest.raises(OutputError, match=r"lock: expected a lock file, found a symbolic link; remove it"):
        store.remove("one")
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("number", [-1.0, float("inf"), float("nan")])
def test_seconds_are_finite_and_positive(number: float, store: Store) -> None:
    with pytest.raises(UsageError, match=r"wait is .*; expected seconds from 0"):
        store.remove("one", wait=number)
    with pytest.raises(UsageError, match=r"grace is .*; expected seconds from 0"):
        store.gc(grace=number)


# Collecting


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_objects_go_when_no_name_stands_for_them_and_their_time_is_over(store: Store, room: Path) -> None:
    one, two = (object_file(store, room / f"{name}.stv") for name in ("one", "two"))
    for path in (one, two):
        age(path, 10_000)
    store.add(room / "three.stv", "one", replace=True)
    assert store.gc().files == (), "the hour begins when the name goes, not when the file came"
    age(one, 3599 - 60)
    assert store.gc().files == ()
    age(one, 3601)
    told = store.gc(dry_run=True)
    assert (told.dry_run, told.size) == (True, (room / "one.stv").stat().st_size)
    assert one.exists()
    collected = store.gc()
    assert collected.files == told.files
    assert [file.path for file in collected.files] == [one.relative_to(store.root).as_posix()]
    assert not one.exists()
    assert two.exists()
    assert store.ref("one").previous == one.stem, "what is gone may still be told"
    assert store.fsck().problems == ()


def test_a_removed_task_begins_its_time_of_grace(store: Store, room: Path) -> None:
    one = object_file(store, room / "one.stv")
    age(one, 10_000)
    store.remove("one")
    assert store.gc().files == ()
    assert [file.path for file in store.gc(grace=0).files] == [one.relative_to(store.root).as_posix()]


def test_an_object_that_a_second_name_stands_for_stays(store: Store, room: Path) -> None:
    store.add(room / "one.stv", "again")
    store.remove("one")
    assert store.gc(grace=0).files == ()
    assert store.read("again").name == "again"


def test_left_over_temporary_files_are_ignored_and_collected(store: Store, room: Path) -> None:
    names = [".", "refs", "objects", str(object_file(store, room / "one.stv").parent.relative_to(store.root))]
    for place in names:
        (store.root / place / ".sparsetv-0123456789abcdef.tmp").write_bytes(b"half")
    assert store.names() == ("one", "two")
    report = store.fsck()
    assert (report.problems, len(report.temporaries)) == ((), 4)
    collected = store.gc()
    assert (len(collected.files), collected.size) == (4, 16)
    assert store.fsck().temporaries == ()


def test_nothing_is_collected_while_a_ref_is_broken(store: Store, room: Path) -> None:
    (store.root / "refs" / "two.json").write_text("{")
    store.remove("one")
    with pytest.raises(FormatError, match=r"refs/two\.json: not JSON"):
        store.gc(grace=0)
    assert object_file(store, room / "one.stv").exists()
    store.remove("two")
    assert len(store.gc(grace=0).files) == 2


def test_what_a_store_did_not_write_is_not_collected(store: Store) -> None:
    strange = [store.root / "README", store.root / "objects" / "note", store.root / "refs" / ".sparsetv-1.tmp"]
    for path in strange:
        path.write_text("mine")
    (store.root / "refs" / ".sparsetv-0123456789abcdef.tmp").symlink_to(strange[0])
    assert store.gc(grace=0).files == ()


# Broken stores


@dataclass(frozen=True, slots=True)
class Broken:
    """A way to break a store, what `fsck` says of it, and whether `one` can still be read."""

    name: str
    make: Callable[[Store, Path], object]
    message: str
    readable: bool = False


def _instead(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def _foreign(store: Store, room: Path) -> None:
    path = object_file(store, room / "foreign.stv")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((room / "foreign.stv").read_bytes())


def _misplace(store: Store, room: Path) -> None:
    path = object_file(store, room / "three.stv")
    parent = store.root / "objects" / ("00" if not path.name.startswith("00") else "01")
    parent.mkdir(exist_ok=True)
    (parent / path.name).write_bytes((room / "three.stv").read_bytes())


def _link(target: Path, path: Path) -> None:
    """Put a link where a file or directory was, to a true copy outside of the store."""
    outside = target / f"outside-{path.name}"
    path.rename(outside)
    path.symlink_to(outside)


def _one(store: Store, room: Path) -> Path:
    return object_file(store, room / "one.stv")


def _ref(store: Store) -> Path:
    return store.root / "refs" / "one.json"


BROKEN = [
    Broken("flipped byte", lambda s, r: _one(s, r).write_bytes(_one(s, r).read_bytes()[:-1] + b"\0\1"),
           r"objects/.*\.stv: the file's SHA-256 is .*…, its name says"),
    Broken("another task's bytes", lambda s, r: _one(s, r).write_bytes((r / "three.stv").read_bytes()),
           r"objects/.*\.stv: the file's SHA-256 is"),
    Broken("object missing", lambda s, r: _one(s, r).unlink(), r"refs/one\.json: names object .*, which is missing"),
    Broken("object a link", lambda s, r: _link(s.root.parent, _one(s, r)), r"\.stv: a symbolic link that is no part"),
    Broken("object's directory a link", lambda s, r: _link(s.root.parent, _one(s, r).parent),
           r"objects/..: a symbolic link that is no part of a store and is never followed"),
    Broken("objects a link", lambda s, r: _link(s.root.parent, s.root / "objects"), r"objects: a symbolic link"),
    Broken("objects missing", lambda s, r: (s.root / "objects").rename(s.root / "gone"),
           r"objects: expected a directory, found nothing; restore it"),
    Broken("refs a link", lambda s, r: _link(s.root.parent, s.root / "refs"), r"refs: a symbolic link"),
    Broken("refs missing", lambda s, r: (s.root / "refs").rename(s.root / "gone"), r"refs: expected a directory"),
    Broken("ref a link", lambda s, r: _link(s.root.parent, _ref(s)), r"refs/one\.json: a symbolic link"),
    Broken("ref a fifo", lambda s, r: _instead(_ref(s), os.mkfifo), r"refs/one\.json: a special file"),
    Broken("ref a directory", lambda s, r: _instead(_ref(s), os.mkdir), r"refs/one\.json: directory that"),
    Broken("ref empty", lambda s, r: _ref(s).write_bytes(b""), r"refs/one\.json: not JSON"),
    Broken("ref huge", lambda s, r: _ref(s).write_bytes(b" " * 5000), r"refs/one\.json: more than 4096 bytes"),
    Broken("ref no text", lambda s, r: _ref(s).write_bytes(b"\xff"), r"refs/one\.json: not UTF-8"),
    Broken("ref twice a key", lambda s, r: _ref(s).write_text('{"name":"one","name":"one"}'), r"appears twice"),
    Broken("ref of another name", lambda s, r: edit_json(_ref(s), name="two"),
           r"refs/one\.json: expected name 'one' and a revision from 1, found 'two'"),
    Broken("ref at revision 0", lambda s, r: edit_json(_ref(s), revision=0), r"revision from 1, found 'one' and 0"),
    Broken("ref at revision true", lambda s, r: edit_json(_ref(s), revision=True), r"revision: expected an integer"),
    Broken("ref with a key more", lambda s, r: edit_json(_ref(s), more=1), r"unknown key 'more'"),
    Broken("ref climbing", lambda s, r: edit_json(_ref(s), object="../" * 20 + "0000"), r"64 lowercase hex digits"),
    Broken("ref with a false previous", lambda s, r: edit_json(_ref(s), previous=1), r"previous: expected a string"),
    Broken("ref of another digest", lambda s, r: edit_json(_ref(s), digest="0" * 64),
           r"refs/one\.json: says digest 000000000000…, the object's is"),
    Broken("ref to another object", lambda s, r: edit_json(_ref(s), object=s.ref("two").object),
           r"refs/one\.json: says digest"),
    Broken("another base's object", _foreign, r"\.stv: was packed against base .*first difference: pooler", True),
    Broken("stranger in objects", lambda s, r: (s.root / "objects" / "note").write_text(""), r"objects/note:", True),
    Broken("stranger beside an object", lambda s, r: (_one(s, r).parent / "note").write_text(""), r"/note: reg", True),
    Broken("stranger's directory", lambda s, r: (s.root / "objects" / "zz").mkdir(), r"objects/zz: directory", True),
    Broken("object under another prefix", _misplace, r"objects/0[01]/.*: regular file that is no part", True),
    Broken("stranger in refs", lambda s, r: (s.root / "refs" / "note.txt").write_text(""), r"refs/note\.txt:", True),
    Broken("ref of no name", lambda s, r: (s.root / "refs" / "a,b.json").write_text("{}"), r"refs/a,b\.json:", True),
    Broken("temporary a link", lambda s, r: (s.root / "refs" / ".sparsetv-0123456789abcdef.tmp").symlink_to("/"),
           r"tmp: a symbolic link", True),
]  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_what_is_broken_is_found_and_not_used(broken: Broken, store: Store, room: Path) -> None:
    assert store.fsck().problems == ()
    broken.make(store, room)
    problems = store.fsck().problems
    assert [line for line in problems if re.search(broken.message, line)], problems
    result = run("store", "fsck", store.root)
    assert isinstance(result.exception, FormatError)
    assert [line for line in problems if line in result.stdout.splitlines()] == [*problems]
    if broken.readable:
        assert len(problems) == 1
        assert store.read("one").name == "one"
        return
    with pytest.raises(FormatError):
        store.read("one")
    with pytest.raises(FormatError):
        store.list()


def test_every_problem_is_reported(store: Store, room: Path) -> None:
    for name in ("one", "two"):
        object_file(store, room / f"{name}.stv").write_bytes(b"")
        store.add(room / "three.stv", f"bad-{name}")
        (store.root / "refs" / f"bad-{name}.json").write_text("[]")
    (store.root / "sparsetv-store.json").write_text("{}")
    assert len(store.fsck().problems) == 5


def test_links_are_not_written_through(store: Store, room: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    for path in (store.root / "refs" / "three.json", object_file(store, room / "three.stv")):
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(outside)
        with pytest.raises(FormatError, match="found a symbolic link, which a store never follows; remove it"):
            store.add(room / "three.stv")
        path.unlink()
    assert not outside.exists()
    store.add(room / "three.stv")
    _link(tmp_path, store.root / "sparsetv-store.json")
    with pytest.raises(FormatError, match=r"sparsetv-store\.json: expected a regular file, found a symbolic link"):
        store.list()


def test_a_name_that_is_a_link_can_be_removed(store: Store, tmp_path: Path) -> None:
    _link(tmp_path, _ref(store))
    store.remove("one")
    assert (tmp_path / "outside-one.json").exists()
    assert store.names() == ("two",)


def test_dangling_objects_are_only_told(store: Store, room: Path) -> None:
    store.remove("one")
    report = store.fsck()
    assert (report.problems, report.dangling) == ((), (sha256(room / "one.stv"),))
    assert (report.refs, report.objects) == (1, 2)
    assert report.size == sum((room / f"{name}.stv").stat().st_size for name in ("one", "two"))
    assert run("store", "fsck", store.root).exit_code == 0


# References


def test_references_name_tasks_of_a_store(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = store.root
    assert parse_reference(f"{root}:one") == (root, ("one",))
    assert parse_reference(f"{root}:one,t*") == (root, ("one", "t*"))
    assert parse_reference(f"{root}:") == (root, ("",))
    odd = Store.init(tmp_path / "c:x").root
    Store.init(tmp_path / "c:x:y")
    assert parse_reference(f"{odd}:a") == (odd, ("a",))
    assert parse_reference(f"{odd}:y:a") == (tmp_path / "c:x:y", ("a",))
    assert parse_reference(f"{odd}:z:a") == (odd, ("z:a",))
    for text in ("", ":", "one.stv", str(root), f"{tmp_path}:one", "org/name@main", f"{'x' * 5000}:a", "\0:a"):
        assert parse_reference(text) is None
    monkeypatch.chdir(root)
    assert parse_reference(":one") is None
    assert parse_reference(".:one") == (Path(), ("one",))


# The command line


def test_commands_say_what_they_did(room: Path, tmp_path: Path) -> None:
    lib = tmp_path / "lib"
    assert "no base yet" in run("store", "init", lib).stdout
    lines = run("store", "add", lib, room / "one.stv", room / "two.stv").stdout.splitlines()
    assert [line.split()[:3] for line in lines] == [["one:", "revision", "1,"], ["two:", "revision", "1,"]]
    assert run("store", "add", lib, room / "three.stv", "--name", "one", "--replace").stdout.startswith(
        "one: revision 2"
    )
    listed = json.loads(run("store", "list", lib, "--json").stdout)
    assert [(entry["name"], entry["revision"]) for entry in listed] == [("one", 2), ("two", 1)]
    assert set(listed[0]) == {"name", "density", "nnz", "size", "revision", "digest"}
    assert [line.split()[0] for line in run("store", "list", lib).stdout.splitlines()] == ["task", "one", "two"]
    shown = json.loads(run("store", "show", lib, "one", "--json").stdout)
    assert (shown["ref"]["previous"], shown["summary"]["name"]) == (sha256(room / "one.stv"), "three")
    text = run("store", "show", lib, "one").stdout
    assert text.startswith("name        one, revision 2\n")
    inspected = run("inspect", room / "three.stv").stdout.splitlines()
    assert [line for line in inspected if not line.startswith("lost ")] == text.splitlines()[2:]  # nothing is decoded
    assert run("store", "remove", lib, "t*").stdout == "two: removed\n"
    told = run("store", "gc", lib, "--grace", "0", "--dry-run").stdout
    assert told.endswith("bytes would go\n")
    assert run("store", "gc", lib, "--grace", "0").stdout == told.replace("would go", "removed")
    assert run("store", "gc", lib).stdout == "0 files, 0 bytes removed\n"
    assert json.loads(run("store", "fsck", lib, "--json").stdout)["objects"] == 1
    assert "base " in run("store", "init", tmp_path / "based", "--base", room / "base").stdout


def test_commands_end_with_the_documented_codes(store: Store, room: Path) -> None:
    lib = store.root
    cases: list[tuple[int, tuple[object, ...]]] = [
        (1, ("init", room / "base")),
        (2, ("init", lib)),
        (2, ("add", lib, room / "three.stv", "--name", "one")),
        (3, ("add", lib, room / "base" / "config.json")),
        (4, ("add", lib, room / "foreign.stv")),
        (5, ("list", room)),
        (5, ("show", lib, "x")),
        (5, ("remove", lib, "one", "x*")),
    ]
    with FileLock(lib / "lock"):
        busy = [run("store", *words).exception for words in (("remove", lib, "one"), ("gc", lib, "--wait", "0.01"))]
    assert [error.exit_code for error in busy if isinstance(error, BusyError)] == [6, 6]
    for code, words in cases:
        error = run("store", *words).exception
        assert isinstance(error, SparseTVError)
        assert error.exit_code == code, words
    with pytest.raises(Exception, match="--name names one task, but there are 2 files"):
        run("store", "add", lib, room / "one.stv", room / "two.stv", "--name", "x")


def test_no_command_imports_torch(room: Path, tmp_path: Path) -> None:
    code = """
import sys
from sparsetv.cli import group
lib, task, base = sys.argv[1:]
for words in (["init", lib, "--base", base], ["add", lib, task], ["list", lib], ["show", lib, "one"], ["fsck", lib],
              ["remove", lib, "one"], ["gc", lib]):
    group.main(["store", *words], standalone_mode=False)
print("torch" in sys.modules)
"""
    words = [sys.executable, "-c", code, str(tmp_path / "lib"), str(room / "one.stv"), str(room / "base")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == "False"


# Any sequence against a dict

NAMES = st.sampled_from(["a", "b", "c"])
TASKS = st.sampled_from([*DENSITIES, "foreign"])
STEPS = st.one_of(
    st.tuples(st.just("add"), NAMES, TASKS, st.booleans(), st.sampled_from([None, None, 0, 1, 2])),
    st.tuples(st.just("remove"), st.sampled_from(["a", "b", "[bc]", "*"])),
    st.tuples(st.just("gc"), st.booleans()),
)


class Model:
    """What a store should be, as dicts: (file, revision) by name, files that are there, the base."""

    def __init__(self) -> None:
        self.refs: dict[str, tuple[str, int]] = {}
        self.files: set[str] = set()
        self.foreign: bool | None = None

    def add(self, name: str, task: str, replacing: bool, expected: int | None) -> type[SparseTVError] | None:
        file, revision = self.refs.get(name, ("", 0))
        if self.foreign not in (None, task == "foreign"):
            return BaseMismatchError
        if expected not in (None, revision):
            return BusyError
        if revision and file != task and not replacing:
            return UsageError
        if file != task:
            self.refs[name] = (task, revision + 1)
        self.files.add(task)
        self.foreign = task == "foreign"
        return None

    def remove(self, pattern: str) -> type[SparseTVError] | None:
        chosen = {"*": "abc", "[bc]": "bc"}.get(pattern, pattern)
        gone = [name for name in self.refs if name in chosen]
        for name in gone:
            del self.refs[name]
        return None if gone else NotFoundError

    def gc(self, dry_run: bool) -> None:
        if not dry_run:
            self.files &= {file for file, _ in self.refs.values()}


@given(steps=st.lists(STEPS, max_size=12))
@settings(max_examples=20)
def test_any_sequence_is_that_of_a_dict(
    steps: list[tuple[object, ...]], room: Path, fresh: Callable[[], Path], no_sync: None
) -> None:
    store, model = Store.init(fresh() / "lib"), Model()
    hashes = {sha256(room / f"{name}.stv"): name for name in (*DENSITIES, "foreign")}
    for step in steps:
        _apply(store, model, room, step)
        assert {entry.name: entry.revision for entry in store.list()} == {n: r for n, (_, r) in model.refs.items()}
        assert {hashes[path.stem] for path in store.root.rglob("*.stv")} == model.files
        for name, (file, _) in model.refs.items():
            assert store.path_of(name).read_bytes() == (room / f"{file}.stv").read_bytes()
    assert store.fsck().problems == ()


def _apply(store: Store, model: Model, room: Path, step: tuple[object, ...]) -> None:
    match step:
        case ("add", str(name), str(task), bool(replacing), expected):
            assert expected is None or isinstance(expected, int)
            error = model.add(name, task, replacing, expected)
            _expect(error, lambda: store.add(room / f"{task}.stv", name, replace=replacing, expected_revision=expected))
        case ("remove", str(pattern)):
            _expect(model.remove(pattern), lambda: store.remove(pattern))
        case ("gc", bool(dry_run)):
            model.gc(dry_run)
            store.gc(grace=0, dry_run=dry_run)


def _expect(error: type[SparseTVError] | None, action: Callable[[], object]) -> None:
    if error is None:
        action()
    else:
        with pytest.raises(error):
            action()
