"""Accuracy of real fine-tunes after packing: base, fine-tuned, grafted at every scale, stitched.

    python -m benchmarks.recovery MODELS TASKS [--room DIR] [--budget]

MODELS is the folder that `unpack.py` makes, TASKS the folder of test sets. Every accuracy is cached in the room, so a
run that was stopped goes on where it was. `best` is the best scale of a grid **on the test set**: a bound that no
honest rule can use. Writes benchmarks/results/recovery.json; with `--budget` accuracy against bytes instead
(benchmarks/recovery_budget.py).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks import recovery_budget
from benchmarks.common import Cache, write_result
from benchmarks.data import ADAMW, SGD, Sentences
from benchmarks.sentences import arguments, room_of
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.compose.base import base_of
from sparsetv.compose.mix import Active, mix
from sparsetv.compose.stitch import Patcher
from sparsetv.compose.undo import Undo
from sparsetv.evaluation.classify import accuracy
from sparsetv.examples.reading import read_examples
from sparsetv.jobs.evaluate import load
from sparsetv.jobs.models import task_model
from sparsetv.jobs.options import PackOptions
from sparsetv.jobs.pack import pack_files
from sparsetv.rules import Rule
from sparsetv.scales import resolve_scale
from sparsetv.task_vector import SparseTaskVector
from sparsetv.taskfile import read_task, write_task

GRID = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 16.0, 20.0)
POLICIES = ("none", "l2", "graft", "match")
_MAX_LENGTH = 64


class Bench:
    """Packs, grafts, stitches and evaluates, with every accuracy cached."""

    def __init__(self, sentences: Sentences, room: Path) -> None:
        """Set up in a room."""
        self._data = sentences
        self._room = room
        self._cache = Cache(room / "accuracy.json")

    def file(self, name: str, density: float, values: str) -> Path:
        """Where the packed task lies."""
        return self._room / f"{name}-{density}-{values}.stv"

    def checkpoint_bytes(self, name: str) -> int:
        """Bytes of the fine-tune's weights."""
        return (self._data.finetuned(name) / "model.safetensors").stat().st_size

    def task(self, name: str, density: float, values: str) -> SparseTaskVector:
        """The packed task, with its probe."""
        file = self.file(name, density, values)
        if not file.exists():
            options = PackOptions(density=density, values=values, probe=True)
            write_task(file, pack_files(self._data.base(), self._data.finetuned(name), options=options))
        return read_task(file)

    def finetuned(self, name: str) -> float:
        """Accuracy of the fine-tune itself."""
        return self._cache.get(
            f"{name} finetuned", lambda: self._score(load(self._data.finetuned(name), None)[0], name)
        )

    def base(self, name: str, task: SparseTaskVector) -> float:
        """Accuracy of the base under the fine-tune's head."""
        view = base_of(open_checkpoint(self._data.base()), {})
        return self._cache.get(f"{name} base", lambda: self._score(task_model(view, task, None), name))

    def graft(self, name: str, task: SparseTaskVector, key: str, scale: float) -> float:
        """Accuracy of one task on the base at a scale."""
        return self._cache.get(
            f"{name} {key} graft {scale:.5g}", lambda: self._merged([Active(task, 1.0, "number", scale)], task, name)
        )

    def stitched(self, name: str, tasks: Sequence[SparseTaskVector], own: SparseTaskVector, key: str) -> float:
        """Accuracy on one task of all tasks stitched at `l2`."""
        active = [Active(task, 1.0, *resolve_scale(task, "l2", company=len(tasks))) for task in tasks]
        return self._cache.get(f"{name} {key} stitched", lambda: self._merged(active, own, name))

    def _merged(self, active: list[Active], own: SparseTaskVector, name: str) -> float:
        view = base_of(open_checkpoint(self._data.base()), {})
        patcher = Patcher(view, mix(active, rule=Rule(), scale="l2"), Undo())
        return self._score(task_model(view, own, patcher), name)

    def _score(self, model: nn.Module, name: str) -> float:
        from transformers import AutoTokenizer  # noqa: PLC0415

        tokenizer = AutoTokenizer.from_pretrained(self._data.base())
        return accuracy(model, tokenizer, read_examples(self._data.test(name)), max_length=_MAX_LENGTH).value


