"""What a target is to its users, and what stands in a room."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from sparsetv.jobs.store import Store
from sparsetv.leftovers import is_temporary, mark
from sparsetv.results import read_results
from sparsetv.store.layout import is_store


def content(target: Path) -> Any:
    """Every byte of a file, or of the files of a directory; None where there is nothing."""
    if target.is_dir():
        return {str(item.relative_to(target)): item.read_bytes() for item in target.rglob("*") if item.is_file()}
    return target.read_bytes() if target.exists() else None


def content_or_aside(target: Path) -> Any:
    """The same of a directory; where it is missing, of the one set aside, which the next command puts back."""
    aside = sorted(target.parent.glob(f".sparsetv-{mark(target)}*.old"))
    return content(target if target.exists() or not aside else aside[0])


def store_content(target: Path) -> Any:
    """Base, and revision and digest by name; None for no store."""
    if not is_store(target):
        return None
    store = Store.open(target)
    known = store.known_base()
    tasks = {entry.name: (entry.revision, entry.digest) for entry in store.list()}
    return None if known is None else known.digest, tasks


def store_files(target: Path) -> Any:
    """The same, and which task files there are."""
    return store_content(target), sorted(path.name for path in (target / "objects").rglob("*.stv"))


def results(target: Path) -> Any:
    """Header and rows; None where there are none."""
    if not target.exists():
        return None
    found = read_results(target)
    return found.header, found.rows


def signature(room: Path) -> str:
    """What stands in a room, whatever names temporary things were given."""
    total = hashlib.sha256()
    for place, _, files in sorted(os.walk(room)):
        kept = [name for name in files if not name.endswith("lock")]
        lines = [_told(Path(place) / name) for name in kept]
        total.update(repr((_plain(os.path.relpath(place, room)), sorted(lines))).encode())
    return total.hexdigest()


def _told(path: Path) -> tuple[str, str]:
    return _plain(path.name), hashlib.sha256(path.read_bytes()).hexdigest()


def _plain(name: str) -> str:
    """A path without what was drawn for the names in it."""
    return "/".join(
        part[:18] + Path(part).suffix if part.startswith(".sparsetv-") else part for part in name.split("/")
    )


def temporaries(room: Path) -> list[str]:
    """What is not in place, or was set aside."""
    return [str(item) for item in room.rglob("*") if is_temporary(item.name) or is_temporary(item.stem + ".tmp")]


def copy_stage(stage: Path, room: Path, needs: tuple[str, ...]) -> None:
    """A fresh room with some things of the stage."""
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir()
    for name in needs:
        if (stage / name).is_dir():
            shutil.copytree(stage / name, room / name)
        else:
            shutil.copyfile(stage / name, room / name)
