"""Values rounded to fewer significant bits: `f16` (11) and `bf16` (8).

Reference: formats/VALUES.md. Exponents keep float32's range, so small deltas do not vanish as they would in fp16.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from sparsetv.arrays import Values
from sparsetv.csr import Corrections, SparseTensor

BITS = {"f16": 11, "bf16": 8}
"""Significant bits."""

_SIGN = np.uint32(0x8000_0000)
_INFINITY = 0x7F80_0000


def to_rounded(tensors: Mapping[str, SparseTensor], *, bits: int) -> dict[str, SparseTensor]:
    """Round values to nearest, ties to even; corrections are dropped.

    Args:
        tensors: Kept deltas per tensor.
        bits: Significant bits, 1 to 24; the error of a normal number is at most `2^-bits` of it.
    """
    return {
        name: replace(tensor, values=round_bits(tensor.values, bits), corrections=Corrections.none())
        for name, tensor in tensors.items()
    }


def round_bits(values: Values, bits: int) -> Values:
    """Finite float32 numbers rounded to `bits` significant bits; what would be infinite, to the largest such number."""
    patterns = values.view(np.uint32)
    magnitudes = (patterns & ~_SIGN).astype(np.int64)
    step = 1 << (24 - bits)
    below, rest = magnitudes // step * step, magnitudes % step
    odd = (magnitudes // step) % 2
    up = (2 * rest + odd) > step
    rounded = np.minimum(below + up * step, _INFINITY - step)
    return (rounded.astype(np.uint32) | (patterns & _SIGN)).view(np.float32)
