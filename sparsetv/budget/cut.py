"""Candidates to stored tensors, as a plan says; and how much of the task vector they keep."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sparsetv.arrays import Values
from sparsetv.budget.histogram import LARGEST
from sparsetv.budget.rate import levels_of
from sparsetv.csr import SparseTensor
from sparsetv.dtypes import power_unit

_FINER = 4  # bits by which means are told apart within a step
_SINGLE = 12  # bits of a single mean


def cut(tensor: SparseTensor, *, least: float, step: float) -> SparseTensor:
    """Keep entries of at least some magnitude, each at the mean of its level.

    Args:
        tensor: Candidates with their deltas.
        least: Smallest magnitude that is kept.
        step: Width of a level; infinite for a single one.
    """
    kept = above(tensor, least)
    if not kept.nnz:
        return kept
    return replace(kept, values=np.copysign(_means(np.abs(kept.values), least, step), kept.values))


def above(tensor: SparseTensor, least: float) -> SparseTensor:
    """Entries of at least some magnitude; corrections are dropped."""
    bound = np.float32(least) if least <= LARGEST else np.float32(np.inf)
    return take(tensor, np.flatnonzero(np.abs(tensor.values) >= bound))


def take(tensor: SparseTensor, index: NDArray[np.int64]) -> SparseTensor:
    """Some of a tensor's kept entries, by ascending index; corrections are dropped."""
    return SparseTensor(tensor.dtype, tensor.shape, tensor.positions[index], tensor.values[index])


def _means(magnitudes: Values, least: float, step: float) -> Values:
    """Mean of each magnitude's level, as a multiple of a unit that makes tables small."""
    levels = levels_of(magnitudes, least, step)
    counts = np.bincount(levels)
    sums = np.bincount(levels, weights=magnitudes.astype(np.float64))
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    unit = power_unit(step, bits=_FINER) if math.isfinite(step) else power_unit(float(means.max()), bits=_SINGLE)
    return (np.maximum(np.rint(means / unit), 1) * unit).astype(np.float32)[levels]


def energy(tensors: Mapping[str, SparseTensor], deltas: Mapping[str, Values], whole: float) -> float:
    """Share of a task vector's squared L2 norm that stored values keep, 6 digits.

    Args:
        tensors: What is stored.
        deltas: The deltas at the same entries.
        whole: The squared norm.
    """
    gains = [
        float((2 * d * v - v * v).cumsum()[-1])
        for v, d in ((tensors[n].values.astype(np.float64), deltas[n].astype(np.float64)) for n in tensors)
        if len(v)
    ]
    return float(f"{math.fsum(gains) / whole:.6g}") if whole else 1.0
