"""Value codec `exact`: lossless float32 deltas as byte planes, and ulp corrections.

Reference: formats/codecs/exact.md.
"""

import numpy as np
from numpy.typing import NDArray

from sparsetv.arrays import Bytes, Values
from sparsetv.container import gaps
from sparsetv.container.streams import from_planes, planes
from sparsetv.csr import Corrections
from sparsetv.errors import FormatError

_MAGNITUDE = np.uint32(0x7FFF_FFFF)
_INFINITY = 0x7F80_0000


def encode_signs(values: Values) -> Bytes:
    """Sign bits packed from the least significant bit; shape (ceil(n / 8),)."""
    return np.packbits(np.signbit(values), bitorder="little")


def decode_signs(packed: Bytes, *, count: int, what: str) -> NDArray[np.uint32]:
    """Sign bits in place (bit 31), uint32, shape (count,).

    Raises:
        FormatError: Padding bits are not zero.
    """
    bits = np.unpackbits(packed, bitorder="little")
    if bits[count:].any():
        raise FormatError(f"{what}: padding bits of the signs are not zero")
    return bits[:count].astype(np.uint32) << np.uint32(31)


def encode_values(values: Values) -> tuple[int, list[Bytes]]:
    """(bias, [signs, plane0 … plane3]) of a block's values, shape (n,) each plane."""
    magnitudes = values.view(np.uint32) & _MAGNITUDE
    bias = int(magnitudes.min()) if len(magnitudes) else 0
    planes = (magnitudes - np.uint32(bias)).astype("<u4").view(np.uint8).reshape(-1, 4)
    return bias, [encode_signs(values), *(np.ascontiguousarray(planes[:, j]) for j in range(4))]


def decode_values(streams: list[Bytes], *, bias: int, count: int, what: str) -> Values:
    """Inverse of `encode_values`, float32, shape (count,).

    Raises:
        FormatError: A value is NaN or infinite.
    """
    signs, *planes = streams
    offsets = np.ascontiguousarray(np.stack(planes, axis=1)).view("<u4").reshape(-1)
    magnitudes = offsets.astype(np.uint64) + np.uint64(bias)
    if magnitudes.size and int(magnitudes.max()) >= _INFINITY:
        raise FormatError(f"{what}: a value is not finite")
    return (magnitudes.astype(np.uint32) | decode_signs(signs, count=count, what=what)).view(np.float32)


def encode_corrections(corrections: Corrections) -> tuple[Bytes, Bytes]:
    """(gap stream, byte planes) of a block's corrections."""
    amount = corrections.amount.view(np.int32)
    zigzag = ((amount << 1) ^ (amount >> 31)).view(np.uint32)
    return gaps.encode_high(np.diff(corrections.index, prepend=-1) - 1), planes(zigzag, 4)


def decode_corrections(gap_stream: Bytes, amounts: Bytes, *, count: int, entries: int, what: str) -> Corrections:
    """Inverse of `encode_corrections`.

    Args:
        gap_stream: Gaps between corrected entries.
        amounts: Byte planes of the amounts, 4 * count bytes.
        count: Number of corrections.
        entries: Kept entries of the block.
        what: Name of the stream, for the message.

    Raises:
        FormatError: An index lies outside the block, or an amount is 0.
    """
    span = gaps.Span(entries=entries, nnz=count, shift=0)
    index = gaps.decode(gap_stream, np.zeros(0, np.uint8), [span], what=what)[0]
    zigzag = from_planes(amounts, 4)
    amount = (zigzag >> np.uint32(1)) ^ (-(zigzag & np.uint32(1)).astype(np.int32)).view(np.uint32)
    if not amount.all():
        raise FormatError(f"{what}: a correction of 0")
    return Corrections(index, amount)
