"""Refitting a packed task's values against the fine-tune's own outputs."""

from dataclasses import replace

from sparsetv.difference import TaskVector
from sparsetv.errors import ProbeError
from sparsetv.jobs.learning import make_objective
from sparsetv.jobs.options import PackOptions, RefitOptions
from sparsetv.progress import Progress
from sparsetv.task_vector import SparseTaskVector

REFITTED = "refit"
"""What a recipe calls values that were refitted."""


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
        Body(vector, tuple(task.tensors), objective),
        task.tensors,
        scale=task.probe.scale,
        signs=signs,
        steps=how.steps,
        rate=how.rate,
        progress=progress,
    )
    return replace(
        task,
        tensors=found.tensors,
        probe=replace(task.probe, scale=1.0),
        recipe=task.recipe if signs else replace(task.recipe, values=REFITTED),
    )
