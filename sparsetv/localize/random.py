"""Entries chosen by a seed alone: what any other localizer has to beat."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from sparsetv.difference import CHUNK
from sparsetv.errors import DensityError, UsageError
from sparsetv.localize.measure import localized
from sparsetv.localize.problem import Localized, Problem
from sparsetv.localize.ranking import rank


def random(problem: Problem, *, exact: bool = True) -> Localized:
    """Keep entries at random: exactly k of them, or each on its own with the density's probability.

    Entry i of the scope (tensors in ascending order of names, then row-major) has the i-th raw number of the Philox
    generator whose key is the seed, so that the choice depends on neither machine nor chunks nor shards.

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
    """The random number of every entry, a whole number below 2^24, by tensor, in pieces.

    Raises:
        UsageError: The seed is negative or has more than 128 bits.
    """
    if not 0 <= seed < 1 << 128:
        raise UsageError(f"seed {seed} lies outside 0 to 2^128 - 1")
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))

    def draw(name: str) -> Iterator[NDArray[np.float32]]:
        for start in range(0, sizes[name], CHUNK):
            count = min(CHUNK, sizes[name] - start)
            yield (_raw(seed, starts[name] + start, count) >> np.uint64(40)).astype(np.float32)

    return draw


def _raw(seed: int, start: int, count: int) -> NDArray[np.uint64]:
    """Raw numbers `start` to `start + count` of the generator; it makes four at each step of its counter."""
    generator = np.random.Philox(key=seed)
    generator.advance(start // 4)
    raw: NDArray[np.uint64] = generator.random_raw(count + start % 4)
    return raw[start % 4 :]
