"""The plan whose file comes closest to a size from below; it is found on histograms, files are made twice or so."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from sparsetv.budget.cut import above, cut, take
from sparsetv.budget.histogram import Histograms, Reals
from sparsetv.budget.rate import Plan, solve, threshold
from sparsetv.container.writer import encode_tensors
from sparsetv.csr import SparseTensor
from sparsetv.errors import LimitError

LEAST_FULL = 0.97
"""Share of the size that a file should fill."""

_FULL, _AIM = 0.985, 0.994
_HASTE, _TRIES = 3, 16
_SOME = 4

Tensors = dict[str, SparseTensor]
Quantize = Callable[[Tensors], Tensors]


@dataclass(frozen=True, slots=True, eq=False)
class Stock:
    """What a file may hold.

    Attributes:
        tensors: Candidates per tensor with their deltas, names ascending.
        entries: Entries per tensor.
        weights: What a squared error counts in each tensor.
        quantize: How kept deltas are stored; None for means of levels that the plan chooses.
        guess: Bits of a kept entry to begin with, where `quantize` is given.
    """

    tensors: Mapping[str, SparseTensor]
    entries: Reals
    weights: Reals
    quantize: Quantize | None = None
    guess: float = 0.0

    def plan(self, histograms: Histograms, bits: float) -> Plan:
        """The best plan for some bits, by the histograms."""
        if self.quantize is None:
            return solve(histograms, self.entries, self.weights, bits=bits)
        return threshold(histograms, self.weights, kept=bits / self.guess, each=self.guess)

    def apply(self, plan: Plan, *, most: int | None = None) -> Tensors:
        """What a plan keeps, as it is stored.

        Args:
            plan: Thresholds and steps.
            most: Keep only so many of these entries: the largest in units of their tensor, then the first.
        """
        least = plan.least.tolist()
        kept = {n: above(t, bound) for (n, t), bound in zip(self.tensors.items(), least, strict=True)}
        if most is not None:
            kept = self._largest(kept, most)
        if self.quantize is not None:
            return self.quantize(kept)
        pairs = zip(kept.items(), least, plan.step.tolist(), strict=True)
        return {name: cut(tensor, least=bound, step=step) for (name, tensor), bound, step in pairs}

    def _largest(self, kept: Tensors, most: int) -> Tensors:
        sizes = [tensor.nnz for tensor in kept.values()]
        pairs = zip(kept.values(), np.sqrt(self.weights).tolist(), strict=True)
        scaled = np.concatenate([np.abs(tensor.values).astype(np.float64) * unit for tensor, unit in pairs])
        chosen = np.sort(np.argsort(-scaled, kind="stable")[:most])
        bounds = np.cumsum([0, *sizes])
        cuts = np.searchsorted(chosen, bounds)
        return {
            name: take(tensor, chosen[cuts[i] : cuts[i + 1]] - bounds[i])
            for i, (name, tensor) in enumerate(kept.items())
        }


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """Tensors, bytes of their file, and bytes of a file without entries."""

    tensors: Tensors
    size: int
    fixed: int


def fit(stock: Stock, size_of: Callable[[Tensors], int], *, limit: int) -> Fitted:
    """Tensors whose file is at most `limit` bytes, and at least 97 % of it where there is so much to keep.

    Args:
        stock: What there is to keep.
        size_of: Bytes of the file that holds some tensors.
        limit: Largest size.

    Raises:
        LimitError: Not even a file without entries is small enough.
    """
    empty = {name: above(tensor, np.inf) for name, tensor in stock.tensors.items()}
    fixed = size_of(empty)
    if fixed >= limit:
        raise LimitError(
            f"a file without a single entry takes {fixed} bytes (heads, carried files, probe, names), the budget "
            f"is {limit}; ask for more, or leave the probe out with --no-probe"
        )
    histograms = Histograms.exact(stock.tensors.values())
    below, over = _Point(Plan.nothing(len(stock.tensors)), fixed, empty), None
    first = _first(stock, histograms, 8.0 * (_AIM * limit - fixed))
    for attempt in range(_TRIES):
        plan = stock.plan(histograms, _next(below, over, aim=_AIM * limit, fixed=fixed) if attempt else first)
        tensors = stock.apply(plan)
        point = _Point(plan, size_of(tensors), tensors)
        if point.size > limit:
            over = point
        elif point.size >= below.size:
            stuck = plan.bits == below.plan.bits
            below = point
            full = below.size >= (_FULL if attempt < _HASTE else LEAST_FULL) * limit
            if full or stuck or (plan.complete and over is None):
                break
    if below.size < LEAST_FULL * limit:
        whole = stock.plan(histograms, math.inf) if over is None else over.plan
        below = _untie(stock, size_of, below, whole, limit)
    return Fitted(below.tensors, below.size, fixed)


def _first(stock: Stock, histograms: Histograms, room: float) -> float:
    """Bits to begin with: some tensors are coded, to learn by how much the histograms mistake them."""
    plan = stock.plan(histograms, room)
    some = dict(list(stock.apply(plan).items())[::_SOME])
    expected = float(plan.each[::_SOME].sum())
    coded = 8.0 * sum(len(item.positions) + len(item.values) for item in encode_tensors(some))
    return room * min(max(expected / coded, 0.5), 2.0) if coded and expected else room


@dataclass(frozen=True, slots=True, eq=False)
class _Point:
    """A plan that was tried: bytes of its file, what that holds."""

    plan: Plan
    size: int
    tensors: Tensors


def _next(below: _Point, above: _Point | None, *, aim: float, fixed: int) -> float:
    """Bits whose file should have `aim` bytes: on the line through the nearest files of less and of more."""
    if above is None:
        known = below.size > fixed
        slope = below.plan.bits / (below.size - fixed) if known else 8.0
        return below.plan.bits + slope * (aim - below.size)
    share = (aim - below.size) / (above.size - below.size)
    return below.plan.bits + (above.plan.bits - below.plan.bits) * min(max(share, 0.05), 0.95)


def _untie(stock: Stock, size_of: Callable[[Tensors], int], below: _Point, plan: Plan, limit: int) -> _Point:
    """Fill a file where many entries have the magnitude at which thresholds would cut: keep the first of them.

    Args:
        stock: What there is to keep.
        size_of: Bytes of the file that holds some tensors.
        below: The fullest file that is small enough.
        plan: One that keeps more.
        limit: Largest size.
    """
    whole = stock.apply(plan)
    least, most = _count(below.tensors), _count(whole)
    small, large = below.size, size_of(whole)
    if large <= limit:
        return below if small >= large else _Point(plan, large, whole)
    for _ in range(_TRIES):
        share = (_AIM * limit - small) / max(large - small, 1)
        middle = least + max(1, min(int(share * (most - least)), most - least - 1))
        if middle >= most:
            break
        tensors = stock.apply(plan, most=middle)
        size = size_of(tensors)
        if size > limit:
            most, large = middle, size
            continue
        least, small, below = middle, size, _Point(plan, size, tensors)
        if size >= LEAST_FULL * limit:
            break
    return below


def _count(tensors: Tensors) -> int:
    return sum(tensor.nnz for tensor in tensors.values())
