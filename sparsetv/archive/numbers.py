"""Coding unsigned numbers of which most are small: a byte each, low bits apart, the rest escaped (ARCHIVE 6)."""

import numpy as np

from sparsetv.archive.estimate import UNIT, bits_of, sample
from sparsetv.archive.streams import In, Out
from sparsetv.arrays import Bits, Bytes
from sparsetv.errors import FormatError

ESCAPE = 255
_FEW_ESCAPED = 64


def encode_numbers(out: Out, numbers: Bits) -> None:
    """Append the code of some numbers; nothing where there are none."""
    if not len(numbers):
        return
    shift = choose_shift(numbers)[0]
    high = numbers >> shift
    out.number(shift, size=1)
    escaped = np.flatnonzero(high >= ESCAPE) if shift < 8 * numbers.itemsize - 8 else np.zeros(0, np.int64)
    head = high.astype(np.uint8)
    head[escaped] = ESCAPE
    out.stream(head)
    if shift % 8:
        out.stream(_pack_nibbles((numbers >> (shift - 4)).astype(np.uint8) & np.uint8(15)))
    low = np.ascontiguousarray(numbers).view(np.uint8).reshape(len(numbers), numbers.itemsize)
    for column in range(shift // 8):
        out.stream(low[:, column])
    out.planes(high[escaped] - numbers.dtype.type(ESCAPE))


def decode_numbers(source: In, count: int, bits: np.dtype) -> Bits:
    """Inverse of `encode_numbers`; shape (count,).

    Raises:
        FormatError: A shift that no writer uses, or an escaped number out of range.
    """
    if not count:
        return np.zeros(0, bits)
    shift = source.number(size=1)
    widest = 8 * bits.itemsize - 8
    if shift > widest or shift % 4:
        raise FormatError(f"{source.what}: a shift of {shift} bits; allowed are multiples of 4 up to {widest}")
    head = source.stream(count)
    numbers: Bits = head.astype(bits)
    nibbles = source.stream((count + 1) // 2) if shift % 8 else None
    low = [source.stream(count) for _ in range(shift // 8)]
    if shift < widest:
        escaped = np.flatnonzero(head == ESCAPE)
        rest = source.planes(len(escaped), bits)
        if len(rest) and int(rest.max()) > (1 << (8 * bits.itemsize - shift)) - 1 - ESCAPE:
            raise FormatError(f"{source.what}: an escaped number leaves {8 * bits.itemsize} bits")
        numbers[escaped] += rest
    if shift:
        numbers <<= bits.type(shift)
    if nibbles is not None:
        numbers |= _unpack_nibbles(nibbles, count, what=source.what).astype(bits) << bits.type(shift - 4)
    for column, plane in enumerate(low):
        numbers |= plane if not column else plane.astype(bits) << bits.type(8 * column)
    return numbers


def choose_shift(numbers: Bits) -> tuple[int, int]:
    """Low bits to split off, and the units (`estimate.UNIT`) that a sample of the numbers then takes.

    Two multiples of 4 are looked at, the least that leaves few numbers to escape and the one below it.
    """
    some = sample(numbers)
    place = len(some) - 1 - len(some) // _FEW_ESCAPED
    limit = int(np.partition(some, place)[place])
    greater = min(8 * some.itemsize - 8, max(0, -(-(limit.bit_length() - 8) // 4) * 4))
    return min(((shift, _cost(some, shift)) for shift in {max(0, greater - 4), greater}), key=lambda found: found[::-1])


def _cost(some: Bits, shift: int) -> int:
    """Units that numbers take at a shift: the head's entropy, the low bits as they are, the escaped in full."""
    head = np.minimum(some >> shift, ESCAPE).astype(np.uint8)
    width = 8 * some.itemsize
    escaped = int(np.count_nonzero(head == ESCAPE)) if shift < width - 8 else 0
    return bits_of(head) + UNIT * (shift * len(some) + width * escaped)


def _pack_nibbles(nibbles: Bytes) -> Bytes:
    """Two to a byte, the first in the low half; an odd last one alone."""
    packed = nibbles[::2].copy()
    packed[: len(nibbles) // 2] |= nibbles[1::2] << 4
    return packed


def _unpack_nibbles(packed: Bytes, count: int, *, what: str) -> Bytes:
    if count % 2 and packed[-1] >> 4:
        raise FormatError(f"{what}: padding bits are not zero")
    nibbles = np.empty(2 * len(packed), np.uint8)
    nibbles[::2] = packed & 15
    nibbles[1::2] = packed >> 4
    return nibbles[:count]
