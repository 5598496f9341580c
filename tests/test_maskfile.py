"""Mask files: what is written is read, what is broken is refused, masks of others are taken (formats/MASK.md)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sparsetv.errors import FormatError, NotFoundError, ShapeError
from sparsetv.maskfile import read_mask, write_mask
from sparsetv.masks import Mask

SHAPES = {"a.weight": (3, 4), "b.bias": (5,), "c": ()}
MARK = {"format": "sparsetv-mask", "version": "1.0"}


@given(data=st.data())
def test_read_gives_back_what_was_written(fresh: Callable[[], Path], data: st.DataObject) -> None:
    path = fresh()
    kept = {}
    for name, shape in SHAPES.items():
        size = int(np.prod(shape))
        kept[name] = np.array(sorted(data.draw(st.sets(st.integers(0, size - 1)))), np.int64)
    if not any(map(len, kept.values())):
        kept["c"] = np.array([0])
    write_mask(path / "m", Mask(SHAPES, kept), localizer={"localizer": "tall"})
    write_mask(path / "again", Mask(SHAPES, kept), localizer={"localizer": "tall"})
    assert (path / "m").read_bytes() == (path / "again").read_bytes()
    found = read_mask(path / "m", SHAPES)
    assert dict(found.shapes) == SHAPES
    assert {name: list(positions) for name, positions in found.positions.items()} == {
        name: list(positions) for name, positions in kept.items()
    }
    library = load_file(path / "m")
    assert {name: tensor.tolist() for name, tensor in library.items()} == {
        name: list(positions) for name, positions in kept.items() if len(positions)
    }


def test_boolean_masks_of_others_are_taken(tmp_path: Path) -> None:
    mask = torch.zeros(3, 4, dtype=torch.bool)
    mask[1, 2] = mask[2, 3] = True
    save_file({"a.weight": mask}, tmp_path / "m", metadata=MARK)
    assert read_mask(tmp_path / "m", SHAPES).positions["a.weight"].tolist() == [6, 11]


BROKEN: list[tuple[dict[str, torch.Tensor], dict[str, str], type[Exception], str]] = [
    ({"a.weight": torch.tensor([1])}, {}, FormatError, r"is no mask file \(its metadata lack format=sparsetv-mask\)"),
    (
        {"a.weight": torch.tensor([1])},
        {**MARK, "version": "2.0"},
        FormatError,
        r"version 2.0, this sparsetv reads up to 1.x; update",
    ),
    ({"a.weight": torch.tensor([1])}, {**MARK, "version": "x"}, FormatError, "version 'x' is not MAJOR.MINOR"),
    ({"z": torch.tensor([1])}, MARK, FormatError, "keeps entries of z, which the scope does not cover"),
    ({"a.weight": torch.tensor([12])}, MARK, FormatError, "a.weight: positions do not increase within 0 to 11"),
    ({"a.weight": torch.tensor([-1])}, MARK, FormatError, "positions do not increase within 0 to 11"),
    ({"a.weight": torch.tensor([2, 2])}, MARK, FormatError, "positions do not increase within 0 to 11"),
    ({"a.weight": torch.tensor([2, 1])}, MARK, FormatError, "positions do not increase within 0 to 11"),
    ({"a.weight": torch.tensor([1.0])}, MARK, FormatError, r"F32 \(1,\) is neither I64 positions nor a BOOL mask"),
    ({"a.weight": torch.tensor([[1]])}, MARK, FormatError, r"I64 \(1, 1\) is neither I64 positions nor a BOOL mask"),
    (
        {"a.weight": torch.ones(4, 3, dtype=torch.bool)},
        MARK,
        ShapeError,
        r"shape \(4, 3\) in the mask, but \(3, 4\)",
    ),
    (
        {"c": torch.tensor([0])},
        {**MARK, "shapes": '{"c":[1]}'},
        ShapeError,
        r"c has shape \(1,\) in the mask, but",
    ),
    ({"c": torch.tensor([0])}, {**MARK, "shapes": "[]"}, FormatError, "shapes is no object"),
    ({"c": torch.tensor([0])}, {**MARK, "shapes": "{"}, FormatError, "shapes"),
    ({"c": torch.zeros(0, dtype=torch.int64)}, MARK, FormatError, "keeps no entry of the scope"),
]


@pytest.mark.parametrize(("tensors", "metadata", "error", "message"), BROKEN)
def test_broken_masks_are_refused(
    tensors: dict[str, torch.Tensor], metadata: dict[str, str], error: type[Exception], message: str, tmp_path: Path
) -> None:
    save_file(tensors, tmp_path / "m", metadata=metadata)
    with pytest.raises(error, match=message):
        read_mask(tmp_path / "m", SHAPES)


def test_a_boolean_that_is_none(tmp_path: Path) -> None:
    save_file({"b.bias": torch.ones(5, dtype=torch.bool)}, tmp_path / "m", metadata=MARK)
    data = (tmp_path / "m").read_bytes()
    (tmp_path / "m").write_bytes(data[:-1] + b"\x02")
    with pytest.raises(FormatError, match=r"b\.bias: a boolean that is neither 0 nor 1"):
        read_mask(tmp_path / "m", SHAPES)


@pytest.mark.parametrize("cut", [0, 4, 30, -1])
def test_cut_off_files(cut: int, tmp_path: Path) -> None:
    write_mask(tmp_path / "m", Mask({"c": ()}, {"c": np.array([0])}))
    (tmp_path / "m").write_bytes((tmp_path / "m").read_bytes()[:cut])
    with pytest.raises(FormatError, match=str(tmp_path / "m")):
        read_mask(tmp_path / "m", SHAPES)


def test_a_mask_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        read_mask(tmp_path / "m", SHAPES)


def test_the_localizer_is_told(tmp_path: Path) -> None:
    told: dict[str, Any] = {"localizer": "learned", "notes": {"loss": 0.5}}
    write_mask(tmp_path / "m", Mask({"c": ()}, {"c": np.array([0])}), localizer=told)
    size = int.from_bytes((tmp_path / "m").read_bytes()[:8], "little")
    header = json.loads((tmp_path / "m").read_bytes()[8 : 8 + size])
    assert json.loads(header["__metadata__"]["localizer"]) == told
    assert json.loads(header["__metadata__"]["shapes"]) == {"c": []}
