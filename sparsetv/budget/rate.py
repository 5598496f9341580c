"""Which threshold and step the quantiser gets, so that the squared error is least for the bits that it takes.

An entropy-coded quantiser with a dead zone: entries below T are dropped, those in [T + l D, T + (l + 1) D) become their
mean. In units of the tensor (1 over the root of what a squared error counts there) T and D are the same in all tensors.

Pricing bits tensor by tensor would err less: it lowers thresholds where masks are dense and positions cheap. But as the
rate goes to 0 the error falls by nearly the same for each bit whoever gets it, so all bits go to the few tensors with
the heaviest tails, and accuracy goes with them: at 0.15 % of a checkpoint 0.82 instead of 0.90 (CR), 0.89 instead of
0.94 (SUBJ).

Reference: Sullivan, Efficient scalar quantization of exponential and Laplacian random variables, IEEE Trans. Inf.
Theory 42(5), 1996: of the quantisers of a given entropy a uniform one with a wider zero bin errs least, or nearly.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sparsetv.budget.histogram import Histograms, Reals

LEVELS = 256
"""Most magnitudes of a tensor (formats/codecs/levels.md)."""

_STEPS = (0.35, 0.5, 0.7, 1.0, 1.4, math.inf)
"""Steps that are tried, in thresholds."""

_SEARCH = 24
_MAGNITUDE = 16.0  # bits that a magnitude takes in a tensor's table


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Threshold and step per tensor, and what they are expected to give.

    Attributes:
        least: Smallest magnitude that is kept, shape (tensors,); infinite where nothing is.
        step: Width of a level, shape (tensors,); infinite for a single one.
        each: Expected bits of positions and values, shape (tensors,).
        complete: Whether nothing is left that more bits would bring.
    """

    least: Reals
    step: Reals
    each: Reals
    complete: bool = False

    @classmethod
    def nothing(cls, tensors: int) -> "Plan":
        """The plan that keeps no entry."""
        return cls(np.full(tensors, math.inf), np.full(tensors, math.inf), np.zeros(tensors))

    @property
    def bits(self) -> float:
        """Expected bits of all positions and values."""
        return math.fsum(self.each.tolist())


def solve(histograms: Histograms, entries: Reals, weights: Reals, *, bits: float) -> Plan:
    """The plan of least weighted error within some bits.

    Args:
        histograms: Magnitudes per tensor.
        entries: Entries per tensor, shape (tensors,).
        weights: What a squared error counts in each tensor, shape (tensors,).
        bits: Bits of positions and values.
    """
    plans = [_within(histograms, entries, weights, factor, bits) for factor in _STEPS]
    return max(plans, key=lambda found: found[0])[1]


def _within(histograms: Histograms, entries: Reals, weights: Reals, factor: float, bits: float) -> tuple[float, Plan]:
    """(weighted error saved, plan) at a ratio of step to threshold, with the lowest threshold that the bits allow."""
    units = 1 / np.sqrt(weights)
    finest = histograms.top() / (LEVELS - 1)  # a finer step would leave the largest to share one level
    low, high = _bounds(histograms, weights)
    lowest, best = low, (0.0, Plan.nothing(len(units)))
    for _ in range(_SEARCH):
        middle = math.sqrt(low * high)
        least, step = middle * units, np.maximum(middle * factor * units, finest)
        gain, each = _measure(histograms, entries, least, step)
        plan = Plan(least, step, each)
        if plan.bits <= bits:
            best, high = (math.fsum((gain * weights).tolist()), plan), middle
        else:
            low = middle
    return best[0], replace(best[1], complete=low == lowest)


def threshold(histograms: Histograms, weights: Reals, *, kept: float, each: float) -> Plan:
    """One threshold for all tensors, on magnitudes times the root of their weight, that keeps some number of entries.

    Args:
        histograms: Magnitudes per tensor.
        weights: What a squared error counts in each tensor, shape (tensors,).
        kept: Entries to keep.
        each: Expected bits of a kept entry.
    """
    low, high = _bounds(histograms, weights)
    lowest = low

    def count(bound: float) -> Reals:
        return histograms.reaching(bound / np.sqrt(weights))

    for _ in range(2 * _SEARCH):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if math.fsum(count(middle).tolist()) <= kept else (middle, high)
    return Plan(high / np.sqrt(weights), np.full(len(weights), math.inf), count(high) * each, low == lowest)


def _bounds(histograms: Histograms, weights: Reals) -> tuple[float, float]:
    """Thresholds, in units of the tensors, that everything and that nothing reaches."""
    scale = np.sqrt(weights)
    highest = float((histograms.top() * scale).max(initial=1e-150))
    return min(float((histograms.bottom() * scale).min(initial=highest)), highest) / 2, 2 * highest


def _measure(histograms: Histograms, entries: Reals, least: Reals, step: Reals) -> tuple[Reals, Reals]:
    """(squared error saved, bits) per tensor."""
    rows = np.arange(len(entries))[:, None]
    with np.errstate(invalid="ignore"):
        edges = least[:, None] + step[:, None] * np.arange(_planned(histograms, least, step))
    edges[:, 0] = least
    columns = histograms.column(edges)
    columns = np.concatenate([columns, np.full((len(entries), 1), histograms.counts.shape[1] - 1)], axis=1)
    counts = -np.diff(histograms.counts[rows, columns], axis=1)
    sums = -np.diff(histograms.sums[rows, columns], axis=1)
    gain = np.divide(sums**2, counts, out=np.zeros_like(sums), where=counts > 0).cumsum(axis=1)[:, -1]
    kept = counts.cumsum(axis=1)[:, -1]
    rest = np.maximum(entries - kept, 0.0)
    each = counts * (log2(np.maximum(entries, 1))[:, None] - log2(np.maximum(counts, 0.5)))
    holes = rest * (log2(np.maximum(entries, 1)) - log2(np.maximum(rest, 0.5)))
    tables = _MAGNITUDE * (counts > 0).cumsum(axis=1)[:, -1]
    return gain, each.cumsum(axis=1)[:, -1] + holes + kept + tables


def _planned(histograms: Histograms, least: Reals, step: Reals) -> int:
    """Most levels that a tensor has."""
    levels = np.where(np.isfinite(step), (histograms.top() - least) / step, 0.0)
    return int(np.clip(levels.max(initial=0.0), 0, LEVELS - 1)) + 1


_FINE = 1 << 12
_LOGS = np.array([round(math.log2(1 + i / _FINE), 9) for i in range(_FINE + 1)])


def log2(numbers: Reals) -> Reals:
    """Logarithms of positive numbers to base 2, to 1e-4, with the same bits on every machine."""
    mantissa, exponent = np.frexp(numbers)
    logs: Reals = exponent - 1 + _LOGS[((2 * mantissa - 1) * _FINE).astype(np.int64)]
    return logs


def levels_of(magnitudes: NDArray[np.float32], least: float, step: float) -> NDArray[np.int64]:
    """Level of each kept magnitude, counted from 0, below `LEVELS`."""
    if not math.isfinite(step):
        return np.zeros(len(magnitudes), np.int64)
    return np.clip((magnitudes.astype(np.float64) - least) / step, 0, LEVELS - 1).astype(np.int64)
