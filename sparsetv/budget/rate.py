"""Which threshold and step each tensor gets, so that the squared error is least for the bits that it takes.

An entry-coded quantiser with a dead zone: entries below T are dropped, those in [T + l D, T + (l + 1) D) become their
mean. One Lagrange multiplier over all tensors prices a bit; each tensor then stands alone.

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

_STEPS = (2.2, 3.0, 4.1, 5.6, math.inf)
"""Steps that are tried, in square roots of the price of a bit."""

_ROUNDS = 6
_SEARCH = 14
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
    lowest, high = _prices(histograms, weights)
    low, best = lowest, _at(histograms, entries, weights, high)
    for _ in range(_SEARCH):
        middle = math.sqrt(low * high)
        plan = _at(histograms, entries, weights, middle)
        if plan.bits <= bits:
            best, high = plan, middle
        else:
            low = middle
    return replace(best, complete=low == lowest)


def threshold(histograms: Histograms, weights: Reals, *, kept: float, each: float) -> Plan:
    """One threshold for all tensors, on magnitudes times the root of their weight, that keeps some number of entries.

    Args:
        histograms: Magnitudes per tensor.
        weights: What a squared error counts in each tensor, shape (tensors,).
        kept: Entries to keep.
        each: Expected bits of a kept entry.
    """
    low, high = (math.sqrt(price) for price in _prices(histograms, weights))
    lowest = low

    def count(bound: float) -> Reals:
        return histograms.reaching(bound / np.sqrt(weights))

    for _ in range(3 * _SEARCH):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if math.fsum(count(middle).tolist()) <= kept else (middle, high)
    return Plan(high / np.sqrt(weights), np.full(len(weights), math.inf), count(high) * each, low == lowest)


def _prices(histograms: Histograms, weights: Reals) -> tuple[float, float]:
    """Prices of a bit at which everything is kept in fine steps, and at which nothing is."""
    occupied = histograms.counts[:, 0] > 0
    largest = float((histograms.top() ** 2 * weights)[occupied].max(initial=1e-300))
    return largest * 1e-14, largest


def _at(histograms: Histograms, entries: Reals, weights: Reals, price: float) -> Plan:
    """The best plan at a price: each tensor takes the step at which error and priced bits add up to least."""
    prices = price / weights
    finest = histograms.top() / (LEVELS - 1)  # a finer step would leave the largest to share one level
    chosen: list[tuple[Reals, Reals, Reals, Reals]] = []
    for factor in _STEPS:
        step = np.maximum(np.sqrt(prices) * factor, finest)
        least = _thresholds(histograms, entries, prices, step)
        gain, bits = _measure(histograms, entries, least, step)
        chosen.append((bits * prices - gain, least, step, bits))
    costs = np.stack([each[0] for each in chosen])
    pick = np.argmin(costs, axis=0)
    least, step, bits = (np.stack([c[i] for c in chosen])[pick, np.arange(len(pick))] for i in range(1, 4))
    worth = costs.min(axis=0) < 0
    return Plan(
        np.where(worth, least, math.inf),
        np.where(worth, step, math.inf),
        np.where(worth, bits, 0.0),
    )


def _thresholds(histograms: Histograms, entries: Reals, prices: Reals, step: Reals) -> Reals:
    """Thresholds at which the error that keeping an entry saves pays for its bits."""
    least = np.sqrt(8 * prices)
    rows = np.arange(len(entries))
    for _ in range(_ROUNDS):
        start, stop = histograms.column(least), histograms.column(least + step)
        kept = histograms.counts[rows, start]
        lowest = kept - histograms.counts[rows, stop]
        total = histograms.sums[rows, start] - histograms.sums[rows, stop]
        some = lowest > 0
        mean = np.divide(total, lowest, out=least.copy(), where=some)
        bits = log2(np.maximum(entries - kept, 0.5)) - log2(np.maximum(lowest, 0.5)) + 1
        least = np.where(some, np.maximum((prices * bits + mean**2) / (2 * mean), mean / 2), least)
    return least


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
    return np.minimum((magnitudes.astype(np.float64) - least) / step, LEVELS - 1).astype(np.int64)
