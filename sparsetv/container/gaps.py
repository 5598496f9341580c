"""Position codec `gaps`: gaps between kept entries as bytes with escape, low bits apart.

Reference: formats/codecs/gaps.md.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsetv.arrays import Bytes, Positions
from sparsetv.errors import FormatError

ESCAPE = 255
LARGEST_SHIFT = 62
"""gaps.md: most low bits that are split off."""

_ROUND = 100  # a mean gap of 100 leaves room in a byte for gaps 2.5 times as long


@dataclass(frozen=True, slots=True)
class Span:
    """What a decoder knows of a piece: its entries, kept entries and shift."""

    entries: int
    nnz: int
    shift: int


def choose_shift(*, entries: int, nnz: int) -> int:
    """Low bits to split off so that most gaps fit one byte (gaps.md, clause 5)."""
    return max(0, round(math.log2(entries / nnz / _ROUND))) if nnz else 0


def encode_high(high: NDArray[np.int64]) -> Bytes:
    """Each number as `n // 255` escape bytes and one byte `n % 255`; shape (sum(n // 255 + 1),), uint8."""
    runs, rest = np.divmod(high, ESCAPE)
    if not runs.any():
        return rest.astype(np.uint8)
    coded = np.full(int(runs.sum()) + len(high), ESCAPE, np.uint8)
    coded[np.cumsum(runs + 1) - 1] = rest
    return coded


def decode_high(coded: Bytes, *, count: int, what: str) -> NDArray[np.int64]:
    """Inverse of `encode_high`; shape (count,), int64.

    Raises:
        FormatError: The bytes do not hold `count` numbers.
    """
    ends = np.flatnonzero(coded != ESCAPE)
    if len(ends) != count:
        raise FormatError(f"{what}: holds {len(ends)} gaps, expected {count}")
    if count == 0 and not len(coded):
        return np.zeros(0, np.int64)
    if count == 0 or ends[-1] != len(coded) - 1:
        raise FormatError(f"{what}: ends inside a gap")
    if len(ends) == len(coded):
        return coded.astype(np.int64)
    totals = np.cumsum(coded, dtype=np.int64)[ends]
    return np.diff(totals, prepend=0)


def pack_bits(numbers: NDArray[np.int64], *, width: int) -> Bytes:
    """Numbers below 2**width, least significant bit first, without gaps; padded with zero bits."""
    bits = (numbers[:, None] >> np.arange(width)) & 1
    return np.packbits(bits.astype(np.uint8).reshape(-1), bitorder="little")


def unpack_bits(packed: Bytes, *, count: int, width: int, what: str) -> NDArray[np.int64]:
    """Inverse of `pack_bits`.

    Raises:
        FormatError: Padding bits are not zero.
    """
    bits = np.unpackbits(packed, bitorder="little")
    if bits[count * width :].any():
        raise FormatError(f"{what}: padding bits are not zero")
    matrix = bits[: count * width].reshape(count, width).astype(np.int64)
    numbers: NDArray[np.int64] = (matrix << np.arange(width)).sum(axis=1)
    return numbers


def packed_size(*, count: int, width: int) -> int:
    """Bytes that `count` numbers of `width` bits take."""
    return (count * width + 7) // 8


def high_limit(spans: list[Span]) -> int:
    """Most bytes that the `high` stream of these pieces can have (gaps.md, clause 4)."""
    return sum(span.nnz + (span.entries >> span.shift) // ESCAPE for span in spans)


def encode(pieces: list[Positions], spans: list[Span]) -> tuple[Bytes, Bytes]:
    """Streams `high` and `low` of a block.

    Args:
        pieces: Positions per piece, counted from the piece's first entry.
        spans: Entries, kept entries and shift per piece.
    """
    gaps = [np.diff(piece, prepend=-1) - 1 for piece in pieces]
    high = [encode_high(gap >> span.shift) for gap, span in zip(gaps, spans, strict=True)]
    low = [
        pack_bits(gap & ((1 << span.shift) - 1), width=span.shift)
        for gap, span in zip(gaps, spans, strict=True)
        if span.shift
    ]
    return _join(high), _join(low)


def decode(high: Bytes, low: Bytes, spans: list[Span], *, what: str) -> list[Positions]:
    """Positions per piece, counted from the piece's first entry.

    Raises:
        FormatError: The streams do not describe increasing positions inside the pieces.
    """
    coded = decode_high(high, count=sum(span.nnz for span in spans), what=what)
    pieces, start, offset = [], 0, 0
    for span in spans:
        highs = coded[start : start + span.nnz]
        if highs.size and int(highs.max()) > span.entries >> span.shift:
            raise FormatError(f"{what}: a gap leaves a piece of {span.entries} entries")
        gaps = highs << span.shift
        start += span.nnz
        if span.shift:
            size = packed_size(count=span.nnz, width=span.shift)
            gaps = gaps + unpack_bits(low[offset : offset + size], count=span.nnz, width=span.shift, what=what)
            offset += size
        pieces.append(_positions(gaps, span, what=what))
    return pieces


def _positions(gaps: NDArray[np.int64], span: Span, *, what: str) -> Positions:
    if gaps.size and int(gaps.max()) >= span.entries:
        raise FormatError(f"{what}: a gap of {int(gaps.max())} leaves a piece of {span.entries} entries")
    positions = np.cumsum(gaps + 1) - 1
    if positions.size and (int(positions[-1]) >= span.entries or int(positions.min()) < 0):
        raise FormatError(f"{what}: position {int(positions[-1])} lies outside a piece of {span.entries} entries")
    return positions


def _join(streams: list[Bytes]) -> Bytes:
    return np.concatenate(streams) if streams else np.zeros(0, np.uint8)
