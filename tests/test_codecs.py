"""The three codecs against decoders written from their pages, on streams that are hard to code."""

import struct

import numpy as np
import pytest
from helpers import FINITE_PATTERNS, patterns
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sparsetv.container import exact, gaps, sign
from sparsetv.csr import Corrections
from sparsetv.errors import FormatError, SparseTVError
from sparsetv.quantize.sign import to_signs

Array = NDArray[np.int64]


def bit_stream(data: bytes) -> list[int]:
    """Bits of bytes, least significant first."""
    return [byte >> i & 1 for byte in data for i in range(8)]


def read_gaps(high: bytes, low: bytes, nnz: list[int], shifts: list[int]) -> list[list[int]]:
    """codecs/gaps.md, read number by number."""
    highs, current = [], 0
    for byte in high:
        current += byte
        if byte != 255:
            highs.append(current)
            current = 0
    assert current == 0
    pieces, at, low_at = [], 0, 0
    for count, shift in zip(nnz, shifts, strict=True):
        size = (count * shift + 7) // 8
        piece_bits = bit_stream(low[low_at : low_at + size])
        low_at += size
        position, positions = -1, []
        for i in range(count):
            extra = sum(bit << j for j, bit in enumerate(piece_bits[i * shift : (i + 1) * shift]))
            position += (highs[at + i] << shift) + extra + 1
            positions.append(position)
        at += count
        pieces.append(positions)
    assert at == len(highs)
    assert low_at == len(low)
    return pieces


@st.composite
def piece_lists(draw: st.DrawFn) -> list[tuple[int, list[int]]]:
    """(entries, positions) per piece: empty, full, sparse over up to 2^40 entries, gaps around the escape."""
    pieces = []
    for _ in range(draw(st.integers(1, 4))):
        style = draw(st.sampled_from(["empty", "full", "gaps", "far"]))
        if style == "full":
            count = draw(st.integers(1, 20))
            pieces.append((count, list(range(count))))
            continue
        steps = {
            "empty": st.just([]),
            "gaps": st.lists(st.sampled_from([0, 1, 2, 253, 254, 255, 256, 509, 510, 511, 765, 5000]), max_size=12),
            "far": st.lists(st.integers(0, 1 << 36), max_size=6),
        }[style]
        positions, at = [], -1
        for step in draw(steps):
            at += step + 1
            positions.append(at)
        pieces.append((at + 1 + draw(st.integers(0, 300)), positions))
    return pieces


@given(pieces=piece_lists(), data=st.data())
def test_gaps_round_trip_for_every_shift(pieces: list[tuple[int, list[int]]], data: st.DataObject) -> None:
    spans = []
    for entries, positions in pieces:
        largest = max(np.diff(positions, prepend=-1).tolist(), default=1)
        least = max(0, int(largest).bit_length() - 14)  # a smaller shift is valid but makes megabytes of escapes
        shift = data.draw(
            st.sampled_from(sorted({least, least + 1, 8, 20, gaps.choose_shift(entries=entries, nnz=len(positions))}))
        )
        spans.append(gaps.Span(entries, len(positions), max(shift, least)))
    high, low = gaps.encode([np.array(positions, np.int64) for _, positions in pieces], spans)
    found = gaps.decode(high, low, spans, what="positions")
    assert [piece.tolist() for piece in found] == [positions for _, positions in pieces]
    counts, shifts = [span.nnz for span in spans], [span.shift for span in spans]
    assert read_gaps(high.tobytes(), low.tobytes(), counts, shifts) == [positions for _, positions in pieces]
    assert len(high) <= gaps.high_limit(spans)
    assert len(low) == sum(gaps.packed_size(count=span.nnz, width=span.shift) for span in spans)


def test_gaps_by_hand() -> None:
    """Positions 0, 256, 512, 1023 and 3: gaps 0, 255, 255, 510 | 3; the escape adds one byte per 255."""
    spans = [gaps.Span(1024, 4, 0), gaps.Span(8, 1, 1)]
    high, low = gaps.encode([np.array([0, 256, 512, 1023]), np.array([3])], spans)
    assert high.tolist() == [0, 255, 0, 255, 0, 255, 255, 0, 1]
    assert low.tolist() == [1]


