"""How many entries of each tensor exceed a magnitude, and what they add up to: all that the search looks at."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsetv.csr import SparseTensor

SHIFT = 17
"""float32 patterns are binned by their upper 15 bits: 64 bins per octave."""

BINS = 1 << 14
LARGEST = float(np.finfo(np.float32).max)
_SMALL = 1000

Reals = NDArray[np.float64]


def bins_of(magnitudes: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Bin of each number >= 0, ascending with it."""
    return magnitudes.view(np.uint32) >> np.uint32(SHIFT)


def count(magnitudes: NDArray[np.float32]) -> NDArray[np.int64]:
    """Numbers per bin, shape (BINS,); zeros count nowhere."""
    return np.bincount(bins_of(magnitudes[magnitudes > 0]), minlength=BINS)


def lower_edge(bins: NDArray[np.int64]) -> Reals:
    """Smallest number of each bin; infinite past the last."""
    return (np.minimum(bins, BINS - 64).astype(np.uint32) << np.uint32(SHIFT)).view(np.float32).astype(np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Histograms:
    """Magnitudes of several tensors.

    Attributes:
        first: Per tensor, the bin that column 0 stands for; all below it is in column 0, too.
        counts: Shape (tensors, bins + 1): entries in column j and above.
        sums: The same shape: what their magnitudes add up to, by the middle of their bins.
    """

    first: NDArray[np.int64]
    counts: Reals
    sums: Reals

    @classmethod
    def of(cls, counted: list[NDArray[np.int64]], weights: list[float]) -> "Histograms":
        """From counts per bin, shape (BINS,) each, of tensors that were sampled.

        Args:
            counted: Entries per bin.
            weights: How many entries each of them stands for.
        """
        spans = [_span(each) for each in counted]
        first, width = np.array([span[0] for span in spans], np.int64), max((b - a for a, b in spans), default=0) + 1
        kept = np.zeros((len(counted), width))
        for row, (each, at) in enumerate(zip(counted, first, strict=True)):
            kept[row, : len(each) - at] = each[at : at + width]
        kept[:, 0] += [int(each[:at].sum()) for each, at in zip(counted, first, strict=True)]
        kept *= np.array(weights)[:, None]
        edges = lower_edge(first[:, None] + np.arange(width + 1))
        with np.errstate(over="ignore"):
            middle = np.minimum((edges[:, 1:] + edges[:, :-1]) / 2, LARGEST)
        return cls(first, _above(kept), _above(kept * middle))

    @classmethod
    def exact(cls, tensors: Iterable[SparseTensor]) -> "Histograms":
        """Of all values of some tensors."""
        counted = [count(np.abs(tensor.values)) for tensor in tensors]
        return cls.of(counted, [1.0] * len(counted))

    def column(self, magnitudes: Reals) -> NDArray[np.int64]:
        """Column whose entries and all above reach a magnitude, rounded up to the next bin; shape (tensors, …)."""
        least = np.minimum(magnitudes, LARGEST).astype(np.float32)
        found = bins_of(least).astype(np.int64)
        found += lower_edge(found) < magnitudes
        first = self.first.reshape(-1, *[1] * (magnitudes.ndim - 1))
        columns: NDArray[np.int64] = np.clip(found - first, 0, self.counts.shape[1] - 1)
        return columns

    def reaching(self, magnitudes: Reals) -> Reals:
        """Entries that reach a magnitude each, shape (tensors,); inside a bin they count as if spread evenly."""
        above = self.column(magnitudes)
        rows, below = np.arange(len(self.counts)), np.maximum(above - 1, 0)
        high, low = np.minimum(lower_edge(above + self.first), LARGEST), lower_edge(below + self.first)
        share = np.clip(np.divide(high - magnitudes, high - low, out=np.zeros(len(rows)), where=high > low), 0, 1)
        return self.counts[rows, above] + share * (self.counts[rows, below] - self.counts[rows, above])

    def top(self) -> Reals:
        """What no magnitude exceeds, shape (tensors,); 0 where there is none."""
        empty = np.argmin(self.counts > 0, axis=1)  # the first column that nothing reaches
        return np.where(self.counts[:, 0] > 0, np.minimum(lower_edge(empty + self.first), LARGEST), 0.0)

    def bottom(self) -> Reals:
        """What every magnitude reaches but those too small to be told apart; infinite where there is none."""
        return np.where(self.counts[:, 0] > 0, lower_edge(self.first), np.inf)


def _span(counted: NDArray[np.int64]) -> tuple[int, int]:
    """Bins between which the magnitudes of a tensor are told apart: from the least but 0.1 % to the largest."""
    total = np.cumsum(counted)
    if not total[-1]:
        return 0, 0
    first = int(np.searchsorted(total, total[-1] // _SMALL, side="right"))
    return first, int(np.flatnonzero(counted)[-1])


def _above(columns: Reals) -> Reals:
    """Sums over a column and all after it, with a last column of 0."""
    total = np.cumsum(columns[:, ::-1], axis=1)[:, ::-1]
    return np.concatenate([total, np.zeros((len(columns), 1))], axis=1)
