"""The scenes: every command that changes the disk, on the smallest stage that makes it do all it can do."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from crashing.stage import OPTIONS, PLAIN, record, save_model, save_weights
from crashing.state import content, content_or_aside, results, store_content, store_files
from sparsetv.demo.folder import ensure
from sparsetv.errors import UsageError
from sparsetv.jobs import convert as conversion
from sparsetv.jobs.analyze import overlap, where
from sparsetv.jobs.archive import archive_to, restore
from sparsetv.jobs.exchange import export_task, import_task
from sparsetv.jobs.hub import keep
from sparsetv.jobs.localize import find_mask
from sparsetv.jobs.pack import pack_to
from sparsetv.jobs.stitch import add, remove, stitch
from sparsetv.jobs.store import Store
from sparsetv.report.page import write_report
from sparsetv.wire.header import map_file

Act = Callable[[Path], object]

READERS = (
    "inspect", "verify", "tasks", "evaluate", "push", "card", "store list", "store show", "store fsck", "doctor",
)  # fmt: skip
"""Commands that write nothing but to the terminal; `doctor` does in a temporary directory."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Something that changes the disk.

    Attributes:
        name: What happens.
        command: The command that does it.
        needs: What of the stage is there.
        target: What changes.
        act: Does it.
        calls: At least how many calls may change the disk.
        again: What is done next, in whichever state things are; tidies up.
        state: What the target is to its users.
        between: Acts that lead to the states between old and new, where one is enough for one step.
        without: What the system cannot do: exchange directories, or link files.
    """

    name: str
    command: str
    needs: tuple[str, ...]
    target: str
    act: Act
    calls: int
    again: Act
    state: Callable[[Path], Any] = content
    between: tuple[Act, ...] = field(default=())
    without: str = ""


PAIR = ("base", "tuned-one")
ROOM = ("base", "one.stv", "two.stv", "local.stv", "out")
STORE = ("lib", "one.stv", "four.stv")


def _file(name: str, command: str, needs: tuple[str, ...], target: str, act: Act) -> Scene:
    return Scene(name, command, needs, target, act, 5, act)


def _stitch(name: str, needs: tuple[str, ...], target: str, without: str = "") -> Scene:
    def act(room: Path) -> object:
        return stitch(room / "base", [room / "one.stv"], room / target, options=PLAIN)

    state = content_or_aside if without == "exchange" else content
    return Scene(f"stitch {name}", "stitch", needs, target, act, 20, act, state, without=without)


def _change(name: str, act: Act, without: str = "") -> Scene:
    def again(room: Path) -> None:
        add(room / "out", [room / "local.stv"])

    state = content_or_aside if without == "exchange" else content
    return Scene(name, name.split(maxsplit=1)[0], ROOM, "out", act, 15, again, state, without=without)


def _store(name: str, needs: tuple[str, ...], calls: int, act: Act, *, between: tuple[Act, ...] = ()) -> Scene:
    target = needs[0] if needs[0] in ("lib", "empty") else "new"
    command = f"store {name.split(maxsplit=1)[0]}"
    again = partial(_use_store, target)
    return Scene(
        f"store: {name}", command, (*needs, "three.stv"), target, act, calls, again, store_content, between
    )  # fmt: skip


def _use_store(target: str, room: Path) -> None:
    """All is sound, a task comes, and what is left over goes."""
    with suppress(UsageError):  # where it is a store already
        Store.init(room / target)
    store = Store.open(room / target)
    assert store.fsck().problems == ()
    before = store.names()
    store.add(room / "three.stv", "next")
    assert store.names() == tuple(sorted([*before, "next"]))
    store.gc(grace=0)
    report = store.fsck()
    assert (report.problems, report.dangling, report.temporaries) == ((), (), ())


def _restore(room: Path) -> None:
    restore(room / "base", room / "one.archive", room / "back")


def _restore_again(room: Path) -> None:
    if not (room / "back").exists():
        _restore(room)


def _export(room: Path) -> None:
    export_task(room / "one.stv", room / "fresh", form="scipy")


def _export_again(room: Path) -> None:
    if not (room / "fresh").exists():
        _export(room)


def _lib(room: Path) -> Store:
    return Store.open(room / "lib")


def _model(room: Path) -> None:
    ensure(room / "model", {"seed": 1}, make=save_model)


def _convert(room: Path) -> None:
    """The weights come from torch, which is not loaded here; what is written is as long as a pickle's tensors."""
    with patch.object(conversion, "_convert", save_weights):
        conversion.convert(room / "pickled", room / "fresh")


def _convert_again(room: Path) -> None:
    if not (room / "fresh").exists():
        _convert(room)


