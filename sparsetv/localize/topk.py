"""Exactly the k largest of a stream of numbers, in memory proportional to k."""

import numpy as np
from numpy.typing import NDArray

from sparsetv.arrays import Positions

_SLACK = 1 << 16


class LargestK:
    """Keeps the k largest magnitudes offered so far; ties go to what was offered first.

    Magnitudes come as float32 bit patterns without the sign: for numbers >= 0 these order as the numbers do.

    Cost: O(n) time for n offers, at most 2 k + 65,536 + one offer entries of 12 bytes held.
    """

    def __init__(self, k: int, *, floor: int = 0) -> None:
        """Keep `k`; offers below `floor` may be left out by the caller, who must then check `len(result) == k`."""
        self._k = k
        self.floor = floor
        self._index: list[Positions] = []
        self._bits: list[NDArray[np.uint32]] = []
        self._held = 0

    def offer(self, index: Positions, bits: NDArray[np.uint32]) -> None:
        """Offer magnitudes with their indices; both shape (m,), indices above all offered before."""
        if not len(index):
            return
        self._index.append(index)
        self._bits.append(bits)
        self._held += len(index)
        if self._held > 2 * self._k + _SLACK:
            self._prune()

    def result(self) -> Positions:
        """Indices of the k largest, ascending; fewer where fewer were offered."""
        self._prune()
        return self._index[0] if self._index else np.zeros(0, np.int64)

    def _prune(self) -> None:
        if not self._index:
            return
        index, bits = np.concatenate(self._index), np.concatenate(self._bits)
        if len(index) > self._k:
            kept = keep_largest(bits, self._k)
            index, bits = index[kept], bits[kept]
            # Later offers lose ties, so only what exceeds the smallest kept magnitude can still enter.
            self.floor = max(self.floor, int(bits.min()) + 1) if self._k else 1 << 32
        self._index, self._bits, self._held = [index], [bits], len(index)


def keep_largest(bits: NDArray[np.uint32], k: int) -> Positions:
    """Ascending indices of the k largest numbers; ties go to the lower index.

    Args:
        bits: Shape (n,), n >= k.
        k: How many to keep.
    """
    if k == 0:
        return np.zeros(0, np.int64)
    smallest = np.partition(bits, len(bits) - k)[len(bits) - k]
    above = bits > smallest
    ties = np.flatnonzero(bits == smallest)[: k - int(np.count_nonzero(above))]
    above[ties] = True
    return np.flatnonzero(above)
