"""Norms of the whole task vector, in one pass of their own, for localizers that do not read it in order."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sparsetv.arrays import Positions
from sparsetv.difference import Chunk, TaskVector, refuse_non_finite
from sparsetv.errors import DensityError
from sparsetv.localize.problem import Localized, Problem
from sparsetv.masks import Mask
from sparsetv.norms import NormSum, Sums, partial_sums
from sparsetv.task_vector import Norms

_THREADS = 2


def localized(problem: Problem, positions: dict[str, Positions], **notes: float) -> Localized:
    """A mask from positions per tensor, with the norms of the whole task vector.

    Raises:
        DensityError: No entry is kept.
        NonFiniteError: A delta is NaN or infinite.
    """
    if not any(map(len, positions.values())):
        raise DensityError("no entry is kept: nothing passes the threshold; give --density, or other settings")
    shapes = {name: problem.vector.base.shape(name) for name in problem.names}
    return Localized(Mask(shapes, {name: positions[name] for name in shapes}), measure(problem.vector, shapes), notes)


def measure(vector: TaskVector, names: Iterable[str]) -> dict[str, Norms]:
    """Norms of the whole task vector per tensor.

    Raises:
        NonFiniteError: A delta is NaN or infinite.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        norms = {}
        for name in names:
            total = NormSum()
            for sums in pool.map(_sums, vector.chunks(name)):
                total.add(sums)
            norms[name] = total.result()
    return norms


def _sums(chunk: Chunk) -> Sums:
    magnitudes = np.abs(chunk.deltas())
    refuse_non_finite(chunk, np.flatnonzero(~np.isfinite(magnitudes)))
    with np.errstate(over="ignore", invalid="ignore"):
        return partial_sums(magnitudes)
