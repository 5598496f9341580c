"""Refitting a packed task's values against the fine-tune's own outputs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sparsetv.budget.fit import Stock, fit
from sparsetv.container.writer import measure
from sparsetv.csr import SparseTensor
from sparsetv.difference import TaskVector
from sparsetv.errors import ProbeError, UsageError
from sparsetv.fingerprint import digest
from sparsetv.jobs.learning import make_objective
from sparsetv.jobs.options import PackOptions, RefitOptions
from sparsetv.jobs.probe import graft_distance
from sparsetv.localize.scope import Scope
from sparsetv.progress import Progress
from sparsetv.task_vector import Probe, SparseTaskVector

if TYPE_CHECKING:
    from sparsetv.objective.body import Body

_SLACK = 32
"""Bytes that training the magnitudes of a fitted file may add."""


def refit_task(
    task: SparseTaskVector,
    vector: TaskVector,
    *,
    options: PackOptions,
    how: RefitOptions,
    progress: Progress | None = None,
) -> SparseTaskVector:
    """The task with values to be used at scale 1, trained from what it holds at its `match` scale.

    Args:
        task: What was packed, with its probe.
        vector: Base and fine-tune.
        options: Seed, and how models run.
        how: What the values are trained on, and for how long.
        progress: Reports steps.

    Raises:
        ProbeError: The task has no probe, or its models cannot be trained.
        UsageError: Its values are rounded ones.
    """
    values = task.recipe.values
    if values not in {"exact", "sign"}:
        raise UsageError(f"refitting starts from values `exact` or `sign`, not `{values}`; it rounds by itself")
    trainer = _Trainer.of(task, vector, options, how)
    scales = _starts(task, trainer.probe.scale)
    tensors = trainer.run(task.tensors, scales, how.steps, shared=values == "sign", progress=progress)
    recipe = replace(task.recipe, values="sign-refit" if values == "sign" else "refit")
    return trainer.finished(replace(task, tensors=tensors, recipe=recipe))


def refit_within(
    task: SparseTaskVector,
    vector: TaskVector,
    *,
    options: PackOptions,
    how: RefitOptions,
    progress: Progress | None = None,
) -> SparseTaskVector:
    """The task with trained values of few magnitudes, so that its file fits the budget.

    Values are trained freely; then the budget chooses anew which of them to keep and how finely, as it does with
    deltas; then the magnitudes that are left are trained.

    Args:
        task: What was packed for a larger budget, with its probe and the real budget.
        vector: Base and fine-tune.
        options: Seed, and how models run.
        how: What the values are trained on, and for how long.
        progress: Reports steps.

    Raises:
        LimitError: The budget is smaller than what must be in the file.
        ProbeError: The task has no probe, or its models cannot be trained.
    """
    if task.budget is None:
        raise UsageError(f"{task.name} was packed without a budget")
    most = task.budget.bytes
    trainer = _Trainer.of(task, vector, options, how)
    free = trainer.run(task.tensors, _starts(task, trainer.probe.scale), how.steps, progress=progress)
    recipe = replace(task.recipe, values="budget-refit")
    task = replace(task, recipe=recipe, probe=replace(trainer.probe, scale=1.0))
    entries = np.array([float(tensor.numel) for tensor in free.values()])
    stock = Stock(free, entries, np.ones(len(free)))
    limit = most - 2 * _SLACK

    def draft(tensors: Mapping[str, SparseTensor]) -> SparseTaskVector:
        return replace(task, tensors=dict(tensors))

    found = fit(stock, lambda tensors: measure(draft(tensors)), limit=limit).tensors
    shared = trainer.run(found, dict.fromkeys(found, 1.0), how.polish, shared=True, progress=progress)
    done = draft(shared)
    if measure(done) + _SLACK > most:
        done = draft(found)
    touched = digest(vector.base.identity(name) for name, tensor in done.tensors.items() if tensor.nnz)
    base, recipe = replace(done.base, touched=touched), replace(recipe, density=done.density)
    return trainer.finished(replace(done, base=base, recipe=recipe))


@dataclass(frozen=True, slots=True)
class _Trainer:
    """Models, batches and a loss for the values of one task."""

    vector: TaskVector
    how: RefitOptions
    probe: Probe
    body: "Body"

    @classmethod
    def of(cls, task: SparseTaskVector, vector: TaskVector, options: PackOptions, how: RefitOptions) -> "_Trainer":
        from sparsetv.objective.body import Body  # noqa: PLC0415  torch only where a model runs

        if task.probe is None:
            raise ProbeError(f"{task.name} has no probe, so there is no scale to start from; refitting needs one")
        learn = replace(
            options.learn,
            data=how.data, shots=how.shots, target="finetuned", batch_size=how.batch_size, batches=how.steps,
        )  # fmt: skip
        objective = make_objective(vector, task, learn, seed=options.seed)
        return cls(vector, how, task.probe, Body(vector.base, tuple(task.tensors), objective))

    def run(
        self,
        tensors: Mapping[str, SparseTensor],
        scales: Mapping[str, float],
        steps: int,
        *,
        shared: bool = False,
        progress: Progress | None = None,
    ) -> dict[str, SparseTensor]:
        """Trained tensors, to be used at scale 1."""
        from sparsetv.calibrate.refit import refit  # noqa: PLC0415

        rate = self.how.rate
        return refit(
            self.body, tensors, scales=scales, shared=shared, steps=steps, rate=rate, progress=progress
        ).tensors  # fmt: skip

    def finished(self, task: SparseTaskVector) -> SparseTaskVector:
        """The task with the distance that is left at scale 1."""
        distance = graft_distance(task, self.vector, self.probe)
        return replace(task, probe=replace(self.probe, scale=1.0, distance=distance))


def _starts(task: SparseTaskVector, scale: float) -> dict[str, float]:
    """Where values start: at the `match` scale in the blocks, at the length of the whole task vector elsewhere."""
    blocks = set(Scope("blocks").covered(task.tensors))
    starts = {}
    for name, tensor in task.tensors.items():
        kept = float(np.sqrt(np.square(tensor.values, dtype=np.float64).sum()))
        starts[name] = scale if name in blocks or not kept else task.norms[name].l2 / kept
    return starts
