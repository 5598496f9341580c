"""Elements of any dtype as integers: ranks, signed differences, classes of equal precision (ARCHIVE 5).

Integers alone: no float arithmetic touches a value, so every bit pattern comes back on every machine.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsetv.archive.estimate import sample
from sparsetv.arrays import Bits, Positions
from sparsetv.dtypes import SIZES, bits_dtype

CLASSES = 8
"""Most classes of elements of one chunk (ARCHIVE 5.4)."""

NO_CLASSES = 0xFFFF
"""What stands for the top exponent where all elements are one class."""

_EXPONENTS: dict[str, tuple[int, int]] = {
    "F64": (52, 0x7FF), "F32": (23, 0xFF), "BF16": (7, 0xFF), "F16": (10, 0x1F), "F8_E4M3": (3, 0xF),
    "F8_E5M2": (2, 0x1F),
}  # fmt: skip
_SIGNED: dict[int, np.dtype[Any]] = {1: np.dtype("i1"), 2: np.dtype("<i2"), 4: np.dtype("<i4"), 8: np.dtype("<i8")}


@dataclass(frozen=True, slots=True)
class Kind:
    """How elements of a dtype are taken apart.

    Attributes:
        bits: Unsigned dtype of one element.
        exponent: (shift, mask) of a float's exponent; None for integers and booleans.
    """

    bits: np.dtype[Any]
    exponent: tuple[int, int] | None

    @property
    def width(self) -> int:
        """Bytes per element."""
        return self.bits.itemsize


def kind_of(dtype: str) -> Kind:
    """Kind of a safetensors dtype; a complex number is two float32 elements."""
    real = "F32" if dtype == "C64" else dtype
    return Kind(bits_dtype(real), _EXPONENTS.get(real))


def count_of(dtype: str, size: int) -> int:
    """Elements in `size` bytes of a dtype, a complex number counted as two."""
    return size // (4 if dtype == "C64" else SIZES[dtype])


def ranks(bits: Bits, kind: Kind) -> NDArray[Any]:
    """Signed integers in the order of the numbers: neighbouring floats differ by one (ARCHIVE 5.2); shape as `bits`."""
    signed: NDArray[Any] = bits.view(_SIGNED[kind.width])
    if kind.exponent is None:
        return signed
    flips = signed >> (8 * kind.width - 1)
    flips &= signed.dtype.type(np.iinfo(signed.dtype).max)
    flips ^= signed
    return flips


def unrank(numbers: NDArray[Any], kind: Kind) -> Bits:
    """Inverse of `ranks`."""
    return ranks(numbers.view(kind.bits), kind).view(kind.bits)


def differences(base: Bits, tuned: Bits, kind: Kind) -> Bits:
    """Tuned less base in ranks, wrapped, zigzag: 0, -1, 1, -2 … become 0, 1, 2, 3 … (ARCHIVE 5.3)."""
    signed: NDArray[Any] = ranks(tuned, kind) - ranks(base, kind)
    sign = signed >> (8 * kind.width - 1)
    signed <<= 1
    signed ^= sign
    return signed.view(kind.bits)


def apply(base: Bits, zigzag: Bits, kind: Kind) -> Bits:
    """Inverse of `differences`: the tuned bits."""
    signed = (zigzag >> 1).view(_SIGNED[kind.width])
    signed ^= -(zigzag & 1).view(_SIGNED[kind.width])
    signed += ranks(base, kind)
    return unrank(signed, kind)


def top_exponent(base: Bits, kind: Kind) -> int:
    """One above the commonest exponent of a sample, the lower of equals; `NO_CLASSES` for integers."""
    if kind.exponent is None:
        return NO_CLASSES
    return min(int(np.bincount(_exponents(sample(base), kind.exponent)).argmax()) + 1, kind.exponent[1])


def by_class(base: Bits, kind: Kind, top: int) -> tuple[Positions | None, tuple[int, ...]]:
    """Order that brings elements of one class together, and how many each class has (ARCHIVE 5.4).

    Elements of one class are equally precise, so that their differences, counted in units of the last place, spread
    equally far; coded apart they take less.

    Args:
        base: Elements of the base, shape (n,).
        kind: What they are.
        top: Exponent from which on all are the last class; `NO_CLASSES` for one class of all.

    Returns:
        Elements by ascending exponent, those of equal exponent by ascending position, shape (n,), or None where all
        are one class; counts of elements below `top - 6`, of each exponent up to `top - 1`, and of the rest.
    """
    if top == NO_CLASSES or kind.exponent is None:
        return None, (len(base),)
    found = _exponents(base, kind.exponent)
    bounds = [found.dtype.type(max(0, top - step)) for step in range(CLASSES - 2, -1, -1)]
    below = [0, *(int(np.count_nonzero(found < bound)) for bound in bounds), len(base)]
    return np.argsort(found, kind="stable"), tuple(int(size) for size in np.diff(below))


def _exponents(bits: Bits, place: tuple[int, int]) -> NDArray[Any]:
    shift, mask = place
    if mask == 0xFF:
        return (bits >> shift).astype(np.uint8)  # the cast drops the sign
    found: NDArray[Any] = (bits >> shift).astype(np.uint16 if mask > 0xFF else np.uint8)
    found &= found.dtype.type(mask)
    return found
