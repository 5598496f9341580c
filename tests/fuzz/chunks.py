"""Chunks of archives: arbitrary bytes, and codes of chunks with changes, decoded directly (ARCHIVE 4)."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from fuzz.byte_changes import scramble
from fuzz.target import SLACK, Outcome, Target, refused, require
from sparsetv.archive.chunk import MODES, decode_chunk, encode_chunk
from sparsetv.archive.elements import kind_of
from sparsetv.arrays import Bits
from sparsetv.dtypes import SIZES
from sparsetv.errors import FormatError

_DTYPES = ("F32", "F32", "BF16", "F16", "F64", "I8", "U16", "F8_E4M3", "F8_E5M2", "BOOL", "C64")
_COUNTS: tuple[Callable[[random.Random], int], ...] = (
    lambda source: source.randrange(1, 9), lambda source: source.randrange(1, 80),
    lambda source: source.randrange(1, 600),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """A chunk's bytes and what its tensor says of it."""

    data: bytes
    base: Bits | None
    dtype: str
    count: int


def make(source: random.Random) -> Case:
    dtype, count = source.choice(_DTYPES), source.choice(_COUNTS)(source)
    bits = kind_of(dtype).bits
    base = np.frombuffer(source.randbytes(count * bits.itemsize), bits) if source.randrange(4) else None
    if source.randrange(4):
        data = _changed(source, encode_chunk(base, _tuned(source, base, bits, count), kind_of(dtype)))
    else:
        data = bytes([source.randrange(len(MODES) + 1)]) + source.randbytes(source.randrange(60))
    return Case(data, base, dtype, count)


def _tuned(source: random.Random, base: Bits | None, bits: np.dtype, count: int) -> Bits:
    if base is None:
        return np.frombuffer(source.randbytes(count * bits.itemsize), bits)
    tuned, every = base.copy(), source.choice([1, 2, 7, 40])
    tuned[::every] += bits.type(source.choice([1, 3, 200]))
    return tuned


def _changed(source: random.Random, data: bytes) -> bytes:
    for _ in range(source.choice([0, 1, 1, 2])):
        data = scramble(source, data)
    return data


def examine(case: Case) -> Outcome:
    """FormatError, or elements that are the same when they are coded again."""
    kind = kind_of(case.dtype)
    try:
        found = decode_chunk(memoryview(case.data), case.base, kind, count=case.count, what="chunk")
    except FormatError as error:
        return refused(error)
    require(found.shape == (case.count,), f"{found.shape} elements of {case.count}")
    require(found.dtype == kind.bits, f"elements are {found.dtype}")
    return Outcome("read", written=partial(_check_again, case, found))


def _check_again(case: Case, found: Bits) -> None:
    kind = kind_of(case.dtype)
    again = encode_chunk(case.base, found, kind)
    twice = decode_chunk(memoryview(again), case.base, kind, count=case.count, what="chunk")
    require(np.array_equal(found, twice), "elements change when they are coded again")


def bound(case: Case) -> int:
    """Memory by the number of elements alone (ARCHIVE 4)."""
    return SLACK + 64 * case.count * SIZES["F64"]


TARGET = Target("chunks", make, examine, bound)
