"""Running base, fine-tune and graft once, to find and store the scale that brings the skill back."""

import math
from dataclasses import replace

from sparsetv.checkpoint.reading import Checkpoint
from sparsetv.compose.base import base_of
from sparsetv.compose.weights import Carrier
from sparsetv.difference import TaskVector
from sparsetv.jobs.models import frame, graft, task_model, whole_model
from sparsetv.progress import Progress
from sparsetv.task_vector import Probe, SparseTaskVector

CEILING = 1.1
"""`match` gives at most this times the scale `graft`, which is near the best after AdamW and too large after SGD.

Without a ceiling the worst of five fine-tunes lost 0.022 accuracy against its best scale, with this one 0.015.
"""

_ENTRY = 320
"""Bytes of header and manifest that a probe takes."""

AUTO_BYTES = 4 << 30
"""Fine-tunes above this size are probed only when asked: three copies in float32 must fit in memory."""


def add_probe(
    task: SparseTaskVector,
    base: Checkpoint,
    finetuned: Checkpoint,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> SparseTaskVector:
    """The task with its `match` scale and the fine-tune's outputs on seeded random inputs.

    Raises:
        ProbeError: The models cannot be built or run.
    """
    from sparsetv.calibrate.match import match  # noqa: PLC0415  torch only where a model runs
    from sparsetv.objective.setup import choose_setup  # noqa: PLC0415

    view = base_of(base, {})
    plain = task_model(view, task, None)
    setup = choose_setup(plain, frame=frame(finetuned), seed=seed)
    found = match(
        plain,
        task_model(view, task, graft(view, task, 1.0)),
        whole_model(task, finetuned),
        setup,
        ceiling=CEILING * math.sqrt(math.prod(task.norm_ratios())),
        progress=None if progress is None else lambda done, total: progress("match", done, total),
    )
    probe = Probe(
        kind=setup.kind,
        seed=setup.seed,
        count=setup.count,
        params=setup.params,
        recorded=found.target.recorded,
        outputs=found.target.outputs,
        scale=found.scale,
        distance=found.distance,
    )
    return replace(task, probe=probe)


def probe_bytes(vector: TaskVector, task: Carrier) -> int:
    """About what a probe will take of a file, found by running the fine-tune on one input.

    Raises:
        ProbeError: The models cannot be built or run.
    """
    from sparsetv.calibrate.forward import answers  # noqa: PLC0415
    from sparsetv.objective.setup import COUNT, choose_setup  # noqa: PLC0415

    plain = task_model(base_of(vector.base, {}), task, None)
    outputs = answers(whole_model(task, vector.finetuned), choose_setup(plain, count=1)).outputs
    return outputs.nbytes * COUNT + _ENTRY


def graft_distance(task: SparseTaskVector, vector: TaskVector, probe: Probe) -> float:
    """How far a task at scale 1 is from its fine-tune on a probe's inputs, relative to the base.

    Raises:
        ProbeError: The models cannot be built or run.
    """
    from sparsetv.calibrate.match import distance  # noqa: PLC0415  torch only where a model runs
    from sparsetv.objective.setup import Setup  # noqa: PLC0415

    view = base_of(vector.base, {})
    reached = task_model(view, task, graft(view, task, 1.0))
    models = task_model(view, task, None), reached, whole_model(task, vector.finetuned)
    return distance(*models, Setup(probe.kind, probe.seed, probe.count, probe.params))
