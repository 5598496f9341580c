"""What a sample of numbers would take, in integers, so that every machine makes the same choices."""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sparsetv.arrays import Bits, Bytes

UNIT = 1 << 16
"""Estimates count in 65,536ths of a bit."""

_MOST = 1 << 13


@cache
def _logarithms() -> NDArray[np.int64]:
    """log2 of 1 to `_MOST`, in units; 0 for 0."""
    return np.array([0, *(round(UNIT * math.log2(number)) for number in range(1, _MOST + 1))], np.int64)


def sample(bits: Bits) -> Bits:
    """Every n-th element, at least 2,048 and fewer than 4,096 of them, or all where they are fewer; a view."""
    return bits[:: max(1, len(bits) >> 11)]


def bits_of(data: Bytes) -> int:
    """Units that at most 8,192 bytes take under the best code of single bytes."""
    counts, logarithms = np.bincount(data, minlength=256), _logarithms()
    return int(len(data) * logarithms[len(data)] - (counts * logarithms[counts]).sum())


def plane_bits(numbers: Bits) -> int:
    """Units that the byte planes of at most 8,192 numbers take."""
    matrix = np.ascontiguousarray(numbers).view(np.uint8).reshape(len(numbers), numbers.itemsize)
    return sum(bits_of(matrix[:, column]) for column in range(numbers.itemsize))
