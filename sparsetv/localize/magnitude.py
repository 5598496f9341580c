"""Dataless localization: the k entries of largest |delta| over the whole scope, in one streaming pass."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sparsetv.arrays import Positions
from sparsetv.difference import Chunk, TaskVector, refuse_non_finite
from sparsetv.localize.problem import Localized, Problem
from sparsetv.localize.ranking import groups
from sparsetv.localize.topk import LargestK
from sparsetv.masks import Mask
from sparsetv.norms import NormSum, Sums, partial_sums
from sparsetv.progress import counter
from sparsetv.task_vector import Norms
from sparsetv.threads import in_order

_SAMPLED = 4096
_MARGIN = 1.15
_INFINITY = np.uint32(0x7F80_0000)
_MAGNITUDE = np.uint32(0x7FFF_FFFF)


def magnitude(problem: Problem) -> Localized:
    """Keep the entries that changed most.

    Exactly `round(density * n)` of the scope's n entries are kept (ties of the rounding to even, as Python rounds);
    equal magnitudes go to the lower position in canonical order: names ascending, then row-major.

    Raises:
        DensityError: The density is outside (0, 1], or keeps no entry.
        NonFiniteError: A delta is NaN or infinite.

    Reference:
        He et al., Localize-and-Stitch, arXiv:2408.13656, section 3.2, dataless.

    Cost:
        One pass over both checkpoints; memory O(kept).
    """
    vector, sizes = problem.vector, problem.sizes
    report = counter(problem.progress, "localize", sum(sizes.values()))
    positions: dict[str, Positions] = {}
    norms: dict[str, Norms] = {}
    density = problem.needs_density("magnitude")
    for members, k in groups(sizes, density=density, allocation=problem.allocation):
        _select(vector, members, k, positions, norms, report)
    return Localized(Mask({name: vector.base.shape(name) for name in sizes}, positions), norms, {})


def _select(
    vector: TaskVector,
    names: list[str],
    k: int,
    positions: dict[str, Positions],
    norms: dict[str, Norms],
    report: Callable[[int], None],
) -> None:
    """Select k entries over the tensors `names`; fills `positions` and `norms`."""
    sizes = [vector.base.numel(name) for name in names]
    starts = np.cumsum([0, *sizes])
    floor = _lower_bracket(vector, names, k, int(starts[-1]))
    chosen, sums = _scan(vector, names, starts, LargestK(k, floor=floor), report)
    if len(chosen) < k:  # the sample misled; nothing is left out this time
        chosen, sums = _scan(vector, names, starts, LargestK(k), lambda _: None)
    bounds = np.searchsorted(chosen, starts)
    for number, name in enumerate(names):
        positions[name] = chosen[bounds[number] : bounds[number + 1]] - starts[number]
        norms[name] = sums[number].result()


def _lower_bracket(vector: TaskVector, names: list[str], k: int, total: int) -> int:
    """Bits of a magnitude that, by a sample, a little more than k entries reach."""
    samples = [
        chunk.deltas(most=_SAMPLED).view(np.uint32) & _MAGNITUDE for name in names for chunk in vector.chunks(name)
    ]
    sample = np.concatenate(samples) if samples else np.zeros(0, np.uint32)
    rank = int(k / total * len(sample) * _MARGIN + 3 * (k / total * len(sample)) ** 0.5) + 16 if total else 0
    if rank >= len(sample):
        return 0
    return int(np.partition(sample, len(sample) - rank)[len(sample) - rank])


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one chunk gave: candidates above the floor and partial norms."""

    chunk: Chunk
    where: Positions
    bits: NDArray[np.uint32]
    sums: Sums


def _look(chunk: Chunk, floor: int) -> _Seen:
    bits = chunk.deltas().view(np.uint32)
    np.bitwise_and(bits, _MAGNITUDE, out=bits)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = partial_sums(bits.view(np.float32))
    where = np.flatnonzero(bits >= np.uint32(min(floor, int(_INFINITY))))
    return _Seen(chunk, where, bits[where], sums)


def _scan(
    vector: TaskVector, names: list[str], starts: NDArray[np.int64], best: LargestK, report: Callable[[int], None]
) -> tuple[Positions, list[NormSum]]:
    sums = [NormSum() for _ in names]
    number = {name: index for index, name in enumerate(names)}
    chunks = (chunk for name in names for chunk in vector.chunks(name))
    for seen in in_order(partial(_look, chunk, best.floor) for chunk in chunks):
        index = number[seen.chunk.name]
        refuse_non_finite(seen.chunk, seen.where[seen.bits >= _INFINITY])
        sums[index].add(seen.sums)
        best.offer(seen.where + (starts[index] + seen.chunk.start), seen.bits)
        report(len(seen.chunk))
    return best.result(), sums
