"""What each command changes, and the command, for the tests under real trouble."""

from collections.abc import Callable
from pathlib import Path

from crashing.stage import OPTIONS, PLAIN, save_model
from crashing.state import content, store_content
from sparsetv.demo.folder import ensure
from sparsetv.jobs.archive import archive_to, restore
from sparsetv.jobs.localize import find_mask
from sparsetv.jobs.pack import pack_to as pack
from sparsetv.jobs.stitch import add, remove, stitch
from sparsetv.jobs.store import Store

Act = Callable[[Path], object]

WRITERS: dict[str, tuple[str, Act]] = {
    "pack": ("old.stv", lambda room: pack(room / "old.stv", room / "base", room / "tuned-one", options=OPTIONS)),
    "lossless": ("old.archive", lambda room: archive_to(room / "old.archive", room / "base", room / "tuned-one")),
    "localize": ("old.mask", lambda room: find_mask(room / "base", room / "tuned-one", output=room / "old.mask",
                                                    options=OPTIONS)),
    "stitch": ("out", lambda room: stitch(room / "base", [room / "one.stv"], room / "out", options=PLAIN)),
    "add": ("out", lambda room: add(room / "out", [room / "local.stv"])),
    "remove": ("out", lambda room: remove(room / "out", ["one"])),
    "restore": ("back", lambda room: restore(room / "base", room / "one.archive", room / "back")),
    "demo": ("model", lambda room: ensure(room / "model", {"seed": 1}, make=save_model)),
    "store": ("lib", lambda room: Store.open(room / "lib").add(room / "local.stv")),
}  # fmt: skip
"""Target and command by name."""


def state(path: Path) -> object:
    """What a target is to its users."""
    return store_content(path) if path.name == "lib" else content(path)
