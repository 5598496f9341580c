"""Golden mask files: two writers and two readers agree; what is broken is refused, and damage is known (MASK)."""

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import safetensors
from evidence import FORMATS, GOLDEN, at_most, lines, load, needs, second_writer
from hypothesis import given
from hypothesis import strategies as st

from sparsetv.errors import FormatError, ShapeError, SparseTVError
from sparsetv.maskfile import read_mask, write_mask
from sparsetv.masks import Mask

VALID = sorted((GOLDEN / "masks").glob("*.safetensors"))
BROKEN = GOLDEN / "masks_invalid"
INVALID: list[dict[str, str]] = json.loads((BROKEN / "index.json").read_bytes())
SCOPE = {name: tuple(shape) for name, shape in json.loads((BROKEN / "scope.json").read_bytes()).items()}
READER_LINES = 30
REFUSAL_BYTES = 4 << 20
KINDS = {"FormatError": FormatError, "ShapeError": ShapeError}

each_valid_file = pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
each_invalid_file = pytest.mark.parametrize("case", INVALID, ids=lambda case: Path(case["file"]).stem)

Kept = dict[str, list[int]]


@pytest.fixture(scope="module")
def reader() -> ModuleType:
    return load("mask_reader")


def expected(path: Path) -> tuple[dict[str, tuple[int, ...]], Kept]:
    content = json.loads(path.with_suffix(".json").read_bytes())
    return {name: tuple(shape) for name, shape in content["scope"].items()}, content["kept"]


def as_lists(positions: Mapping[str, Any]) -> Kept:
    assert all(kept.dtype == np.int64 for kept in positions.values())
    return {name: kept.tolist() for name, kept in positions.items()}


def test_the_second_reader_is_short_and_independent() -> None:
    assert lines("mask_reader") <= READER_LINES
    assert needs("mask_reader") == {"numpy"}


@each_valid_file
def test_both_readers_find_what_the_json_says(path: Path, reader: ModuleType) -> None:
    scope, kept = expected(path)
    found = read_mask(path, scope)
    assert dict(found.shapes) == scope
    assert as_lists(found.positions) == as_lists(reader.read(path, scope)) == kept


@each_valid_file
def test_safetensors_opens_valid_masks(path: Path) -> None:
    with safetensors.safe_open(path, framework="np") as file:
        assert file.metadata()["format"] == "sparsetv-mask"


@each_valid_file
def test_our_writer_gives_the_bytes_of_the_second_one(path: Path, tmp_path: Path, reader: ModuleType) -> None:
    """Of masks in the form of clause 4.1; of the others both readers find in our file what the golden one keeps."""
    scope, kept = expected(path)
    localizer = json.loads(path.with_suffix(".json").read_bytes()).get("localizer")
    write_mask(tmp_path / "m", read_mask(path, scope), localizer=localizer)
    assert as_lists(read_mask(tmp_path / "m", scope).positions) == as_lists(reader.read(tmp_path / "m", scope)) == kept
    assert ((tmp_path / "m").read_bytes() == path.read_bytes()) == (localizer is not None)


@given(data=st.data())
def test_both_writers_give_the_same_bytes(fresh: Callable[[], Path], no_sync: None, data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(["a", "b.c", "é", 'z/"', "中"]), min_size=1, unique=True))
    sides = st.lists(st.integers(0, 5), max_size=3)
    scope = {name: data.draw(sides) for name in sorted(names)}
    kept = {
        name: data.draw(st.lists(st.integers(0, math.prod(shape) - 1), unique=True).map(sorted))
        for name, shape in scope.items()
        if math.prod(shape)
    }
    localizer = data.draw(
        st.dictionaries(st.text(max_size=3), st.one_of(st.none(), st.floats(allow_nan=False)), max_size=2)
    )
    mask = Mask(
        {name: tuple(shape) for name, shape in scope.items()},
        {name: np.array(kept.get(name, []), np.int64) for name in scope},
    )
    path = fresh() / "m"
    write_mask(path, mask, localizer=localizer)
    assert path.read_bytes() == second_writer("masks").as_sparsetv_writes(kept, scope, localizer)


@each_invalid_file
def test_invalid_masks_are_refused(case: dict[str, str]) -> None:
    path = BROKEN / case["file"]
    with at_most(REFUSAL_BYTES), pytest.raises(SparseTVError) as caught:
        read_mask(path, SCOPE)
    assert type(caught.value) is KINDS[case.get("error", "FormatError")]
    message = str(caught.value)
    assert str(path) in message
    assert re.search(case["match"], message.replace(str(path), "FILE")), f"{message!r}: {case['breaks']}"


def test_the_index_names_every_file_and_a_clause_that_exists() -> None:
    assert sorted(case["file"] for case in INVALID) == sorted(path.name for path in BROKEN.glob("*.safetensors"))
    clauses = re.findall(r"^(\d\.\d) ", (FORMATS / "MASK.md").read_text(), re.MULTILINE)
    assert {case["clause"] for case in INVALID} <= {f"mask {clause}" for clause in clauses}