SCENES = (
    _file("pack, new file", "pack", PAIR, "one.stv",
          lambda room: pack_to(room / "one.stv", *(room / name for name in PAIR), options=OPTIONS)),
    _file("pack, over an old file", "pack", (*PAIR, "old.stv"), "old.stv",
          lambda room: pack_to(room / "old.stv", *(room / name for name in PAIR), options=OPTIONS)),
    _file("pack --lossless, new file", "pack", PAIR, "new.archive",
          lambda room: archive_to(room / "new.archive", *(room / name for name in PAIR))),
    _file("pack --lossless, over an old file", "pack", (*PAIR, "old.archive"), "old.archive",
          lambda room: archive_to(room / "old.archive", *(room / name for name in PAIR))),
    _file("localize, over an old file", "localize", (*PAIR, "old.mask"), "old.mask",
          lambda room: find_mask(*(room / name for name in PAIR), output=room / "old.mask", options=OPTIONS)),
    _file("overlap --plot, over an old file", "overlap", ("one.stv", "two.stv", "old.svg"), "old.svg",
          lambda room: overlap([room / "one.stv", room / "two.stv"], plot=room / "old.svg")),
    _file("where --plot, new file", "where", ("one.stv",), "new.svg",
          lambda room: where([room / "one.stv"], plot=room / "new.svg")),
    _file("pull, over an old file", "pull", ("one.stv", "old.stv"), "old.stv",
          lambda room: keep(map_file(room / "one.stv"), room / "old.stv")),
    _file("report, over an old file", "report", ("results", "old.html"), "old.html",
          lambda room: write_report(room / "results", room / "old.html")),
    Scene("bench, new results", "bench", ("one.stv",), "made/new.jsonl",
          lambda room: record(room / "made" / "new.jsonl", 1), 7, lambda room: record(room / "made" / "new.jsonl", 1),
          results, (lambda room: record(room / "made" / "new.jsonl", 0),)),
    Scene("bench, a row more", "bench", ("results",), "results/old.jsonl",
          lambda room: record(room / "results" / "old.jsonl", 3), 2,
          lambda room: record(room / "results" / "old.jsonl", 3), results),
    Scene("demo, new model", "demo", ("one.stv",), "model", _model, 6, _model),
    Scene("demo, over another model", "demo", ("model",), "model", _model, 8, _model),
    Scene("demo, over another model, no exchange", "demo", ("model",), "model", _model, 8, _model, content_or_aside,
          without="exchange"),
    _stitch("into a new directory", ("base", "one.stv"), "fresh"),
    _stitch("over an old directory", ROOM, "out"),
    _stitch("over an old directory, no exchange", ROOM, "out", "exchange"),
    _change("add a task", lambda room: add(room / "out", [room / "local.stv"])),
    _change("add a task, no exchange", lambda room: add(room / "out", [room / "local.stv"]), "exchange"),
    _change("add a task, no links", lambda room: add(room / "out", [room / "local.stv"]), "links"),
    _change("remove a task", lambda room: remove(room / "out", ["one"])),
    _change("remove all tasks", lambda room: remove(room / "out", ["*"])),
    Scene("convert", "convert", ("pickled",), "fresh", _convert, 9, _convert_again),
    _file("export, over an old file", "export", ("one.stv", "old.deltas"), "old.deltas",
          lambda room: export_task(room / "one.stv", room / "old.deltas", form="dense")),
    Scene("export into a new directory", "export", ("one.stv",), "fresh", _export, 9, _export_again),
    _file("import, over an old file", "import", ("base", "old.deltas", "old.stv"), "old.stv",
          lambda room: import_task(room / "old.deltas", room / "old.stv", form="dense", base=room / "base")),
    Scene("restore", "restore", ("base", "one.archive"), "back", _restore, 12, _restore_again),
    _store("init", ("one.stv",), 8, lambda room: Store.init(room / "new")),
    _store("add the first", ("empty", "one.stv"), 14, lambda room: Store.open(room / "empty").add(room / "one.stv")),
    _store("add", ("lib", "local.stv"), 9, lambda room: _lib(room).add(room / "local.stv")),
    _store("add what is there under another name", ("lib", "one.stv"), 5,
           lambda room: _lib(room).add(room / "one.stv", "five")),
    _store("add --replace", ("lib", "local.stv"), 10,
           lambda room: _lib(room).add(room / "local.stv", "one", replace=True)),
    _store("remove", ("lib",), 4, lambda room: _lib(room).remove("one")),
    _store("remove all", ("lib",), 6, lambda room: _lib(room).remove("*"),
           between=(lambda room: _lib(room).remove("one"),)),
    Scene("store: gc", "store gc", ("lib", "three.stv"), "lib", lambda room: _lib(room).gc(grace=0), 2,
          partial(_use_store, "lib"), store_files),
)  # fmt: skip
