"""A store is the old one or the new one, whatever call fails, whoever dies and whoever writes beside."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from crash import KILLED, Hooks, die, in_child, start_child
from hostile import make_pair, outcome, pack_to

from sparsetv.errors import BusyError, OutputError
from sparsetv.jobs.store import Store
from sparsetv.leftovers import is_temporary
from sparsetv.store.layout import is_store

State = tuple[str | None, dict[str, tuple[int, str]]] | None


@pytest.fixture
def hooks(no_sync: None) -> Iterator[Hooks]:
    patch = pytest.MonkeyPatch()
    yield Hooks(patch)
    patch.undo()


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Task files; an empty store; and one in which `one` was replaced, so that an object dangles."""
    path = tmp_path_factory.mktemp("room")
    pair = make_pair(path)
    for name, density in {"one": 0.2, "two": 0.4, "three": 0.6, "four": 0.8}.items():
        pack_to(path / f"{name}.stv", pair.base, pair.tuned, name=name, density=density)
    for part in ("base", "tuned"):
        shutil.rmtree(path / part)
    Store.init(path / "empty")
    store = Store.init(path / "lib")
    store.add(path / "one.stv")
    store.add(path / "two.stv")
    store.add(path / "three.stv", "one", replace=True)
    return path


@dataclass(frozen=True, slots=True)
class Scene:
    """Something that changes a store: which one, how, at least how many calls it takes, and the states between."""

    name: str
    store: str
    act: Callable[[Path], object]
    calls: int


SCENES = [
    Scene("init", "new", lambda path: Store.init(path / "new"), 8),
    Scene("first", "empty", lambda path: Store.open(path / "empty").add(path / "one.stv"), 18),
    Scene("add", "lib", lambda path: Store.open(path / "lib").add(path / "four.stv"), 12),
    Scene("add again", "lib", lambda path: Store.open(path / "lib").add(path / "one.stv", "five"), 6),
    Scene("replace", "lib", lambda path: Store.open(path / "lib").add(path / "four.stv", "one", replace=True), 13),
    Scene("remove", "lib", lambda path: Store.open(path / "lib").remove("one"), 4),
    Scene("gc", "lib", lambda path: Store.open(path / "lib").gc(grace=0), 3),
]


def state(path: Path) -> State:
    """What a store is to its users; None for no store."""
    if not is_store(path):
        return None
    store = Store.open(path)
    known = store.known_base()
    return None if known is None else known.digest, {
        entry.name: (entry.revision, entry.digest) for entry in store.list()
    }


def check_usable(path: Path, name: str) -> None:
    """All is sound, and the next commands work and tidy up."""
    store = Store.open(path / name) if is_store(path / name) else Store.init(path / name)
    assert store.fsck().problems == ()
    before = store.names()
    store.add(path / "four.stv", "next")
    assert store.names() == tuple(sorted([*before, "next"]))
    store.gc(grace=0)
    report = store.fsck()
    assert (report.problems, report.dangling, report.temporaries) == ((), (), ())
    assert [item for item in store.root.rglob("*") if is_temporary(item.name)] == []


@dataclass(frozen=True, slots=True)
class Trial:
    """One scene: the state before and after it, its number of calls, and a fresh copy of the room for each attempt."""

    old: State
    new: State
    calls: list[str]
    copy: Callable[[], Path]


def rehearse(scene: Scene, room: Path, fresh: Callable[[], Path], hooks: Hooks) -> Trial:
    def copy() -> Path:
        path = fresh() / "room"
        shutil.copytree(room, path)
        return path

    path = copy()
    old = state(path / scene.store)
    hooks.arm()
    scene.act(path)
    calls = hooks.calls
    assert len(calls) >= scene.calls, "the hooks see every call"
    return Trial(old, state(path / scene.store), calls, copy)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_call_that_fails_leaves_the_old_state_or_the_new_one(
    scene: Scene, room: Path, fresh: Callable[[], Path], hooks: Hooks
) -> None:
    trial, states = rehearse(scene, room, fresh, hooks), []
    for number in range(1, len(trial.calls) + 1):
        path = trial.copy()
        hooks.arm(before=partial(_fail, number))
        error = outcome(partial(scene.act, path))
        hooks.arm()
        found = state(path / scene.store)
        assert found in (trial.old, trial.new), f"call {number}, {trial.calls[number - 1]}"
        if error is None:  # a directory that cannot be made because it is there
            assert (trial.calls[number - 1], found) == ("mkdir", trial.new)
            continue
        assert isinstance(error, OutputError), f"call {number}, {trial.calls[number - 1]}: {error!r}"
        assert scene.store in str(error)
        states.append(found)
        check_usable(path, scene.store)
    assert states == sorted(states, key=lambda found: found == trial.new), "once new, never old again"


