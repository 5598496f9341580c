"""Packing to a size: which entries, and how many bits each, so that the file is as large as asked for."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np

from sparsetv.budget.ask import Ask
from sparsetv.budget.candidates import Candidates, collect, sample
from sparsetv.budget.cut import above, energy
from sparsetv.budget.fit import LEAST_FULL, Fitted, Stock, Tensors, fit
from sparsetv.budget.histogram import Histograms, Reals
from sparsetv.checkpoint.reading import Checkpoint
from sparsetv.container.writer import measure
from sparsetv.csr import SparseTensor
from sparsetv.difference import TaskVector
from sparsetv.errors import UsageError
from sparsetv.jobs.options import PackOptions
from sparsetv.localize import ranking
from sparsetv.packing.gather import gather_tensor
from sparsetv.progress import Progress
from sparsetv.quantize.named import quantize
from sparsetv.task_vector import Budget, Norms, SparseTaskVector

ALLOCATIONS = (*ranking.ALLOCATIONS, "balanced")
"""What a squared error counts: the same everywhere, over the tensor's mean square, or over the root of that."""

_GUESS = {"exact": 28.0, "f16": 17.0, "bf16": 14.0, "q8": 12.0, "q4": 10.5, "q2": 8.5, "sign": 7.5}
_MARGINS = 1.3, 3.0, math.inf
_SLACK = 16  # bytes by which compressed numbers may differ
_SPARE = 0.9  # candidates reach below the guessed thresholds, since those come from a sample
_FINER = ("bf16", "f16", "exact")
_CHANGED = 8.0  # bits per changed entry from which a budget may hold all of them exactly

Draft = Callable[[Tensors, Mapping[str, Norms]], SparseTaskVector]


def check_budget(options: PackOptions) -> Ask:
    """The size that the options ask for.

    Raises:
        UsageError: It is none, or something else is asked for that a size decides.
    """
    ask = Ask.parse(str(options.budget), of=options.of)
    if options.localizer != "magnitude" or options.mask is not None:
        raise UsageError("a budget chooses the entries itself; leave out the mask and the localizer")
    if options.settings:
        raise UsageError(f"a budget has no setting {min(options.settings)!r}; leave out --set")
    if options.shared not in ALLOCATIONS:
        raise UsageError(f"unknown allocation {options.shared!r}; known are {', '.join(ALLOCATIONS)}")
    return ask


def limit_of(ask: Ask, checkpoint: Checkpoint) -> int:
    """The size in bytes, shares being those of the fine-tune."""
    return ask.bytes(parameters=sum(checkpoint.numel(name) for name in checkpoint.names), stored=checkpoint.total_bytes)


def spread(options: PackOptions, checkpoint: Checkpoint, factor: float) -> PackOptions:
    """Options that ask for a multiple of the size."""
    return replace(options, budget=str(int(factor * limit_of(check_budget(options), checkpoint))))


def marked(task: SparseTaskVector, checkpoint: Checkpoint, options: PackOptions) -> SparseTaskVector:
    """A task that says what size was asked for; its values are to be trained, so it does not say what they keep."""
    ask = check_budget(options)
    fixed = measure(without_entries(task))
    return replace(task, budget=Budget(ask.text, ask.of, limit_of(ask, checkpoint), fixed, None))


def pack_within(
    vector: TaskVector,
    names: tuple[str, ...],
    options: PackOptions,
    draft: Draft,
    *,
    reserve: int = 0,
    progress: Progress | None = None,
) -> SparseTaskVector:
    """The task whose file fits the budget that the options ask for, with the least squared error.

    Args:
        vector: Base and fine-tune.
        names: Base names of the scope.
        options: Budget, allocation, importance and values.
        draft: Makes a task of tensors and norms.
        reserve: Bytes that something yet to come will take.
        progress: Reports entries read.

    Raises:
        LimitError: The budget is smaller than what must be in the file.
        UsageError: The options contradict each other.
    """
    search = _Search.of(vector, names, options, draft, reserve)
    whole = search.candidates(math.inf, progress) if search.may_hold_all else None
    if whole is not None:
        task = draft(_exact(vector, whole.tensors), whole.norms)
        if search.size(task) <= search.limit:
            task = replace(task, recipe=replace(task.recipe, values="exact"))
            return search.marked(task, search.size(without_entries(task)), 1.0)
    for margin in _MARGINS:
        found = search.candidates(margin, progress, whole=whole)
        fitted = search.fit(found)
        if fitted.size >= LEAST_FULL * search.limit:
            break
    task = draft(fitted.tensors, found.norms)
    task = search.marked(task, fitted.fixed, share_kept(task, found.tensors))
    if options.values is None and fitted.size < LEAST_FULL * search.limit:
        finer = (_finer(search, found, values) for values in _FINER)
        task = max([task, *finer], key=lambda each: (each.budget and each.budget.energy) or 0.0)
    return task


def _finer(search: "_Search", found: Candidates, values: str) -> SparseTaskVector:
    """What fits of all candidates at an encoding of more than 256 magnitudes."""
    named = replace(search, options=replace(search.options, values=values))
    fitted = named.fit(found)
    task = named.draft(fitted.tensors, found.norms)
    task = replace(task, recipe=replace(task.recipe, values=values))
    return named.marked(task, fitted.fixed, share_kept(task, found.tensors))