def measure(bench: Bench, density: float, values: str) -> list[dict[str, Any]]:
    """One row per fine-tune."""
    tasks = {name: bench.task(name, density, values) for name in (*ADAMW, *SGD)}
    company = {
        **{name: [tasks[other] for other in ADAMW] for name in ADAMW},
        "TREC-sgd": [tasks[other] for other in ("CR", "SST2", "SUBJ", "TREC-sgd")],
    }
    rows = []
    for name, task in tasks.items():
        size = {
            "file_bytes": bench.file(name, density, values).stat().st_size,
            "checkpoint_bytes": bench.checkpoint_bytes(name),
        }
        rows.append({**_row(bench, name, task, company[name], f"{density:g} {values}"), **size})
    return rows


def _row(bench: Bench, name: str, task: SparseTaskVector, company: list[SparseTaskVector], key: str) -> dict[str, Any]:
    scales = {policy: resolve_scale(task, policy, company=1)[1] for policy in POLICIES}
    grafts = {policy: bench.graft(name, task, key, scale) for policy, scale in scales.items()}
    grid = {scale: bench.graft(name, task, key, scale) for scale in GRID}
    best = max(grid, key=lambda scale: (grid[scale], -scale))
    return {
        "task": name,
        "optimizer": "SGD" if name in SGD else "AdamW",
        "base": bench.base(name, task),
        "finetuned": bench.finetuned(name),
        "scales": {policy: round(scale, 3) for policy, scale in scales.items()},
        "grafted": grafts,
        "best_scale": best,
        "best": max(grid[best], *grafts.values()),
        "stitched": bench.stitched(name, company, task, key),
        "grid": {f"{scale:g}": value for scale, value in grid.items()},
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Normalised accuracy and share of the gap closed, averaged over AdamW and over SGD fine-tunes."""
    result: dict[str, Any] = {}
    for optimizer in ("AdamW", "SGD"):
        chosen = [row for row in rows if row["optimizer"] == optimizer]
        columns = {policy: [row["grafted"][policy] for row in chosen] for policy in POLICIES}
        columns |= {"best": [row["best"] for row in chosen], "stitched": [row["stitched"] for row in chosen]}
        result[optimizer] = {
            column: {
                "normalised": _mean([value / row["finetuned"] for value, row in zip(values, chosen, strict=True)]),
                "gap_closed": _mean(
                    [
                        (value - row["base"]) / (row["finetuned"] - row["base"])
                        for value, row in zip(values, chosen, strict=True)
                    ]
                ),
            }
            for column, values in columns.items()
        }
    return result


def _mean(numbers: list[float]) -> float:
    return round(sum(numbers) / len(numbers), 4)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--budget", action="store_true", help="accuracy against bytes of the file")
    args = parser.parse_args()
    if args.budget:
        with room_of(args) as room:
            recovery_budget.run(args.models, args.tasks, room)
        return
    with room_of(args) as room:
        bench = Bench(Sentences(args.models, args.tasks), room)
        settings = []
        for density, values in ((0.01, "exact"), (0.01, "sign"), (0.05, "sign")):
            rows = measure(bench, density, values)
            settings.append({"density": density, "values": values, "rows": rows, "summary": summary(rows)})
    write_result("recovery", {"max_length": _MAX_LENGTH, "rule": "mean", "stitched_scale": "l2", "settings": settings})
    for setting in settings:
        print(setting["density"], setting["values"], json.dumps(setting["summary"], indent=1))


if __name__ == "__main__":
    main()