# --- damage, which no checksum tells (clause 5)


def sane(path: Path, scope: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a mask is read, and if so obeys clauses 2.2 and 3.2; any error but a known one passes through."""
    try:
        mask = read_mask(path, scope)
    except (FormatError, ShapeError):
        return False
    for name, kept in mask.positions.items():
        places = kept.tolist()
        assert places == sorted(set(places))
        assert all(0 <= place < int(np.prod(scope[name])) for place in places)
    assert mask.nnz
    return True


@pytest.mark.parametrize("name", ["positions", "both_forms"])
def test_a_flipped_bit_is_refused_or_gives_a_valid_mask(name: str, tmp_path: Path) -> None:
    golden = GOLDEN / "masks" / f"{name}.safetensors"
    scope, _ = expected(golden)
    whole = golden.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    data, path = bytearray(whole), tmp_path / "m"
    read = []
    for bit in range(8 * len(whole)):
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        if sane(path, scope):
            read.append(bit // 8)
        data[bit // 8] ^= 1 << bit % 8
    assert min(read) > 8, "a flipped length prefix is always refused"
    assert 0 < len([byte for byte in read if byte >= header]) < 8 * (len(whole) - header) / 2


UNNOTICED: list[tuple[str, bytes, bytes]] = [
    ("a position between its neighbours", bytes([5, 0, 0, 0, 0, 0, 0, 0]), bytes([4, 0, 0, 0, 0, 0, 0, 0])),
    ("the text of localizer", b"magnitude", b"magnitudf"),
    ("a key that becomes unknown", b'"shapes"', b'"shaper"'),
    ("a greater MINOR", b'"version":"1.0"', b'"version":"1.1"'),
    ("an older version", b'"version":"1.0"', b'"version":"0.0"'),
]
NOTICED: list[tuple[bytes, bytes, str]] = [
    (bytes([5, 0, 0, 0, 0, 0, 0, 0]), bytes([0, 0, 0, 0, 0, 0, 0, 0]), "a.weight: positions do not increase"),
    (bytes([11, 0, 0, 0, 0, 0, 0, 0]), bytes([12, 0, 0, 0, 0, 0, 0, 0]), "a.weight: positions do not increase"),
    (b"sparsetv-mask", b"sparsetv-masj", "is no mask file"),
    (b'"version":"1.0"', b'"version":"3.0"', "version 3.0"),
    (b'"a.weight":{', b'"a.weighu":{', "keeps entries of a.weighu, which the scope does not cover"),
    (b"[3,4]", b"[2,4]", "in the mask, but"),
    (b'"I64"', b'"U64"', "is neither I64 positions nor a BOOL mask"),
]


@pytest.mark.parametrize(("what", "old", "new"), UNNOTICED)
def test_what_clause_5_2_says_goes_unnoticed(what: str, old: bytes, new: bytes, tmp_path: Path) -> None:
    whole = (GOLDEN / "masks" / "positions.safetensors").read_bytes()
    assert old in whole
    (tmp_path / "m").write_bytes(whole.replace(old, new, 1))
    assert sane(tmp_path / "m", SCOPE)


@pytest.mark.parametrize(("old", "new", "message"), NOTICED)
def test_what_clause_5_1_says_is_noticed(old: bytes, new: bytes, message: str, tmp_path: Path) -> None:
    whole = (GOLDEN / "masks" / "positions.safetensors").read_bytes()
    assert old in whole
    (tmp_path / "m").write_bytes(whole.replace(old, new, 1))
    with pytest.raises((FormatError, ShapeError), match=message):
        read_mask(tmp_path / "m", SCOPE)


@pytest.mark.parametrize("name", ["positions", "both_forms", "header_not_canonical"])
def test_every_other_length_is_refused(name: str, tmp_path: Path) -> None:
    golden = GOLDEN / "masks" / f"{name}.safetensors"
    scope, _ = expected(golden)
    whole = golden.read_bytes()
    for length in range(len(whole)):
        (tmp_path / "m").write_bytes(whole[:length])
        with pytest.raises(FormatError, match=re.escape(str(tmp_path / "m"))):
            read_mask(tmp_path / "m", scope)
    (tmp_path / "m").write_bytes(whole + b"\0")
    with pytest.raises(FormatError, match="trailing bytes"):
        read_mask(tmp_path / "m", scope)


def test_no_name_that_a_reader_refuses_is_written(tmp_path: Path) -> None:
    for name in ("a\u202e", "e\u0301", "n" * 513):
        with pytest.raises(FormatError, match=r"m: tensor name"):
            write_mask(tmp_path / "m", Mask({name: (1,)}, {name: np.array([0])}))
    assert not (tmp_path / "m").exists()
