"""Element types of a checkpoint as bit patterns: sizes, widening to float32, one rounding back.

Everything works on unsigned integers of the element's width, so that no library can change a NaN payload or a
-0.0 on the way, and bf16, which numpy lacks, is no special case for callers.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsetv.arrays import Bits, Values

SIZES: dict[str, int] = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
"""Bytes per element of each safetensors dtype that a checkpoint may hold (sub-byte types are refused)."""

WEIGHT_DTYPES = ("BF16", "F16", "F32")
"""Dtypes whose entries a task may keep."""

TORCH_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""What torch calls them."""

_SIGNED: dict[int, np.dtype[Any]] = {2: np.dtype("<i2"), 4: np.dtype("<i4")}
_UNSIGNED: dict[int, np.dtype[Any]] = {1: np.dtype("u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4"), 8: np.dtype("<u8")}


def bits_dtype(dtype: str) -> np.dtype[Any]:
    """Unsigned little-endian numpy dtype as wide as one element of `dtype`."""
    return _UNSIGNED[SIZES[dtype]]


def to_float32(bits: Bits, dtype: str) -> Values:
    """Widen bit patterns of a weight dtype to float32, exactly.

    Returns a view where `dtype` is F32 and a new array otherwise; shape as `bits`.
    """
    if dtype == "F32":
        return bits.view(np.float32)
    if dtype == "BF16":
        wide = bits.astype(np.uint32)
        np.left_shift(wide, 16, out=wide)
        return wide.view(np.float32)
    return bits.view(np.float16).astype(np.float32)


def from_float32(values: Values, dtype: str) -> Bits:
    """Round float32 once to a weight dtype, to nearest, ties to even; returns bit patterns.

    Overflow gives infinity and NaN stays NaN, as IEEE 754 conversion does.
    """
    if dtype == "F32":
        return values.view(np.uint32)
    if dtype == "F16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).view(np.uint16)
    wide = values.view(np.uint32)
    rounded = ((wide + (np.uint32(0x7FFF) + ((wide >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)).astype(
        np.uint16
    )
    nan = np.isnan(values)
    if nan.any():
        rounded[nan] = (wide[nan] >> np.uint32(16)).astype(np.uint16) | np.uint16(0x40)
    return rounded


def cast(bits: Bits, source: str, target: str) -> Bits:
    """Bit patterns of `source` as bit patterns of `target`, rounded once."""
    return bits if source == target else from_float32(to_float32(bits, source), target)


def ordinals(bits: Bits) -> NDArray[np.int32]:
    """Signed rank of each bit pattern: neighbouring floats differ by one, -0.0 has -1 and +0.0 has 0.

    Reference: formats/codecs/exact.md, clause 3.
    """
    return _fold(bits.view(_SIGNED[bits.itemsize])).astype(np.int32)


def from_ordinals(ranks: NDArray[np.int32], dtype: str) -> Bits:
    """Inverse of `ordinals`; ranks beyond the dtype's range wrap."""
    return _fold(ranks.astype(_SIGNED[SIZES[dtype]])).view(bits_dtype(dtype))


def _fold(signed: NDArray[Any]) -> NDArray[Any]:
    """Reverse the order of negative numbers: sign-magnitude to two's complement and back; keeps the dtype."""
    largest = signed.dtype.type(np.iinfo(signed.dtype).max)
    return np.where(signed < 0, signed ^ largest, signed)


def power_unit(number: float, *, bits: int) -> float:
    """The power of two of which a number is fewer than 2^bits, at least float32's smallest number."""
    return math.ldexp(1.0, max(math.frexp(number)[1] - bits, -149))


def on_grid(numbers: NDArray[np.floating[Any]], *, bits: int = 15) -> NDArray[np.float32]:
    """Numbers >= 0 as multiples of a power of two, the largest of them below 2^bits such units.

    Args:
        numbers: Shape (n,), n > 0, finite, float32 or float64.
        bits: At most 16, so that a file can hold them as whole numbers of units (formats/codecs/levels.md).
    """
    unit = power_unit(float(numbers.max()), bits=bits)
    return (np.rint(numbers.astype(np.float64) / unit) * unit).astype(np.float32)
