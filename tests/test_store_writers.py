"""A store loses nothing to those who write beside; to those who die, see the crash matrix."""

import os
import shutil
from functools import partial
from pathlib import Path

import pytest
from crash import start_child
from hostile import make_pair, outcome, pack_to

from sparsetv.errors import BusyError
from sparsetv.jobs.store import Store


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
