"""Scales for several tasks together, from their files alone: no data, no fine-tuned checkpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparsetv.arrays import Bits
from sparsetv.belonging import touched
from sparsetv.compose.base import Base
from sparsetv.dtypes import bits_dtype
from sparsetv.errors import ProbeError, UsageError
from sparsetv.jobs.models import graft, task_model, task_processor
from sparsetv.progress import Progress
from sparsetv.rules import Rule
from sparsetv.scales import resolve_scale
from sparsetv.task_vector import SparseTaskVector

if TYPE_CHECKING:
    import torch
    from torch import nn

    from sparsetv.calibrate.joint import Member
    from sparsetv.examples.encoding import Batch
    from sparsetv.examples.reading import Example
    from sparsetv.objective.loss import Inputs

    Given = str | Path | Sequence[Example]

BATCH_SIZE = 16


def match_tasks(
    base: Base,
    tasks: Sequence[SparseTaskVector],
    *,
    rule: Rule,
    weights: Mapping[str, float] | None = None,
    data: "Mapping[str, Given] | None" = None,
    steps: int | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, tuple[float, Mapping[str, float]]]:
    """Scale and factors per tensor of every task, such that the merged model answers as each task alone does.

    Each task alone, at its own scale on the base, is the teacher; inputs are random, seeded by the tasks' probes, or
    given. With labelled examples, the loss is the task's own. On examples one scale per task is found, without factors:
    a few examples are too few for more.

    Args:
        base: The base.
        tasks: Tasks whose files hold a probe.
        rule: How they combine.
        weights: Weight per task, 1 where absent.
        data: Examples per task, 64 per class of which are used; all tasks or none.
        steps: Steps of fitting; None for the default.
        device: Where models run.
        progress: Reports steps.

    Raises:
        ProbeError: A task has no probe, or its model cannot be built or run.
        UsageError: Examples for some tasks only, or for one that is not there; or a weight that is not above 0, since a
            task that is negated or left out is not to answer well.
    """
    from sparsetv.calibrate.joint import STEPS, Fit, fit  # noqa: PLC0415  torch only where a model runs
    from sparsetv.objective.device import find_device  # noqa: PLC0415

    ordered = sorted(tasks, key=lambda task: task.digest())
    places = find_device(device)
    given, count = weights or {}, steps or STEPS
    if data and data.keys() != {task.name for task in tasks}:
        odd = min(data.keys() ^ {task.name for task in tasks})
        raise UsageError(f"scale `fit` needs examples for each task and no other, which is not so of {odd!r}")
    odd_weights = sorted(name for name, weight in given.items() if not weight > 0)
    if odd_weights:
        raise UsageError(
            f"{odd_weights[0]} has weight {given[odd_weights[0]]:g}, but scales found together need weights above 0; "
            "use another --scale"
        )
    members = [
        _member(base, ordered, task, given.get(task.name, 1.0), count, places, data[task.name] if data else None)
        for task in ordered
    ]
    found: Fit = fit(members, rule=rule, per_tensor=not data, steps=count, progress=progress)
    return {task.name: pair for task, pair in zip(ordered, zip(found.scales, found.factors, strict=True), strict=True)}


def _member(
    base: Base,
    tasks: Sequence[SparseTaskVector],
    task: SparseTaskVector,
    weight: float,
    steps: int,
    device: "torch.device",
    data: "Given | None" = None,
) -> "Member":
    from sparsetv.calibrate.joint import Member, correlation_loss  # noqa: PLC0415
    from sparsetv.objective.body import Body  # noqa: PLC0415
    from sparsetv.objective.distil import with_targets  # noqa: PLC0415
    from sparsetv.objective.loss import Objective  # noqa: PLC0415

    model = task_model(base, task, None).to(device)
    start = resolve_scale(task, "auto", company=2)[1]
    batches = _inputs(task, steps) if data is None else _examples(base, model, task, data)
    if all("labels" in batch for batch in batches):
        objective = Objective(model, batches)
    else:
        scale = resolve_scale(task, "auto", company=1)[1]
        teacher = task_model(base, task, graft(base, task, scale)).to(device)
        objective = Objective(model, with_targets(teacher, batches), correlation_loss)
    names = sorted({name for one in tasks for name in touched(one)})
    # What only other tasks' classes have does not touch this one's answers.
    body = Body(_Reader(base), names, objective, needed=touched(task))
    return Member(body, task.tensors, weight, start)


@dataclass(frozen=True, slots=True)
class _Reader:
    """A stitched base as the live scope reads it."""

    base: Base

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self.base.entries))

    def shape(self, name: str) -> tuple[int, ...]:
        return self.base.entries[name].shape

    def dtype(self, name: str) -> str:
        return self.base.entries[name].dtype

    def bits(self, name: str) -> Bits:
        return self.base.raw(name).view(bits_dtype(self.dtype(name)))


def _examples(base: Base, model: "nn.Module", task: SparseTaskVector, data: "Given") -> "list[Batch]":
    from sparsetv.examples.encoding import encode  # noqa: PLC0415
    from sparsetv.examples.reading import read_examples  # noqa: PLC0415
    from sparsetv.examples.sampling import sample  # noqa: PLC0415

    chosen = sample(read_examples(data, labelled=False) if isinstance(data, str | Path) else data)
    processor = task_processor(base.files, task, images=chosen[0].kind == "image")
    if len(chosen) > BATCH_SIZE and len(chosen) % BATCH_SIZE == 1:
        chosen.pop()  # one example alone says nothing of direction
    return encode(model, processor, chosen, batch_size=BATCH_SIZE)


def _inputs(task: SparseTaskVector, count: int) -> "Sequence[Inputs]":
    """Random inputs of the kind that the task's probe has."""
    from sparsetv.objective.noise import Noise  # noqa: PLC0415
    from sparsetv.objective.setup import Setup  # noqa: PLC0415

    probe = task.probe
    if probe is None:
        raise ProbeError(f"{task.name} was packed without a probe, so its inputs are not known; use `--scale l2`")
    return Noise(Setup(probe.kind, probe.seed, probe.count, probe.params), batches=count, batch_size=BATCH_SIZE)
