"""Experiment: how much of a fine-tune's skill each kind of file gives back alone, at every scale (Tables 7 to 9)."""

from collections.abc import Sequence
from functools import partial

import torch

from sparsetv.bench.kinds import LOSSLESS
from sparsetv.bench.lab import Lab, left_out
from sparsetv.bench.subject import Subject
from sparsetv.merging.vectors import Tensors
from sparsetv.results import Recorder
from sparsetv.scales import resolve_scale, tensor_factors
from sparsetv.task_vector import SparseTaskVector

KINDS = ("0.15% budget", "1% budget", "1% exact", "1% sign", "5% exact", "1% learned")
SCALES = ("none", "l2", "match")


def recovery(lab: Lab, *, kinds: Sequence[str] = ()) -> None:
    """Graft every file at every scale; rows `{task, kind, scale}` in `recovery.jsonl`.

    Files with a budget are used at their own scale (`match`), refitted ones as they are.
    """
    recorder = lab.recorder("recovery")
    for task in lab.suite.tasks:
        subject = lab.subject(task.name)
        for kind, deltas in (("base", {}), ("finetuned", None)):
            of = {"task": task.name, "kind": kind, "scale": ""}
            recorder.measure(of, partial(subject.row, deltas))
        for kind in kinds or KINDS:
            if kind == LOSSLESS:
                continue  # it is the fine-tune
            with left_out(lab, f"{task.name}, {kind}", never=bool(kinds)):
                grafts(lab, recorder, subject, kind)


def grafts(lab: Lab, recorder: Recorder, subject: Subject, kind: str) -> None:
    """Rows of one fine-tune's file."""
    name = subject.task.name
    for scale in scales_of(kind):
        of = {"task": name, "kind": kind, "scale": scale}
        row = recorder.measure(of, lambda s=scale: _grafted(lab, subject, kind, s))  # type: ignore[misc]
        lab.say(f"{name}, {kind}, {scale}: {row['value']:.3f}")


def scales_of(kind: str) -> tuple[str, ...]:
    """Scales that a kind of file is tried at."""
    word = kind.split()[1]
    return ("match",) if word == "budget" else ("none",) if word == "refit" else SCALES


def _grafted(lab: Lab, subject: Subject, kind: str, scale: str) -> dict[str, object]:
    task = lab.packed(subject.task.name, kind)
    wanted = "l2" if scale == "match" and task.probe is None else scale
    policy, factor = resolve_scale(task, wanted, company=1)
    size = lab.file(subject.task.name, kind).stat().st_size
    told = {"factor": factor, "policy": policy, "file_bytes": size, "density": task.density}
    return {**subject.row(graft(task, policy, factor)), **told}


def graft(task: SparseTaskVector, policy: str, factor: float) -> Tensors:
    """A task's kept deltas at a scale, dense, by base name."""
    factors = tensor_factors(task, policy)
    return {
        name: torch.from_numpy(tensor.to_dense()) * (factor * factors.get(name, 1.0))
        for name, tensor in task.tensors.items()
        if tensor.nnz
    }
