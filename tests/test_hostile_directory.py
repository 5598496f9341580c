"""Odd names and links in a base or a stitched directory, and records that name other tasks than lie there."""

import json
import os
from pathlib import Path

import pytest
from hostile import Pair, listing, make_pair, pack_to

from sparsetv.errors import CheckpointError, FormatError
from sparsetv.jobs.stitch import add, remove, stitch


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_pair(tmp_path)


@pytest.fixture
def out(tmp_path: Path, pair: Pair) -> Path:
    stitch(pair.base, [pack(tmp_path, pair, "a", density=0.1), pack(tmp_path, pair, "b", density=0.2)], tmp_path / "o")
    return tmp_path / "o"


def pack(room: Path, pair: Pair, name: str, *, density: float) -> Path:
    return pack_to(room / f"{name}.stv", pair.base, pair.tuned, name=name, density=density)


@pytest.mark.parametrize("name", [os.fsdecode(b"\xff.txt"), "a:b.json", "c:x/vocab.txt"])
def test_a_base_with_a_name_that_no_record_holds_is_refused(name: str, tmp_path: Path, pair: Pair) -> None:
    """Else the directory would be written, and neither `add` nor `remove` could open it."""
    task = pack(tmp_path, pair, "a", density=0.1)
    path = pair.base / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    before = listing(tmp_path)
    with pytest.raises(CheckpointError, match=r"is no name of a file on every system; rename or remove it"):
        stitch(pair.base, [task], tmp_path / "o")
    assert listing(tmp_path) == before


@pytest.mark.parametrize("names", [["b", "a"], ["z", "b"]])
def test_a_record_that_gives_tasks_other_names_is_refused(
    names: list[str], tmp_path: Path, pair: Pair, out: Path
) -> None:
    record = json.loads((out / "sparsetv.json").read_text())
    for member in record["members"]:
        member["name"] = names[["a", "b"].index(member["name"])]
    (out / "sparsetv.json").write_text(json.dumps(record))
    third = pack(tmp_path, pair, "c", density=0.3)
    before = listing(tmp_path)
    with pytest.raises(FormatError, match=r"\.stv: is not the task that the record names \(.*; stitch again"):
        add(out, [third])
    assert listing(tmp_path) == before


@pytest.mark.parametrize("leads_to", ["a directory", "nothing"])
def test_links_that_a_person_put_into_a_stitched_directory_stay(leads_to: str, tmp_path: Path, out: Path) -> None:
    (tmp_path / "a directory").mkdir()
    (tmp_path / "a directory" / "mine").write_text("mine")
    link = out / "runs"
    link.symlink_to(tmp_path / leads_to)
    remove(out, ["a"])
    assert link.readlink() == tmp_path / leads_to
    assert [path.name for path in (tmp_path / "a directory").iterdir()] == ["mine"]
