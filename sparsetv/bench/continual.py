"""Experiment: task after task is added to a merge: accuracy over the tasks so far, and the time of each step (Fig. 9).

A dense merge starts from scratch at every step, tuning included. Sparse stitching packs the new task alone; unless its
scales are found together, it then adds one file. Continual training goes on from the step before.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from sparsetv.atomic import write_file
from sparsetv.bench.cost import cost, settle
from sparsetv.bench.lab import Lab
from sparsetv.bench.merge import checked
from sparsetv.bench.methods import METHODS, choose
from sparsetv.bench.sequence import train_next
from sparsetv.durable import make_directory
from sparsetv.merging.vectors import Tensors

CHOSEN = ("arithmetic-tuned", "ties-tuned", "consensus-arithmetic", "consensus-ties", "continual", "stitch-5",
          "stitch-5-scaled", "stitch-1-joint", "stitch-learned")  # fmt: skip
FIRST = 2
"""Tasks of the first step."""


def continual(lab: Lab, *, methods: Sequence[str] = ()) -> None:
    """Add the merged tasks one by one; rows `{method, step}` in `continual.jsonl`, step n with n tasks."""
    names, chosen = checked(lab), choose(methods, default=CHOSEN)
    recorder = lab.recorder("continual")
    for key in chosen:
        own = _own_room(lab, key)
        for step in range(FIRST, len(names) + 1):
            row = recorder.measure(
                {"method": key, "step": step},
                lambda k=key, r=own, n=names[:step]: _step(r, k, n),  # type: ignore[misc]
            )
            lab.say(f"{key}, {step} tasks: {row['average']:.3f} after {row['seconds']:.1f} s")


def _own_room(lab: Lab, key: str) -> Lab:
    """The lab with a room of its own, so that no method finds files that another has packed; models are shared."""
    return replace(lab, room=lab.room / "continual" / key)


def _step(lab: Lab, key: str, names: Sequence[str]) -> dict[str, Any]:
    """One step: what is new since the step before is made anew."""
    shutil.rmtree(lab.files(names[-1]), ignore_errors=True)  # of a run that was stopped in this very step
    for name in names:
        lab.subject(name).prepare()  # models and data are there before the clock starts, for every method
    settle()
    with cost() as spent:
        deltas = _trained(lab, names) if key == "continual" else METHODS[key].make(lab, names).deltas[names[0]]
    values = {name: lab.subject(name).score(deltas) for name in names}
    return {
        "label": METHODS[key].label,
        "data": METHODS[key].data,
        "tasks": list(names),
        "values": {name: round(value, 6) for name, value in values.items()},
        "average": round(sum(values.values()) / len(values), 6),
        "normalised": lab.normalised(values),
        **vars(spent),
    }


def _trained(lab: Lab, names: Sequence[str]) -> Tensors:
    """Training goes on where the step before ended, if there was one."""
    before, after = (_file(lab.room, count) for count in (len(names) - 1, len(names)))
    deltas: Mapping[str, torch.Tensor] = load_file(before) if before.exists() else {}
    for name in names[-1:] if before.exists() else names:
        deltas = train_next(lab, deltas, name)
    make_directory(after.parent)
    write_file(after, [save(dict(deltas))])
    return deltas


def _file(room: Path, count: int) -> Path:
    return room / f"after-{count}.safetensors"
