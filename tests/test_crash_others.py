"""Real trouble that others make: locks of the dead and the living, two writers, signals, sources that change."""

import faulthandler
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from crash import in_child, start_child
from crashing.stage import OPTIONS, PLAIN
from crashing.state import content, temporaries
from crashing.writers import WRITERS, state
from filelock import FileLock
from hostile import outcome

from sparsetv import taskfile
from sparsetv.errors import BusyError, SparseTVError
from sparsetv.jobs.archive import archive_to, restore
from sparsetv.jobs.pack import pack_to as pack
from sparsetv.jobs.stitch import add, stitch
from sparsetv.jobs.store import Store

# Locks


def hold(lock: Path, ready: Path) -> None:
    with FileLock(lock):
        ready.touch()
        time.sleep(600)


@pytest.mark.parametrize("name", ["add", "stitch", "restore", "store"])
def test_a_lock_whose_owner_died(name: str, room: Path) -> None:
    """A lock file of a process that was killed is no held lock: the next command does not wait for it."""
    target, act = WRITERS[name]
    lock = room / "lib" / "lock" if name == "store" else room / f".{target}.sparsetv-lock"
    child = start_child(partial(hold, lock, room / "ready"))
    while not (room / "ready").exists():
        time.sleep(0.01)
    with pytest.raises(BusyError, match="another process is changing"):
        act(room)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert lock.exists()
    act(room)


def test_a_lock_that_is_held(room: Path) -> None:
    """Whoever finds a lock held is told so with exit code 6, at once or after the seconds asked for."""
    with FileLock(room / "lib" / "lock"):
        for wait in ((), ("--wait", "0.2")):
            words = [
                sys.executable,
                "-m",
                "sparsetv",
                "store",
                "add",
                *wait,
                str(room / "lib"),
                str(room / "local.stv"),
            ]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            assert done.returncode == 6, done.stderr
            assert "another process is changing the store" in done.stderr
    Store.open(room / "lib").add(room / "local.stv")


# Two writers at once


def _together(*acts: Callable[[], object]) -> list[int]:
    """How processes end that all do something at once: 0 well, 6 busy, 1 another known error, 255 a crash."""

    def act(one: Callable[[], object]) -> int:
        error = outcome(one)
        return 0 if error is None else getattr(error, "exit_code", 1)

    children = [start_child(partial(act, one)) for one in acts]
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def test_two_that_pack_into_one_file(room: Path) -> None:
    """Both end well, the file is one of theirs, and neither takes the other's temporary file for a left-over one."""
    wanted = []
    for name in ("one", "two"):
        pack(room / "x", room / "base", room / f"tuned-{name}", name="x", options=OPTIONS)
        wanted.append((room / "x").read_bytes())
    acts = [
        partial(pack, room / "x", room / "base", room / f"tuned-{name}", name="x", options=OPTIONS)
        for name in ("one", "two")
    ]
    for _ in range(6):
        assert _together(*acts, *acts) == [0, 0, 0, 0]
        assert (room / "x").read_bytes() in wanted
    assert not temporaries(room)


def test_two_that_stitch_into_one_directory(room: Path) -> None:
    """One may be told to wait; the directory is one of theirs, whole."""
    wanted = []
    acts = [
        partial(stitch, room / "base", [room / f"{name}.stv"], room / "out", options=PLAIN) for name in ("one", "two")
    ]
    for act in acts:
        act()
        wanted.append(content(room / "out"))
    for _ in range(6):
        ends = _together(*acts)
        assert {*ends} <= {0, 6}
        assert 0 in ends
        assert content(room / "out") in wanted
    assert not temporaries(room)


# Signals


def test_signals_at_random_moments(tmp_path: Path) -> None:
    """A real process that gets SIGTERM, SIGINT or SIGKILL leaves old or new, and the next one tidies up."""
    from crashing.signals import COMMANDS, SIGNALS, strike_all

    struck = list(strike_all(tmp_path, times=1, commands=COMMANDS[::2]))
    assert len(struck) == 2 * len(SIGNALS)
    assert {one.processes for one in struck} == {1}


# Sources

Meddle = Callable[..., None]

