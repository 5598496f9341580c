"""Several real fine-tunes in one body: ours at every scale beside dense merging on the same checkpoints.

    python -m benchmarks.recovery_merged MODELS TASKS [--room DIR]

Each task is scored with its own head on its own test set, matrix products in bfloat16. Dense methods merge every shared
tensor; task arithmetic and TIES get the best coefficient of a grid **on the test sets**, which no rule without data
has.
Results are cached in the room. Writes benchmarks/results/recovery_merged.json.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import Cache, write_result
from benchmarks.data import ADAMW, Sentences
from benchmarks.sentences import Subject, arguments, packed, room_of, summarise
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.compose.base import base_of
from sparsetv.compose.mix import Active, mix
from sparsetv.compose.stitch import Patcher
from sparsetv.compose.undo import Undo
from sparsetv.jobs.joint import match_tasks
from sparsetv.rules import Rule
from sparsetv.scales import resolve_scale, tensor_factors
from sparsetv.task_vector import SparseTaskVector

Tensors = dict[str, torch.Tensor]
SETS: dict[str, tuple[str, ...]] = {"4 AdamW": ADAMW}
FILES = ("1% exact", "5% exact", "1% refit", "5% refit")
SCALES = ("none", "l2", "l2-tensor", "joint")
ALPHAS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
LAMBDAS = (0.8, 1.0, 1.2, 1.5)


def average(vectors: Sequence[Tensors]) -> Tensors:
    """Simple average of the checkpoints."""
    return {name: torch.stack([v[name] for v in vectors]).mean(dim=0) for name in vectors[0]}


def total(vectors: Sequence[Tensors]) -> Tensors:
    """Task arithmetic at coefficient 1 (Ilharco et al., arXiv:2212.04089)."""
    return {name: torch.stack([v[name] for v in vectors]).sum(dim=0) for name in vectors[0]}


def ties(vectors: Sequence[Tensors], *, keep: float = 0.2) -> Tensors:
    """TIES: keep the top 20 % of each, elect signs, mean of those that agree (Yadav et al., arXiv:2306.01708)."""
    trimmed = []
    for vector in vectors:
        flat = torch.cat([tensor.abs().reshape(-1) for tensor in vector.values()])
        least = flat.topk(round(keep * flat.numel())).values[-1]
        trimmed.append({name: torch.where(tensor.abs() >= least, tensor, 0.0) for name, tensor in vector.items()})
    merged = {}
    for name in vectors[0]:
        stacked = torch.stack([vector[name] for vector in trimmed])
        agree = (stacked.sign() == stacked.sum(dim=0).sign()) & (stacked != 0)
        merged[name] = (stacked * agree).sum(dim=0) / agree.sum(dim=0).clamp(min=1)
    return merged


class Bench:
    """Files, merges and scores, cached by key."""

    def __init__(self, sentences: Sentences, room: Path) -> None:
        """Set up in a room."""
        self._data, self._room = sentences, room
        self._cache = Cache(room / "merged.json")
        self._subjects: dict[str, Subject] = {}

    def subject(self, name: str) -> Subject:
        """A fine-tune's live model."""
        if name not in self._subjects:
            self._subjects[name] = Subject(self._data, name)
        return self._subjects[name]

    def task(self, name: str, kind: str) -> SparseTaskVector:
        """A packed file of a kind of `FILES`."""
        return packed(self._data, self._room, name, kind)

    def score(
        self, key: str, names: Sequence[str], merge: Callable[[], Mapping[str, torch.Tensor]]
    ) -> dict[str, float]:
        """Accuracy per task of what `merge` gives: merged minus base by base name."""
        deltas: list[Mapping[str, torch.Tensor]] = []

        def one(name: str) -> float:
            if not deltas:
                deltas.append(merge())
            return self.subject(name).accuracy(deltas[0])

        return {name: self._cache.get(f"{key}: {name}", partial(one, name)) for name in names}

    def ours(self, label: str, names: Sequence[str], kind: str, scale: str, rule: str) -> dict[str, float]:
        """Accuracy per task of tasks stitched."""

        def merge() -> Mapping[str, torch.Tensor]:
            tasks = [self.task(name, kind) for name in names]
            base = base_of(open_checkpoint(self._data.base()), {})
            if scale == "joint":
                found = match_tasks(base, tasks, rule=Rule(rule))
                active = [Active(task, 1.0, "joint", *found[task.name]) for task in tasks]
            else:
                active = []
                for task in tasks:
                    policy, number = resolve_scale(task, scale, company=len(tasks))
                    active.append(Active(task, 1.0, policy, number, tensor_factors(task, policy)))
            return self._dense(base, active, rule)

        return self.score(f"{label}, {kind}, {scale}, {rule}", names, merge)

    def _dense(self, base: Any, active: list[Active], rule: str) -> Mapping[str, torch.Tensor]:
        patcher = Patcher(base, mix(active, rule=Rule(rule), scale="number"), Undo())
        merged = {}
        for name in sorted({name for item in active for name in item.task.tensors}):
            patch = patcher(name)
            if patch is not None:
                delta = torch.zeros(base.entries[name].shape).reshape(-1)
                change = patch.after.view("f4") - patch.before.view("f4")
                delta[torch.from_numpy(patch.positions)] = torch.from_numpy(change)
                merged[name] = delta.reshape(base.entries[name].shape)
        return merged


def measure(bench: Bench, label: str, names: Sequence[str]) -> dict[str, Any]:
    """All merges of one set of fine-tunes."""
    vectors = [bench.subject(name).deltas for name in names]
    rows: dict[str, Any] = {}

    def add(key: str, scores: dict[str, float]) -> None:
        rows[key] = {
            "accuracy": scores,
            **summarise((scores[n], bench.subject(n).floor, bench.subject(n).ceiling) for n in names),
        }
        print(f"{label}, {key}: {rows[key]}", flush=True)

    add("simple average", bench.score(f"{label}, average", names, lambda: average(vectors)))
    for alpha in ALPHAS:
        key = f"task arithmetic, {alpha:g}"
        add(key, bench.score(f"{label}, {key}", names, lambda a=alpha: _times(total(vectors), a)))  # type: ignore[misc]
    for factor in LAMBDAS:
        key = f"TIES, {factor:g}"
        add(key, bench.score(f"{label}, {key}", names, lambda f=factor: _times(ties(vectors), f)))  # type: ignore[misc]
    for kind in FILES:
        for scale in SCALES:
            add(f"{kind}, {scale}", bench.ours(label, names, kind, scale, "mean"))
    return rows


def _times(vector: Tensors, factor: float) -> Tensors:
    return {name: tensor * factor for name, tensor in vector.items()}


def main() -> None:
    args = arguments(__doc__).parse_args()
    with room_of(args) as room:
        bench = Bench(Sentences(args.models, args.tasks), room)
        sets = {label: measure(bench, label, names) for label, names in SETS.items()}
    write_result("recovery_merged", {"precision": "bf16", "rule": "mean", "sets": sets})


if __name__ == "__main__":
    main()