@pytest.mark.parametrize(
    ("entries", "nnz", "shift"),
    [(0, 0, 0), (100, 0, 0), (100, 100, 0), (10_000, 100, 0), (28_200, 100, 1), (40_000, 100, 2), (1 << 40, 1, 33)],
)
def test_shifts_that_the_writer_chooses(entries: int, nnz: int, shift: int) -> None:
    assert gaps.choose_shift(entries=entries, nnz=nnz) == shift


@pytest.mark.parametrize(
    ("high", "low", "span", "message"),
    [
        ([0, 0], [], gaps.Span(9, 1, 0), "positions: holds 2 gaps, expected 1"),
        ([], [], gaps.Span(9, 1, 0), "positions: holds 0 gaps, expected 1"),
        ([0, 255], [], gaps.Span(999, 1, 0), "positions: ends inside a gap"),
        ([255], [], gaps.Span(999, 0, 0), "positions: ends inside a gap"),
        ([9], [], gaps.Span(9, 1, 0), "a gap of 9 leaves a piece of 9 entries"),
        ([5, 5], [], gaps.Span(9, 2, 0), "position 11 lies outside a piece of 9 entries"),
        ([0], [0b10], gaps.Span(9, 1, 1), "positions: padding bits are not zero"),
        ([4], [1], gaps.Span(9, 1, 1), "a gap of 9 leaves a piece of 9 entries"),
        ([0], [], gaps.Span(0, 1, 0), "a gap of 0 leaves a piece of 0 entries"),
    ],
)
def test_broken_gaps_are_refused(high: list[int], low: list[int], span: gaps.Span, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        gaps.decode(np.array(high, np.uint8), np.array(low, np.uint8), [span], what="positions")


def read_exact(bias: int, streams: list[bytes], count: int) -> list[int]:
    """codecs/exact.md, clause 1, number by number: the 32 bits of each value."""
    signs = bit_stream(streams[0])
    assert not any(signs[count:])
    return [
        signs[i] << 31 | bias + sum(streams[1 + j][i] << 8 * j for j in range(4)) for i in range(count)
    ]  # fmt: skip


@given(st.lists(FINITE_PATTERNS, max_size=20))
def test_exact_values_round_trip(numbers: list[int]) -> None:
    values = np.array(numbers, np.uint32).view(np.float32)
    bias, streams = exact.encode_values(values)
    assert bias == min((number & 0x7FFF_FFFF for number in numbers), default=0)
    assert read_exact(bias, [stream.tobytes() for stream in streams], len(numbers)) == numbers
    back = exact.decode_values(streams, bias=bias, count=len(numbers), what="values")
    assert back.view(np.uint32).tolist() == numbers


def test_exact_by_hand() -> None:
    bias, streams = exact.encode_values(np.array([1.0, -1.5, 2.0], np.float32))
    assert bias == 0x3F80_0000
    assert [stream.tolist() for stream in streams] == [[0b010], [0, 0, 0], [0, 0, 0], [0, 0x40, 0x80], [0, 0, 0]]


@pytest.mark.parametrize("bias", [0x7F80_0000, 0x7F7F_FFFF, (1 << 31) - 1])
def test_exact_refuses_what_is_not_finite(bias: int) -> None:
    planes = [np.zeros(1, np.uint8), np.ones(1, np.uint8), *(np.zeros(1, np.uint8) for _ in range(3))]
    with pytest.raises(FormatError, match="values: a value is not finite"):
        exact.decode_values(planes, bias=bias, count=1, what="values")


def test_exact_refuses_padding() -> None:
    planes = [np.array([2], np.uint8), *(np.zeros(1, np.uint8) for _ in range(4))]
    with pytest.raises(FormatError, match="values: padding bits of the signs are not zero"):
        exact.decode_values(planes, bias=5, count=1, what="values")


AMOUNTS = st.one_of(
    st.sampled_from([1, (1 << 32) - 1, 1 << 31, (1 << 31) - 1, (1 << 31) + 1, 2, 0x1_0000]),
    st.integers(1, (1 << 32) - 1),
)


@given(st.dictionaries(st.one_of(st.integers(0, 20), st.integers(0, 5000)), AMOUNTS, max_size=12), st.integers(0, 300))
def test_corrections_round_trip(pairs: dict[int, int], spare: int) -> None:
    index = np.array(sorted(pairs), np.int64)
    corrections = Corrections(index, np.array([pairs[int(i)] for i in index], np.uint32))
    stream, planes = exact.encode_corrections(corrections)
    entries = max(pairs, default=-1) + 1 + spare
    found = exact.decode_corrections(stream, planes, count=len(pairs), entries=entries, what="corrections")
    assert found.index.tolist() == sorted(pairs)
    assert found.amount.tolist() == [pairs[i] for i in sorted(pairs)]
    by_hand = planes.tobytes()
    for i, key in enumerate(sorted(pairs)):
        zigzag = sum(by_hand[j * len(pairs) + i] << 8 * j for j in range(4))
        signed = struct.unpack("<i", struct.pack("<I", pairs[key]))[0]
        assert zigzag == (2 * signed if signed >= 0 else -2 * signed - 1)


def test_broken_corrections_are_refused() -> None:
    zero = np.zeros(4, np.uint8)
    one = np.array([2, 0, 0, 0], np.uint8)
    with pytest.raises(FormatError, match="corrections: a correction of 0"):
        exact.decode_corrections(np.array([0], np.uint8), zero, count=1, entries=1, what="corrections")
    with pytest.raises(FormatError, match="a gap of 1 leaves a piece of 1 entries"):
        exact.decode_corrections(np.array([1], np.uint8), one, count=1, entries=1, what="corrections")


@given(st.lists(st.tuples(patterns().map(lambda p: p & 0x7FFF_FFFF), st.lists(st.booleans(), max_size=20)), max_size=4))
def test_signs_round_trip(pieces: list[tuple[int, list[bool]]]) -> None:
    raw = [[magnitude | negative << 31 for negative in signs] for magnitude, signs in pieces]
    values = [np.array(piece, np.uint32).view(np.float32) for piece in raw]
    magnitudes, packed = sign.encode(values)
    checked = sign.check_magnitudes(magnitudes, pieces=len(pieces), what="values")
    counts = [len(signs) for _, signs in pieces]
    found = sign.decode(packed, magnitudes=checked, counts=counts, what="values")
    assert found.view(np.uint32).tolist() == [number for piece in raw for number in piece]
    stream = bit_stream(packed.tobytes())
    assert stream[: sum(counts)] == [int(negative) for _, signs in pieces for negative in signs]
    assert not any(stream[sum(counts) :])


def test_sign_refuses_two_magnitudes() -> None:
    with pytest.raises(SparseTVError, match="needs values of one magnitude per tensor"):
        sign.encode([np.array([1.0, -2.0], np.float32)])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0], "1 magnitudes for 2 pieces"),
        ([0.1, 1.0], "a magnitude is not a float32 number"),
        ([1e300, 1.0], "a magnitude is not a float32 number"),
        ([-1.0, 1.0], "is not a finite number >= 0"),
        ([True, 1.0], "expected a number, found bool"),
        ("11", "expected a list, found str"),
    ],
)
def test_broken_magnitudes_are_refused(value: object, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        sign.check_magnitudes(value, pieces=2, what="values")


@given(st.lists(patterns(), min_size=1, max_size=20))
def test_quantizing_to_signs_takes_the_mean_magnitude(numbers: list[int]) -> None:
    from fractions import Fraction

    from sparsetv.csr import SparseTensor

    values = np.array(numbers, np.uint32).view(np.float32)
    where = np.arange(len(values), dtype=np.int64)
    corrections = Corrections(np.array([0]), np.array([3], np.uint32))
    tensor = SparseTensor("F32", (len(values),), where, values, corrections)
    empty = SparseTensor("F16", (4,), where[:0], values[:0])
    found = to_signs({"w": tensor, "none": empty})
    mean = sum(Fraction(abs(float(value))) for value in values) / len(numbers)
    magnitudes = {abs(float(value)) for value in found["w"].values}
    assert magnitudes == {float(np.float32(float(mean)))}
    assert np.signbit(found["w"].values).tolist() == [number >> 31 == 1 for number in numbers]
    assert len(found["w"].corrections.index) == 0
    assert found["none"].nnz == 0