def _fail(at: int, number: int) -> None:
    if number == at:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_writer_that_is_killed_leaves_the_old_state_or_the_new_one(
    scene: Scene, moment: str, room: Path, fresh: Callable[[], Path], hooks: Hooks
) -> None:
    trial, states = rehearse(scene, room, fresh, hooks), []
    for number in range(1, len(trial.calls) + 1):
        path = trial.copy()
        hooks.arm(**{moment: partial(die, number)})
        assert in_child(partial(scene.act, path)) == KILLED
        hooks.arm()
        found = state(path / scene.store)
        assert found in (trial.old, trial.new), f"{moment} call {number}, {trial.calls[number - 1]}"
        states.append(found)
        check_usable(path, scene.store)
    assert states == sorted(states, key=lambda found: found == trial.new), "once new, never old again"
    assert states[0 if moment == "before" else -1] == (trial.old if moment == "before" else trial.new)


def test_removing_many_that_is_killed_removes_some(room: Path, fresh: Callable[[], Path], hooks: Hooks) -> None:
    scene = Scene("remove all", "lib", lambda path: Store.open(path / "lib").remove("*"), 8)
    trial, seen = rehearse(scene, room, fresh, hooks), set()
    for number in range(1, len(trial.calls) + 1):
        path = trial.copy()
        hooks.arm(before=partial(die, number))
        assert in_child(partial(scene.act, path)) == KILLED
        hooks.arm()
        seen.add(Store.open(path / "lib").names())
        check_usable(path, "lib")
    assert seen == {("one", "two"), ("two",), ()}


def test_everything_is_synced_before_it_is_named(room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename that reaches the disk before its contents leaves empty files after a power cut."""
    events: list[tuple[str, int]] = []
    real_sync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        events.append(("sync", os.fstat(descriptor).st_ino))
        real_sync(descriptor)

    def replace(source: Path, target: Path) -> None:
        assert ("sync", source.stat().st_ino) in events
        real_replace(source, target)
        events.append((target.name, target.parent.stat().st_ino))

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    store = Store.init(tmp_path / "lib")
    store.add(room / "one.stv")
    for path in [*store.root.rglob("*.stv"), *store.root.rglob("*.json")]:
        place = path.parent.stat().st_ino
        assert ("sync", place) in events[events.index((path.name, place)) :], f"{path.name} is not durable"
    names = [name for name, _ in events if name != "sync"]
    assert names == ["sparsetv-store.json", store.path_of("one").name, "one.json", "sparsetv-store.json"]
    new = {store.root, store.root / "objects", store.root / "refs", store.path_of("one").parent}
    parents = {("sync", path.parent.stat().st_ino) for path in new}
    assert parents <= {*events}
    del events[:]
    store.remove("one")
    assert ("sync", (store.root / "refs").stat().st_ino) in events
    del events[:]
    (gone,) = store.gc(grace=0).files
    assert events == [("sync", (store.root / gone.path).parent.stat().st_ino)]


# Two processes


def test_two_processes_that_add_at_once_both_end_up_in(room: Path, tmp_path: Path) -> None:
    Store.init(tmp_path / "lib")
    busy = tmp_path / "busy"

    def add(number: int) -> None:
        store, file = Store.open(tmp_path / "lib"), room / ("one.stv", "two.stv")[number]
        for turn in range(12):
            while True:
                try:
                    store.add(file, f"task-{number}-{turn}")
                    break
                except BusyError:
                    busy.touch()

    children = [start_child(partial(add, number)) for number in range(2)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    store = Store.open(tmp_path / "lib")
    assert len(store.list()) == 24
    assert {entry.revision for entry in store.list()} == {1}
    assert store.fsck().problems == ()


def test_no_update_is_lost(room: Path, tmp_path: Path) -> None:
    """Each replacement that was told to succeed is one revision more."""
    Store.init(tmp_path / "lib").add(room / "one.stv", "name")
    files = [room / f"{name}.stv" for name in ("one", "two", "three")]

    def update(number: int) -> int:
        store, done = Store.open(tmp_path / "lib"), 0
        for turn in range(30):
            ref = store.ref("name")
            file = next(file for file in files[turn % 3 :] + files if file.stem != ref.object)
            try:
                found = store.add(file, "name", replace=True, expected_revision=ref.revision, wait=20)
            except BusyError:
                continue
            done += found.revision == ref.revision + 1
        return done

    children = [start_child(partial(update, number)) for number in range(2)]
    done = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert all(0 < count <= 30 for count in done)
    assert Store.open(tmp_path / "lib").ref("name").revision == 1 + sum(done)


def test_two_processes_that_make_a_store_make_one(tmp_path: Path) -> None:
    def make() -> int:
        return outcome(lambda: Store.init(tmp_path / "lib", wait=20)) is None

    children = [start_child(make) for _ in range(3)]
    assert sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children) == 1
    assert Store.open(tmp_path / "lib").list() == ()
