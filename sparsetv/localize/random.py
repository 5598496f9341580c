"""Entries chosen by a seed alone: what any other localizer has to beat."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from sparsetv.draws import numbers
from sparsetv.errors import DensityError
from sparsetv.localize.measure import localized
from sparsetv.localize.problem import Localized, Problem
from sparsetv.localize.ranking import rank


def random(problem: Problem, *, exact: bool = True) -> Localized:
    """Keep entries at random: exactly k of them, or each on its own with the density's probability.

    Entry i of the scope (tensors in ascending order of names, then row-major) has the i-th number that
    `sparsetv.draws` gives for the seed, so that the choice depends on neither machine nor chunks nor shards, and a file
    stores the seed instead of positions.

    Args:
        problem: Task vector, density, allocation and seed.
        exact: Keep the entries with the largest numbers, `round(density * n)` of them; otherwise every entry whose
            number lies in the top share, whose count varies (Bernoulli, as in DARE).

    Reference:
        Yu et al., DARE, arXiv:2311.03099, section 3.1 (random dropping; the rescaling by 1/density is a scale).

    Cost:
        8 bytes of random numbers per entry of the scope in time, a chunk of them in memory.
    """
    density = problem.needs_density("random")
    draws = keys(problem.sizes, seed=problem.seed)
    if exact:
        return localized(problem, rank(problem.sizes, draws, density=density, allocation=problem.allocation))
    if not 0 < density <= 1:
        raise DensityError(f"density is the fraction kept and must lie in (0, 1]; found {density}")
    least = np.float32((1 - density) * 2**24)
    positions = {
        name: np.flatnonzero(np.concatenate([np.zeros(0, bool), *(piece >= least for piece in draws(name))]))
        for name in problem.sizes
    }
    return localized(problem, positions)


def keys(sizes: dict[str, int], *, seed: int) -> Callable[[str], Iterator[NDArray[np.float32]]]:
    """The random number of every entry, a whole number below 2^24, by tensor, in pieces."""
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))

    def draw(name: str) -> Iterator[NDArray[np.float32]]:
        for drawn in numbers(seed, starts[name], sizes[name]):
            yield drawn.astype(np.float32)

    return draw
