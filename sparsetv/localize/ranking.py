"""Exactly k entries by score, over the whole scope or tensor by tensor, in memory proportional to k."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from sparsetv.arrays import Positions
from sparsetv.errors import DensityError, NonFiniteError, UsageError
from sparsetv.localize.topk import LargestK

Scores = Callable[[str], Iterable[NDArray[np.float32]]]
"""Gives a tensor's scores in consecutive pieces, row-major, float32, of either sign."""

ALLOCATIONS = ("global", "tensor")
_SIGN = np.uint32(0x8000_0000)


def rank(sizes: dict[str, int], scores: Scores, *, density: float, allocation: str = "global") -> dict[str, Positions]:
    """Positions of the highest scores per tensor; exactly `round(density * n)` of the scope's n entries.

    Equal scores (0 and -0 are equal) go to the lower position in canonical order: names ascending, then row-major.

    Args:
        sizes: Entries per tensor, names ascending.
        scores: Scores of a tensor.
        density: Fraction to keep, in (0, 1].
        allocation: `global` or `tensor`.

    Raises:
        DensityError: `density` is outside (0, 1], or keeps no entry.
        NonFiniteError: A score is NaN.
        UsageError: Unknown allocation.

    Cost:
        One pass over the scores; memory O(kept) and one piece.
    """
    chosen: dict[str, Positions] = {}
    for members, k in groups(sizes, density=density, allocation=allocation):
        best, start, bounds = LargestK(k), 0, [0]
        for name in members:
            for piece in scores(name):
                keys = order_keys(piece, name)
                where = np.flatnonzero(keys >= np.uint32(min(best.floor, 0xFFFF_FFFF)))
                best.offer(where + start, keys[where])
                start += len(piece)
            bounds.append(start)
        found = best.result()
        cuts = np.searchsorted(found, bounds)
        for number, name in enumerate(members):
            chosen[name] = found[cuts[number] : cuts[number + 1]] - bounds[number]
    return chosen


def order_keys(scores: NDArray[np.float32], name: str) -> NDArray[np.uint32]:
    """uint32 numbers that order as the scores do.

    Raises:
        NonFiniteError: A score is NaN.
    """
    if np.isnan(scores).any():
        raise NonFiniteError(f"{name}: the score of entry {int(np.flatnonzero(np.isnan(scores))[0])} is not a number")
    bits = (np.ascontiguousarray(scores, np.float32).reshape(-1) + np.float32(0)).view(np.uint32)  # -0 becomes 0
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def groups(sizes: dict[str, int], *, density: float, allocation: str) -> list[tuple[list[str], int]]:
    """Tensors that share a threshold, with the number of entries that they keep together.

    Raises:
        DensityError: `density` is outside (0, 1], or keeps no entry.
        UsageError: Unknown allocation.
    """
    total = count_kept(sum(sizes.values()), density)
    if allocation == "global":
        return [(list(sizes), total)]
    if allocation == "tensor":
        return [([name], share) for name, share in zip(sizes, apportion(list(sizes.values()), total), strict=True)]
    raise UsageError(f"unknown allocation {allocation!r}; known are {', '.join(ALLOCATIONS)}")


def count_kept(entries: int, density: float) -> int:
    """`round(density * entries)`, ties to even.

    Raises:
        DensityError: `density` is outside (0, 1], or the count is 0.
    """
    if not 0 < density <= 1:
        raise DensityError(f"density is the fraction kept and must lie in (0, 1]; found {density}")
    kept = round(density * entries)
    if kept == 0:
        raise DensityError(f"density {density} keeps none of {entries} entries; raise it")
    return kept


def apportion(sizes: Sequence[int], total: int) -> list[int]:
    """Split `total` in proportion to sizes: rounded down, the rest to the largest remainders, then the lower index."""
    whole = sum(sizes)
    shares = [size * total // whole for size in sizes]
    remainders = [(-(size * total % whole), index) for index, size in enumerate(sizes)]
    for _, index in sorted(remainders)[: total - sum(shares)]:
        shares[index] += 1
    return shares
