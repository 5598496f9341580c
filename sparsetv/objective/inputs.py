"""Seeded random inputs that are the same on every machine for ever.

Reference: formats/codecs/probe.md.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsetv.arrays import Values
from sparsetv.errors import ProbeError

Params = Mapping[str, int | float | str]


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids and attention mask, both shape (count, longest), int64."""

    ids: NDArray[np.int64]
    mask: NDArray[np.int64]


def stream(seed: int, name: str, count: int) -> NDArray[np.uint32]:
    """The first `count` numbers of a named stream."""
    raw = hashlib.shake_256(f"sparsetv probe {seed} {name}".encode("ascii")).digest(4 * count)
    return np.frombuffer(raw, "<u4")


def tokens(*, seed: int, count: int, params: Params) -> Tokens:
    """Token sequences (probe.md, clause 1)."""
    vocabulary, shortest, longest = (whole(params, key) for key in ("vocabulary", "shortest", "longest"))
    if not 1 <= shortest <= longest or vocabulary < 1:
        raise ProbeError(f"probe lengths {shortest} to {longest} over {vocabulary} tokens make no inputs")
    lengths = shortest + (stream(seed, "lengths", count) % np.uint32(longest - shortest + 1)).astype(np.int64)
    ids = (stream(seed, "ids", count * longest) % np.uint32(vocabulary)).astype(np.int64).reshape(count, longest)
    first, last = whole(params, "first"), whole(params, "last")
    if first >= 0:
        ids[:, 0] = first
    if last >= 0:
        ids[np.arange(count), lengths - 1] = last
    mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
    return Tokens(np.where(mask == 1, ids, whole(params, "pad")), mask)


def pixels(*, seed: int, count: int, params: Params) -> Values:
    """Images of noise, shape (count, channels, height, width), float32 (probe.md, clause 2)."""
    shape = (count, *(whole(params, key) for key in ("channels", "height", "width")))
    raw = hashlib.shake_256(f"sparsetv probe {seed} pixels".encode("ascii")).digest(int(np.prod(shape)))
    return ((np.frombuffer(raw, np.uint8).astype(np.float32) - np.float32(127.5)) / np.float32(73.9)).reshape(shape)


def projection(*, seed: int, rows: int, columns: int) -> Values:
    """Matrix of +-1/sqrt(columns), shape (rows, columns), float32 (probe.md, clause 3)."""
    signs = (stream(seed, "projection", rows * columns) & np.uint32(1)).astype(np.float32) * 2 - 1
    return (signs / np.float32(columns**0.5)).reshape(rows, columns)


def whole(params: Params, key: str) -> int:
    """A parameter that must be an integer.

    Raises:
        ProbeError: It is none.
    """
    value = params.get(key)
    if type(value) is not int:
        raise ProbeError(f"probe parameter {key!r} must be an integer, found {value!r}")
    return value
