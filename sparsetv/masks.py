"""Which entries a task keeps: positions per tensor, and how masks of several tasks meet."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sparsetv.arrays import Positions


@dataclass(frozen=True, slots=True)
class Mask:
    """Kept positions of every tensor of a scope.

    Attributes:
        shapes: Shape per tensor of the scope, names ascending.
        positions: Flat row-major positions per tensor, int64, strictly increasing; one entry per name of `shapes`.
    """

    shapes: Mapping[str, tuple[int, ...]]
    positions: Mapping[str, Positions]

    @property
    def nnz(self) -> int:
        """Number of kept entries."""
        return sum(len(positions) for positions in self.positions.values())

    @property
    def numel(self) -> int:
        """Number of entries of the scope."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def density(self) -> float:
        """Fraction of the scope that is kept."""
        return self.nnz / self.numel if self.numel else 0.0


def overlap(first: Mask, second: Mask) -> int:
    """Number of entries that both masks keep. Cost: O(nnz)."""
    shared = first.positions.keys() & second.positions.keys()
    return sum(
        len(np.intersect1d(first.positions[name], second.positions[name], assume_unique=True)) for name in shared
    )


def jaccard(first: Mask, second: Mask) -> float:
    """Overlap over union of two masks (Localize-and-Stitch, section 3.2); 0 where both are empty."""
    both = overlap(first, second)
    union = first.nnz + second.nnz - both
    return both / union if union else 0.0