@dataclass(frozen=True, slots=True, eq=False)
class _Search:
    """What is known before both checkpoints are read: a size, and what a sample of the task vector looks like."""

    vector: TaskVector
    names: tuple[str, ...]
    options: PackOptions
    draft: Draft
    reserve: int
    ask: Ask
    limit: int
    guessed: Histograms
    entries: Reals
    weights: Reals

    @classmethod
    def of(
        cls, vector: TaskVector, names: tuple[str, ...], options: PackOptions, draft: Draft, reserve: int
    ) -> "_Search":
        ask = check_budget(options)
        guessed, squares = sample(vector, names)
        entries = np.array([float(vector.base.numel(name)) for name in names])
        weights, limit = importance(names, squares, options), limit_of(ask, vector.finetuned)
        return cls(vector, names, options, draft, reserve, ask, limit, guessed, entries, weights)

    @property
    def room(self) -> float:
        """Bits for entries, about."""
        return 8.0 * max(self.limit - self.reserve, 1)

    @property
    def may_hold_all(self) -> bool:
        """Whether all entries that changed may fit, exactly."""
        changed = float(self.guessed.counts[:, 0].sum())
        return self.options.values is None and changed * _CHANGED < self.room

    def candidates(self, margin: float, progress: Progress | None, *, whole: Candidates | None = None) -> Candidates:
        """Entries that a budget `margin` times as large would keep, by the sample, and a little more.

        They are taken out of all that changed, where that was read before.
        """
        bound = np.zeros(len(self.names))
        if math.isfinite(margin):
            bound = self._stock({}).plan(self.guessed, self.room * margin).least * _SPARE
        least = np.where(np.isfinite(bound), bound, self.guessed.top())
        bounds = dict(zip(self.names, least.tolist(), strict=True))
        if whole is not None:
            return replace(whole, tensors={name: above(whole.tensors[name], bounds[name]) for name in bounds})
        return collect(self.vector, bounds, progress=progress)

    def fit(self, found: Candidates) -> Fitted:
        """What of the candidates fills the file."""
        return fit(self._stock(found.tensors), lambda some: self.size(self.draft(some, found.norms)), limit=self.limit)

    def _stock(self, tensors: Tensors) -> Stock:
        values = self.options.values
        if values is None:
            return Stock(tensors, self.entries, self.weights)

        def stored(some: Tensors) -> Tensors:
            return quantize(_exact(self.vector, some), values)

        return Stock(tensors, self.entries, self.weights, stored, _GUESS[values])

    def size(self, task: SparseTaskVector) -> int:
        """Bytes of a task's file when all is in it, a few too many."""
        told = Budget(self.ask.text, self.ask.of, self.limit, self.limit, 0.123456)
        return measure(replace(task, budget=told)) + self.reserve + _SLACK

    def marked(self, task: SparseTaskVector, fixed: int, share: float) -> SparseTaskVector:
        """The task with what was asked for, what it must hold, and the share of the energy that it keeps."""
        return replace(task, budget=Budget(self.ask.text, self.ask.of, self.limit, fixed, share))


def importance(names: tuple[str, ...], squares: Reals, options: PackOptions) -> Reals:
    """What a squared error counts in each tensor: by allocation, times what the options say of its name."""
    moved = np.where(squares > 0, squares, 1.0)
    own = {"global": np.ones(len(moved)), "tensor": 1 / moved, "balanced": 1 / np.sqrt(moved)}[options.shared]
    factors = [
        math.prod(factor for glob, factor in options.importance.items() if fnmatchcase(name, glob)) for name in names
    ]
    idle = [glob for glob in options.importance if not any(fnmatchcase(name, glob) for name in names)]
    if idle:
        raise UsageError(f"no tensor of the scope is called {idle[0]!r}; importance takes globs over tensor names")
    if not all(1e-30 < factor < 1e30 for factor in factors):
        raise UsageError("an importance must lie between 1e-30 and 1e30")
    scaled: Reals = own * np.array(factors)
    return scaled


def share_kept(task: SparseTaskVector, exact: Mapping[str, SparseTensor]) -> float:
    """Share of the task vector's squared norm that a task's values keep; `exact` has the deltas."""
    deltas = {}
    for name, tensor in task.tensors.items():
        whole = exact[name]
        deltas[name] = whole.values[np.searchsorted(whole.positions, tensor.positions)]
    return energy(task.tensors, deltas, math.fsum(norm.l2**2 for norm in task.norms.values()))


def _exact(vector: TaskVector, tensors: Tensors) -> Tensors:
    return {name: gather_tensor(vector, name, tensor.positions) for name, tensor in tensors.items()}


def without_entries(task: SparseTaskVector) -> SparseTaskVector:
    """A task's file without what is kept."""
    empty = {name: SparseTensor(t.dtype, t.shape, t.positions[:0], t.values[:0]) for name, t in task.tensors.items()}
    return replace(task, tensors=empty)
