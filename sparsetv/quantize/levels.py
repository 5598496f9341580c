"""Values of few magnitudes per tensor: `q8` (128, evenly spaced), `q4` (8) and `q2` (2), where they err least.

Reference: formats/codecs/levels.md; Lloyd, Least squares quantization in PCM, IEEE Trans. Inf. Theory 28(2), 1982.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sparsetv.arrays import Values
from sparsetv.csr import Corrections, SparseTensor
from sparsetv.dtypes import on_grid

COUNTS = {"q8": 128, "q4": 8, "q2": 2}
"""Magnitudes per tensor."""

_ROUNDS = 32


def to_levels(tensors: Mapping[str, SparseTensor], *, count: int) -> dict[str, SparseTensor]:
    """Replace values by the nearest of `count` magnitudes of their tensor, with their sign; corrections are dropped.

    Args:
        tensors: Kept deltas per tensor.
        count: Magnitudes per tensor. More than 16 are evenly spaced from 0; fewer are found by Lloyd's algorithm.
    """
    return {name: _levels(tensor, count) for name, tensor in tensors.items()}


def _levels(tensor: SparseTensor, count: int) -> SparseTensor:
    magnitudes = np.abs(tensor.values)
    if not magnitudes.any():
        return replace(tensor, corrections=Corrections.none())
    found = _even(magnitudes, count) if count > 16 else nearest(magnitudes, *lloyd(magnitudes, count))
    return replace(tensor, values=np.copysign(found, tensor.values), corrections=Corrections.none())


def _even(magnitudes: Values, count: int) -> Values:
    unit = _unit(magnitudes.max() / np.float32(count - 1))
    index = np.minimum(np.rint(magnitudes.astype(np.float64) / float(unit)), count - 1)
    return (index * float(unit)).astype(np.float32)


def _unit(wanted: np.float32) -> np.float32:
    """A number rounded up to 16 significant bits, so that its multiples up to 255 are float32 numbers, too."""
    bits = int(np.float32(wanted).view(np.uint32))
    return np.float32(np.uint32((bits + 0xFF) & ~0xFF).view(np.float32))


def lloyd(magnitudes: Values, count: int) -> tuple[Values, NDArray[np.float64]]:
    """Magnitudes that err least in the square, found from the means of equal parts of the sorted ones.

    Args:
        magnitudes: Shape (n,), n > 0, >= 0, float32.
        count: How many to find; fewer where parts are empty.

    Returns:
        (magnitudes rising, each a multiple of a shared unit; bounds between them).
    """
    ordered = np.sort(magnitudes).astype(np.float64)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    cuts = np.unique(len(ordered) * np.arange(count + 1) // count)
    for _ in range(_ROUNDS):
        means = np.diff(sums[cuts]) / np.diff(cuts)
        inner = np.searchsorted(ordered, (means[1:] + means[:-1]) / 2)
        moved = np.unique(np.concatenate([[0], inner, [len(ordered)]]))
        if np.array_equal(moved, cuts):
            break
        cuts = moved
    table = np.unique(on_grid(np.diff(sums[cuts]) / np.diff(cuts)))
    return table, (table[1:].astype(np.float64) + table[:-1]) / 2


def nearest(magnitudes: Values, table: Values, bounds: NDArray[np.float64]) -> Values:
    """The member of a rising table that is nearest to each magnitude; the larger of two that are."""
    return table[np.searchsorted(bounds, magnitudes, side="right")]
