"""Value codec `levels`: a table of few magnitudes per piece, an index and a sign per entry.

Reference: formats/codecs/levels.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsetv.arrays import Bytes, Values
from sparsetv.container.exact import decode_signs, encode_signs
from sparsetv.container.streams import Frames, from_planes, planes
from sparsetv.errors import FormatError

MOST = 256
"""Most magnitudes of a piece."""

WIDTHS = (1, 2, 4, 8)
LARGEST_MULTIPLE = 0xFFFF
"""levels.md, clause 1: largest magnitude in units."""

_MANTISSA = 24


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Magnitudes of a piece: `unit * multiples`, float32, rising; and the index of each entry."""

    unit: np.float32
    multiples: NDArray[np.int64]
    index: NDArray[np.int64]


def table_of(values: Values) -> Table | None:
    """The table of a piece's values; None where they have too many magnitudes, or none that share a unit."""
    magnitudes = np.abs(values)
    if len(values) > 8 * MOST and len(np.unique(magnitudes[: 8 * MOST])) > MOST:
        return None
    found, index = np.unique(magnitudes, return_inverse=True)
    if len(found) > MOST:
        return None
    shared = _unit(found)
    return None if shared is None else Table(*shared, index.astype(np.int64))


def _unit(magnitudes: Values) -> tuple[np.float32, NDArray[np.int64]] | None:
    """Greatest common divisor of rising magnitudes, and what multiples of it they are."""
    used = magnitudes[magnitudes > 0]
    zeros = np.zeros(len(magnitudes) - len(used), np.int64)
    if not len(used):
        return np.float32(1), zeros
    mantissa, exponent = np.frexp(used.astype(np.float64))
    whole = (mantissa * (1 << _MANTISSA)).astype(np.int64)
    twos = (whole & -whole).astype(np.float64)
    trailing = np.frexp(twos)[1].astype(np.int64) - 1
    whole, powers = whole >> trailing, exponent.astype(np.int64) - _MANTISSA + trailing
    shift = powers - powers.min()
    if int(shift.max()) > 16:
        return None
    whole <<= shift
    divisor = int(np.gcd.reduce(whole))
    multiples = whole // divisor
    if int(multiples.max()) > LARGEST_MULTIPLE:
        return None
    return np.float32(np.ldexp(float(divisor), int(powers.min()))), np.concatenate([zeros, multiples])


def width_of(count: int) -> int:
    """Bits of an index into `count` magnitudes: 0, 1, 2, 4 or 8."""
    return next(width for width in (0, *WIDTHS) if 1 << width >= count)


def encode(pieces: Sequence[Values], tables: Sequence[Table]) -> tuple[list[int], list[Bytes]]:
    """(magnitudes per piece, the seven frames) of a block."""
    counts = [len(table.multiples) for table in tables]
    used = [table for table in tables if len(table.multiples)]
    units = np.array([table.unit for table in used], np.float32).view(np.uint32)
    steps = np.concatenate([np.zeros(0, np.int64), *(np.diff(t.multiples, prepend=0) for t in used)])
    frames = [encode_signs(np.concatenate([np.zeros(0, np.float32), *pieces])), planes(units, 4), planes(steps, 2)]
    for width in WIDTHS:
        members = [table.index for table in used if width_of(len(table.multiples)) == width]
        frames.append(_pack(np.concatenate([np.zeros(0, np.int64), *members]).astype(np.uint8), width))
    return counts, frames


def decode(counts: list[int], nnz: list[int], frames: Frames, *, what: str) -> Values:
    """Values of a block, float32, shape (sum(nnz),).

    Args:
        counts: Magnitudes per piece.
        nnz: Kept entries per piece.
        frames: The frames, not opened yet.
        what: Name of the stream, for messages.

    Raises:
        FormatError: A table or an index is not as levels.md says.
    """
    signs = decode_signs(frames.take((sum(nnz) + 7) // 8), count=sum(nnz), what=what)
    magnitudes = _magnitudes(counts, frames, what=what)
    index = {}
    for width in WIDTHS:
        entries = sum(n for n, count in zip(nnz, counts, strict=True) if width_of(count) == width)
        index[width] = _unpack(frames.take((entries * width + 7) // 8), entries, width, what=what)
    read = dict.fromkeys(WIDTHS, 0)
    parts = [np.zeros(0, np.float32)]
    for n, table in zip(nnz, magnitudes, strict=True):
        width = width_of(len(table))
        if width == 0:
            parts.append(np.repeat(table, n))
            continue
        own = index[width][read[width] : read[width] + n]
        read[width] += n
        if n and int(own.max()) >= len(table):
            raise FormatError(f"{what}: index {int(own.max())} into {len(table)} magnitudes")
        parts.append(table[own])
    return (np.concatenate(parts).view(np.uint32) | signs).view(np.float32)


def _magnitudes(counts: list[int], frames: Frames, *, what: str) -> list[Values]:
    units = from_planes(frames.take(4 * sum(count > 0 for count in counts)), 4).view(np.float32)
    steps = from_planes(frames.take(2 * sum(counts)), 2).astype(np.int64)
    if not (np.isfinite(units) & (units > 0)).all():
        raise FormatError(f"{what}: a unit is not a positive number")
    tables, at, number = [], 0, 0
    for count in counts:
        if not count:
            tables.append(np.zeros(0, np.float32))
            continue
        own = steps[at : at + count]
        multiples = np.cumsum(own)
        if int(multiples[-1]) > LARGEST_MULTIPLE or not own[1:].all():
            raise FormatError(f"{what}: the magnitudes of a piece do not rise within {LARGEST_MULTIPLE} units")
        products = multiples * np.float64(units[number])
        with np.errstate(over="ignore"):
            table = products.astype(np.float32)
        if (table.astype(np.float64) != products).any() or not np.isfinite(table).all():
            raise FormatError(f"{what}: a magnitude is not a finite float32 number")
        tables.append(table)
        at, number = at + count, number + 1
    return tables


def _pack(index: Bytes, width: int) -> Bytes:
    per = 8 // width
    padded = np.concatenate([index, np.zeros(-len(index) % per, np.uint8)]).reshape(-1, per)
    packed = np.zeros(len(padded), np.uint8)
    for place in range(per):
        packed |= padded[:, place] << np.uint8(width * place)
    return packed


def _unpack(packed: Bytes, count: int, width: int, *, what: str) -> Bytes:
    parts = [(packed >> np.uint8(width * place)) & np.uint8((1 << width) - 1) for place in range(8 // width)]
    index = np.stack(parts, axis=1).reshape(-1)
    if index[count:].any():
        raise FormatError(f"{what}: padding bits of the indices are not zero")
    return index[:count]
