"""Entries that may be kept: found in one pass over both checkpoints, with the norms of the whole task vector."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sparsetv.arrays import Positions, Values
from sparsetv.budget.histogram import BINS, LARGEST, Histograms, count
from sparsetv.csr import SparseTensor
from sparsetv.difference import Chunk, TaskVector, refuse_non_finite
from sparsetv.norms import NormSum, Sums, partial_sums
from sparsetv.progress import Progress, counter
from sparsetv.task_vector import Norms
from sparsetv.threads import in_order

_SAMPLED = 16_384
"""Entries that are looked at of each chunk to guess thresholds."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What one pass found.

    Attributes:
        tensors: Per tensor, with fine-tuned minus base as values.
        norms: Of the whole task vector per tensor.
    """

    tensors: dict[str, SparseTensor]
    norms: dict[str, Norms]


def sample(vector: TaskVector, names: Iterable[str]) -> tuple[Histograms, NDArray[np.float64]]:
    """Histograms guessed from the beginning of every chunk, and the mean square of the sampled deltas per tensor."""
    counted, weights, squares = [], [], []
    for name in names:
        counts, seen, total = np.zeros(BINS, np.int64), 0, 0.0
        for chunk in vector.chunks(name):
            magnitudes = np.abs(chunk.deltas(most=_SAMPLED))
            magnitudes = magnitudes[np.isfinite(magnitudes)]
            counts += count(magnitudes)
            seen += len(magnitudes)
            total += float(np.square(magnitudes, dtype=np.float64).cumsum()[-1]) if len(magnitudes) else 0.0
        counted.append(counts)
        weights.append(vector.base.numel(name) / max(seen, 1))
        squares.append(total / max(seen, 1))
    return Histograms.of(counted, weights), np.array(squares)


@dataclass(frozen=True, slots=True)
class _Seen:
    chunk: Chunk
    where: Positions
    deltas: Values
    sums: Sums


def collect(vector: TaskVector, least: dict[str, float], *, progress: Progress | None = None) -> Candidates:
    """Entries of at least some magnitude, per tensor.

    Args:
        vector: Base and fine-tune.
        least: Smallest magnitude per tensor; entries of 0 are never candidates.
        progress: Reports entries read.

    Raises:
        NonFiniteError: A delta is NaN or infinite.

    Cost:
        One pass over both checkpoints; memory O(candidates).
    """
    report = counter(progress, "choose", sum(vector.base.numel(name) for name in least))
    total = {name: NormSum() for name in least}
    places: dict[str, list[Positions]] = {name: [] for name in least}
    values: dict[str, list[Values]] = {name: [] for name in least}
    chunks = (chunk for name in least for chunk in vector.chunks(name))
    for seen in in_order(partial(_look, chunk, least[chunk.name]) for chunk in chunks):
        name = seen.chunk.name
        total[name].add(seen.sums)
        places[name].append(seen.where + seen.chunk.start)
        values[name].append(seen.deltas)
        report(len(seen.chunk))
    tensors = {}
    for name in least:
        where = np.concatenate([np.zeros(0, np.int64), *places[name]])
        deltas = np.concatenate([np.zeros(0, np.float32), *values[name]])
        tensors[name] = SparseTensor(vector.base.dtype(name), vector.base.shape(name), where, deltas)
    return Candidates(tensors, {name: total[name].result() for name in least})


def _look(chunk: Chunk, least: float) -> _Seen:
    deltas = chunk.deltas()
    magnitudes = np.abs(deltas)
    refuse_non_finite(chunk, np.flatnonzero(~np.isfinite(magnitudes)))
    with np.errstate(over="ignore", invalid="ignore"):
        sums = partial_sums(magnitudes)
    where = np.flatnonzero(magnitudes >= np.float32(min(least, LARGEST)) if least > 0 else magnitudes > 0)
    return _Seen(chunk, where, deltas[where], sums)
