"""Refitting a packed task's values against the fine-tune's own outputs."""

from dataclasses import replace

import numpy as np

from sparsetv.difference import TaskVector
from sparsetv.errors import ProbeError
from sparsetv.jobs.learning import make_objective
from sparsetv.jobs.options import PackOptions, RefitOptions
from sparsetv.jobs.probe import graft_distance
from sparsetv.localize.scope import Scope
from sparsetv.progress import Progress
from sparsetv.task_vector import SparseTaskVector


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
    """
    from sparsetv.calibrate.refit import refit  # noqa: PLC0415  torch only where a model runs
    from sparsetv.objective.body import Body  # noqa: PLC0415

    if task.probe is None:
        raise ProbeError(f"{task.name} has no probe, so there is no scale to start from; refitting needs one")
    learn = replace(
        options.learn, data=how.data, shots=how.shots, target="finetuned", batch_size=how.batch_size, batches=how.steps
    )
    objective = make_objective(vector, task, learn, seed=options.seed)
    signs = task.recipe.values == "sign"
    found = refit(
        Body(vector.base, tuple(task.tensors), objective),
        task.tensors,
        scales=_starts(task, task.probe.scale),
        signs=signs,
        steps=how.steps,
        rate=how.rate,
        progress=progress,
    )
    recipe = replace(task.recipe, values="sign-refit" if signs else "refit")
    done = replace(task, tensors=found.tensors, recipe=recipe)
    return replace(done, probe=replace(task.probe, scale=1.0, distance=graft_distance(done, vector, task.probe)))


def _starts(task: SparseTaskVector, scale: float) -> dict[str, float]:
    """Where values start: at the `match` scale in the blocks, at the length of the whole task vector elsewhere."""
    blocks = set(Scope("blocks").covered(task.tensors))
    starts = {}
    for name, tensor in task.tensors.items():
        kept = float(np.sqrt(np.square(tensor.values, dtype=np.float64).sum()))
        starts[name] = scale if name in blocks or not kept else task.norms[name].l2 / kept
    return starts
