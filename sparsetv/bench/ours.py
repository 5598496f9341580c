"""Sparse stitching as a merge method: tasks packed into files, stitched from the files."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch

from sparsetv.bench.lab import Lab
from sparsetv.bench.method import Maker, Merged
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.compose.base import Base, base_of
from sparsetv.compose.files import other_files
from sparsetv.compose.mix import Mix, mix
from sparsetv.compose.stitch import Patcher
from sparsetv.compose.undo import Undo
from sparsetv.dtypes import to_float32
from sparsetv.errors import UsageError
from sparsetv.examples.reading import Example, read_examples
from sparsetv.jobs.options import StitchOptions
from sparsetv.jobs.stitch import activate
from sparsetv.rules import find_rule


def stitched(kind: str, scale: str, *, rule: str = "mean") -> Maker:
    """Stitching files of a kind at a scale; scale `fit` takes 64 labelled examples per class of every task."""
    return partial(_stitched, kind=kind, scale=scale, rule=rule)


def _stitched(lab: Lab, names: Sequence[str], *, kind: str, scale: str, rule: str) -> Merged:
    tasks = [lab.packed(name, kind) for name in names]
    checkpoint = open_checkpoint(lab.suite.base)
    base = base_of(checkpoint, other_files(checkpoint.location.directory))
    examples = {name: _train(lab, name) for name in names} if scale == "fit" else {}
    options = StitchOptions(rule=rule, scale=scale, fit=examples, device=lab.device)
    combination = find_rule(rule, min_tasks=2)
    active = activate(base, tasks, options, combination, lab.progress)
    deltas = merged_deltas(base, mix(active, rule=combination, scale=scale))
    stored = sum(lab.file(name, kind).stat().st_size for name in names)
    return Merged(dict.fromkeys(names, deltas), {"kind": kind, "scale": scale, "rule": rule}, stored)


def _train(lab: Lab, name: str) -> list[Example]:
    task = lab.suite.task(name)
    if not task.train:
        raise UsageError(f"{name}: the suite names no train data, which scale `fit` needs")
    return read_examples(task.train, labelled=False, columns=task.columns)


def merged_deltas(base: Base, mixed: Mix) -> Mapping[str, torch.Tensor]:
    """Stitched minus base, float32, of every tensor that a task touches."""
    patcher, found = Patcher(base, mixed, Undo()), {}
    for name in sorted({name for item in mixed.active for name in item.task.tensors}):
        patch, entry = patcher(name), base.entries[name]
        if patch is not None:
            change = to_float32(patch.after, entry.dtype) - to_float32(patch.before, entry.dtype)
            delta = np.zeros(int(np.prod(entry.shape)), np.float32)
            delta[patch.positions] = change
            found[name] = torch.from_numpy(delta).reshape(entry.shape)
    return found
