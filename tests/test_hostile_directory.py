"""Records of stitched directories that name other tasks than lie there."""

import json
from pathlib import Path

import pytest
from hostile import Pair, listing, make_pair, pack_to

from sparsetv.errors import FormatError
from sparsetv.jobs.stitch import add, stitch


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_pair(tmp_path)


@pytest.fixture
def out(tmp_path: Path, pair: Pair) -> Path:
    stitch(pair.base, [pack(tmp_path, pair, "a", density=0.1), pack(tmp_path, pair, "b", density=0.2)], tmp_path / "o")
    return tmp_path / "o"


def pack(room: Path, pair: Pair, name: str, *, density: float) -> Path:
    return pack_to(room / f"{name}.stv", pair.base, pair.tuned, name=name, density=density)


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
