"""Real processes of `sparsetv`, struck by signals at random moments."""

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hostile import pack_to, sharded

from crashing.state import content, store_content, temporaries
from sparsetv.jobs.options import StitchOptions
from sparsetv.jobs.stitch import stitch
from sparsetv.jobs.store import Store

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
_SIDE = 512
_INTERRUPTED = 130
_CODE = """
import sys
from sparsetv.cli import main
import sparsetv.jobs.pack, sparsetv.jobs.stitch, sparsetv.jobs.store, sparsetv.jobs.inspect, filelock, tqdm
print("ready", flush=True)
main()
"""


@dataclass(frozen=True, slots=True)
class Struck:
    """Processes of one command under one signal: how many, how many had ended before it, and what was left."""

    command: str
    signal: str
    processes: int
    ended: int
    old: int
    new: int


@dataclass(frozen=True, slots=True)
class Command:
    """A command line, what it changes, and what it needs of the stage."""

    words: tuple[str, ...]
    target: str
    needs: tuple[str, ...]

    def state(self, room: Path) -> Any:
        """What the target is to its users."""
        return store_content(room / self.target) if self.target == "lib" else content(room / self.target)


_PACK = ("--scope", "all", "--density", "0.05", "--no-probe")
COMMANDS = (
    Command(("pack", "base", "tuned", "-o", "old.stv", *_PACK), "old.stv", ("base", "tuned", "old.stv")),
    Command(("stitch", "base", "one.stv", "-o", "out", "--scale", "none"), "out", ("base", "one.stv", "out")),
    Command(("add", "out", "one.stv"), "out", ("base", "one.stv", "out")),
    Command(("store", "add", "lib", "one.stv"), "lib", ("one.stv", "lib")),
)


def build(stage: Path) -> None:
    """Two weight files of a megabyte each, so that a command takes its time."""
    random_numbers = np.random.default_rng(0)
    base = {f"h.{n}.w": random_numbers.normal(size=(_SIDE, _SIDE)).astype(np.float32) for n in range(2)}
    for name in ("base", "tuned"):
        shift = np.float32(name == "tuned")
        layers = {n: {f"h.{n}.w": base[f"h.{n}.w"] * (1 + shift * base[f"h.{1 - n}.w"])} for n in range(2)}
        sharded(stage / name, {f"model-{n + 1:05}-of-00002.safetensors": layers[n] for n in range(2)})
    pair = stage / "base", stage / "tuned"
    pack_to(stage / "one.stv", *pair, name="one", density=0.05)
    pack_to(stage / "two.stv", *pair, name="two", density=0.02)
    shutil.copyfile(stage / "two.stv", stage / "old.stv")
    stitch(pair[0], [stage / "two.stv"], stage / "out", options=StitchOptions(scale="none"))
    Store.init(stage / "lib").add(stage / "two.stv")


def strike_all(place: Path, *, times: int, commands: Sequence[Command] = COMMANDS, seed: int = 0) -> Iterator[Struck]:
    """Commands under every signal, so many times each."""
    (place / "stage").mkdir(parents=True)
    build(place / "stage")
    moments = random.Random(seed)
    for command in commands:
        old, new, seconds = _undisturbed(place, command)
        for kind in SIGNALS:
            delays = [seconds * (part + moments.random()) / times for part in range(times)]
            yield _strike(place, command, kind, delays, states=(old, new))


def _undisturbed(place: Path, command: Command) -> tuple[Any, Any, float]:
    _fresh(place, command)
    old = command.state(place / "room")
    process = _start(place / "room", command)
    started = time.monotonic()
    process.communicate()
    seconds = time.monotonic() - started
    if process.returncode:
        raise AssertionError(f"{command.words}: exit code {process.returncode}")
    return old, command.state(place / "room"), seconds


def _strike(
    place: Path, command: Command, kind: signal.Signals, delays: Sequence[float], *, states: tuple[Any, Any]
) -> Struck:
    room, ended, seen = place / "room", 0, []
    for delay in delays:
        _fresh(place, command)
        process = _start(room, command)
        time.sleep(delay)
        process.send_signal(kind)
        _, told = process.communicate()
        code, where = process.returncode, f"{command.words}, {kind.name} after {delay:.4f} s"
        ended += code == 0
        if code not in (0, -kind, _INTERRUPTED):
            raise AssertionError(f"{where}: exit code {code}: {told}")
        found = command.state(room)
        if found not in states:
            raise AssertionError(f"{where}: neither old nor new")
        seen.append(states.index(found))
        _go_on(room, command, where)
    name = " ".join(command.words[:2]) if command.words[0] == "store" else command.words[0]
    return Struck(name, kind.name, len(delays), ended, seen.count(0), seen.count(1))


def _go_on(room: Path, command: Command, where: str) -> None:
    """The same command again works and tidies up."""
    process = _start(room, command)
    _, told = process.communicate()
    if process.returncode:
        raise AssertionError(f"{where}: the next command fails: {told}")
    if command.target == "lib":
        Store.open(room / "lib").gc(grace=0)
    if temporaries(room):
        raise AssertionError(f"{where}: the next command leaves {temporaries(room)}")


def _start(room: Path, command: Command) -> "subprocess.Popen[str]":
    """The command in a process of its own, once it has imported what it needs."""
    process = subprocess.Popen(
        [sys.executable, "-c", _CODE, *command.words],
        cwd=room, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise AssertionError(process.communicate()[1])
    return process


def _fresh(place: Path, command: Command) -> None:
    shutil.rmtree(place / "room", ignore_errors=True)
    (place / "room").mkdir()
    for name in command.needs:
        source, target = place / "stage" / name, place / "room" / name
        shutil.copytree(source, target) if source.is_dir() else shutil.copyfile(source, target)