READING: dict[str, tuple[str, str, Callable[[Path, Meddle], object]]] = {
    "pack, base": ("x.stv", "base/model-00002-of-00002.safetensors", lambda room, meddle: pack(
        room / "x.stv", room / "base", room / "tuned-one", options=OPTIONS, progress=meddle)),
    "pack, fine-tune": ("x.stv", "tuned-one/model-00002-of-00002.safetensors", lambda room, meddle: pack(
        room / "x.stv", room / "base", room / "tuned-one", options=OPTIONS, progress=meddle)),
    "lossless, base": ("x", "base/model-00002-of-00002.safetensors", lambda room, meddle: archive_to(
        room / "x", room / "base", room / "tuned-one", progress=meddle)),
    "lossless, fine-tune": ("x", "tuned-one/model-00002-of-00002.safetensors", lambda room, meddle: archive_to(
        room / "x", room / "base", room / "tuned-one", progress=meddle)),
    "restore, base": ("back", "base/model-00002-of-00002.safetensors", lambda room, meddle: restore(
        room / "base", room / "one.archive", room / "back", progress=meddle)),
    "restore, archive": ("back", "one.archive", lambda room, meddle: restore(
        room / "base", room / "one.archive", room / "back", progress=meddle)),
    "stitch, base": ("out", "base/model-00002-of-00002.safetensors", lambda room, meddle: stitch(
        room / "base", [room / "one.stv"], room / "out", options=PLAIN, progress=meddle)),
    "stitch, task": ("out", "one.stv", lambda room, meddle: _late(taskfile, meddle, lambda: stitch(
        room / "base", [room / "one.stv"], room / "out", options=PLAIN))),
    "add, weights": ("out", "out/model-00002-of-00002.safetensors", lambda room, meddle: add(
        room / "out", [room / "local.stv"], progress=meddle)),
    "add from a store": ("out", "object", lambda room, meddle: _late(taskfile, meddle, lambda: add(
        room / "out", [f"{room / 'lib'}:one"]))),
}  # fmt: skip
"""What is written, which file is read meanwhile, and the command, which calls `meddle` once it reads."""


def _late(module: Any, meddle: Meddle, act: Callable[[], object]) -> object:
    """Meddle between the opening of a task file and its decoding; in a process of its own."""
    real = module.decode

    def decode(*args: Any, **named: Any) -> Any:
        meddle()
        return real(*args, **named)

    module.decode = decode
    return act()


def _rewritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"other")


def _replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes()[:-5] + b"other")
    os.replace(other, path)


MEDDLING: dict[str, Callable[[Path], None]] = {
    "rewritten": _rewritten,
    "replaced": _replaced,
    "gone": Path.unlink,
    "cut off": lambda path: os.truncate(path, 0),
}


@pytest.mark.parametrize("kind", MEDDLING)
@pytest.mark.parametrize("name", READING)
def test_a_source_that_changes_while_it_is_read(name: str, kind: str, stage: Path, room: Path) -> None:
    """The command says so, or has read it before. Cutting off a mapped file may kill (SIGBUS)."""
    target, source, act = READING[name]
    path = Store.open(room / "lib").path_of("one") if source == "object" else room / source
    before, sound = state(room / target), path.read_bytes()
    wanted = _undisturbed(stage, room, target, act)
    code = in_child(partial(_meddled, partial(act, room), partial(MEDDLING[kind], path)))
    assert code in {0, 1, *([-signal.SIGBUS] if kind == "cut off" else [])}
    if path.is_relative_to(room / target):  # what was meddled with is part of the target
        assert code
        path.write_bytes(sound)
    assert state(room / target) == (before if code else wanted)
    path.write_bytes(sound)
    if target == "back":  # which must be new
        shutil.rmtree(room / "back", ignore_errors=True)
    act(room, lambda *_: None)
    assert state(room / target) == wanted
    assert not temporaries(room)


def _undisturbed(stage: Path, room: Path, target: str, act: Callable[[Path, Meddle], object]) -> object:
    assert in_child(partial(act, room, lambda *_: None)) in {0, 255}
    found = state(room / target)
    shutil.rmtree(room)
    shutil.copytree(stage, room)
    return found


def _meddled(act: Callable[[Meddle], object], meddle: Callable[[], None]) -> int:
    """0 where a command ends well though it was meddled with once, 1 where it says what is wrong."""
    faulthandler.disable()  # a death that is expected needs no report
    done: list[bool] = []

    def once(*_: object) -> None:
        if not done:
            done.append(True)
            meddle()

    error = outcome(lambda: act(once))
    assert done, "it reported that it reads"
    assert error is None or isinstance(error, SparseTVError), repr(error)
    return int(error is not None)
