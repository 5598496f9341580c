"""Mask files (MASK)."""

import json
import random
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hostile import Raw, safetensors

from fuzz.room import room
from fuzz.target import Outcome, Target, refused, require, slack
from fuzz.tensors_file import change_tensors_file
from sparsetv.errors import SparseTVError
from sparsetv.maskfile import is_mask_file, read_mask, write_mask
from sparsetv.masks import Mask

SHAPES = {"a.weight": (4, 6), "b.bias": (), "b.weight": (9,), "c": (0, 3)}


@cache
def _seeds() -> tuple[bytes, ...]:
    with TemporaryDirectory() as name:
        return (_written(Path(name)), _boolean())


def _written(path: Path) -> bytes:
    kept = {"a.weight": [0, 5, 6, 23], "b.bias": [0], "b.weight": [2, 3, 8], "c": []}
    positions = {key: np.array(places, np.int64) for key, places in kept.items()}
    write_mask(path / "m", Mask(SHAPES, positions), localizer={"name": "magnitude", "density": 0.2})
    return (path / "m").read_bytes()


def _boolean() -> bytes:
    """As other programs write masks, with one tensor outside the scope that keeps nothing."""
    metadata = {
        "format": "sparsetv-mask", "version": "1.0", "localizer": "{}",
        "shapes": json.dumps({"a.weight": [4, 6]}, separators=(",", ":")),
    }  # fmt: skip
    some = np.arange(24).reshape(4, 6) % 5 == 0
    return safetensors({"a.weight": some, "z": Raw("BOOL", (2,), bytes(2))}, metadata)


def make(source: random.Random) -> bytes:
    return change_tensors_file(source, source.choice(_seeds()))


def examine(data: bytes) -> Outcome:
    """A known error, or positions that increase within the tensors, the same when they are written again."""
    path = room("mask").lay({"mask.safetensors": data}) / "mask.safetensors"
    is_mask_file(path)
    try:
        mask = read_mask(path, SHAPES)
    except SparseTVError as error:
        return refused(error)
    require(mask.shapes == SHAPES, "other shapes than were asked for")
    for name, positions in mask.positions.items():
        require(positions.dtype == np.int64, f"{name}: positions are {positions.dtype}")
        require((np.diff(positions) > 0).all(), f"{name}: positions do not increase")
        inside = not len(positions) or 0 <= positions[0] <= positions[-1] < np.prod(SHAPES[name], dtype=int)
        require(inside, f"{name}: positions lie outside")
    with TemporaryDirectory() as other:
        write_mask(Path(other) / "m", mask)
        again = read_mask(Path(other) / "m", SHAPES)
    same = all(np.array_equal(mask.positions[name], again.positions[name]) for name in SHAPES)
    require(same, "positions change when they are written again")
    return Outcome("read")


TARGET = Target("mask", make, examine, slack)
