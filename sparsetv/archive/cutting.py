"""Which elements of a tensor its base shares, and how both kinds are cut into chunks (ARCHIVE 3.5 and 4.1)."""

from collections.abc import Iterator
from math import prod

from sparsetv.archive.elements import count_of
from sparsetv.archive.limits import CHUNK_ELEMENTS
from sparsetv.wire.header import Entry


def fits(dtype: str, shape: tuple[int, ...], base_dtype: str, base_shape: tuple[int, ...]) -> bool:
    """Whether a tensor can be coded against another: same dtype, and same shape but for the rows (ARCHIVE 3.5)."""
    rows = len(shape) == len(base_shape) >= 2 and shape[1:] == base_shape[1:]
    return dtype == base_dtype and (shape == base_shape or rows)


def split(entry: Entry, base_shape: tuple[int, ...] | None) -> tuple[int, int]:
    """Elements that a tensor shares with its base, and those that are left (ARCHIVE 4.1)."""
    total = count_of(entry.dtype, entry.stop - entry.start)
    parts = 2 if entry.dtype == "C64" else 1
    shared = 0 if base_shape is None else min(total, parts * prod(base_shape))
    return shared, total - shared


def chunk_count(shared: int, alone: int) -> int:
    """How many chunks `chunks` gives."""
    return -(-shared // CHUNK_ELEMENTS) - (-alone // CHUNK_ELEMENTS)


def chunks(shared: int, alone: int) -> Iterator[tuple[int, int, bool]]:
    """First element, number of elements, and whether the base has them, of each chunk of a tensor."""
    for first in range(0, shared, CHUNK_ELEMENTS):
        yield first, min(CHUNK_ELEMENTS, shared - first), True
    for first in range(shared, shared + alone, CHUNK_ELEMENTS):
        yield first, min(CHUNK_ELEMENTS, shared + alone - first), False
