"""Made-up results of every experiment, shaped as `sparsetv bench` writes them; no figure in them was measured."""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

TASKS = ("SST-2", "CR", "MR", "MPQA", "TREC", "SUBJ", "QNLI", "SNLI", "MNLI", "RTE", "MRPC", "QQP")
METHODS = (
    ("average", "simple average", "none", "dataless", 0.55),
    ("arithmetic", "task arithmetic, 0.4", "none", "dataless", 0.6),
    ("ties", "TIES, top 20 %", "none", "dataless", 0.66),
    ("stitch-5", "stitch, 5 %, unscaled (the paper, dataless)", "none", "ours", 0.72),
    ("stitch-1-joint", "stitch, 1 %, `joint`", "none", "ours", 0.8),
    ("ties-tuned", "TIES, tuned", "32 labelled examples per class and task, to tune on", "data", 0.7),
    ("regmean", "RegMean", "1,600 inputs per task", "data", 0.74),
    ("stitch-learned", "stitch, learned 1 %, unscaled (the paper)", "64 labelled examples per class", "ours", 0.84),
)  # fmt: skip
KINDS = (
    ("0.15% budget", ("match",), 745_000, 0.9),
    ("1% exact", ("none", "l2", "match"), 4_100_000, 0.93),
    ("1% sign", ("none", "l2", "match"), 1_300_000, 0.88),
    ("5% exact", ("none", "l2", "match"), 19_800_000, 0.97),
)

Row = dict[str, Any]


class Maker:
    """Plausible rows, the same for a seed."""

    def __init__(self, tasks: Sequence[str] = TASKS, *, seed: int = 0) -> None:
        self.tasks = tasks
        self._random = random.Random(seed)
        self.base = {task: round(self._random.uniform(0.2, 0.6), 6) for task in tasks}
        self.finetuned = {task: round(self._random.uniform(0.72, 0.96), 6) for task in tasks}

    def all(self) -> dict[str, list[Row]]:
        """Rows by experiment."""
        names = ("storage", "recovery", "merge", "groups", "density", "shots", "retention", "continual", "runtime")
        return {name: list(getattr(self, name)()) for name in names}

    def storage(self) -> Iterator[Row]:
        for kind, size in (*((kind, size) for kind, _, size, _ in KINDS), ("lossless", 231_000_000)):
            for task in self.tasks:
                entries = None if kind == "lossless" else 850_000
                bits = None if entries is None else {"positions": 5.1, "values": 24.9, "rest": 0.112}
                yield {"of": {"task": task, "kind": kind}, "file_bytes": size + self._random.randrange(90_000),
                       "checkpoint_bytes": 498_612_824, "fp32_bytes": 498_600_000,
                       "scope_bytes": None if entries is None else 340_000_000, "kept": entries, "bits": bits,
                       "seconds": round(self._random.uniform(1, 9), 3), "peak_bytes": 64_000_000}  # fmt: skip

    def recovery(self) -> Iterator[Row]:
        yield from self._references({}, "kind", {"scale": ""})
        for kind, scales, size, share in KINDS:
            for number, scale in enumerate(scales):
                for task in self.tasks:
                    told = {"factor": 1.0 + 0.31 * number, "policy": scale, "file_bytes": size, "density": 0.01}
                    yield {
                        "of": {"task": task, "kind": kind, "scale": scale},
                        **self._score(task, share + 0.02 * number),
                        **told,
                    }

    def merge(self) -> Iterator[Row]:
        yield from self._merged({"set": "all"}, self.tasks)

    def groups(self) -> Iterator[Row]:
        yield from self._merged({"set": "similar"}, self.tasks[:3])
        yield from self._merged({"set": "dissimilar"}, self.tasks[1:5])

    def density(self) -> Iterator[Row]:
        yield from self._references({"set": "all", "density": 0.0}, "method", {})
        for method, best in (("stitch", 0.05), ("stitch-joint", 0.01), ("stitch-learned", 0.01)):
            for density in (0.001, 0.003, 0.01, 0.05, 0.2):
                of = {"set": "all", "density": density, "method": method}
                share = 0.8 - 0.1 * abs(len(str(density)) - len(str(best)))
                yield from ({"of": {**of, "task": task}, **self._score(task, share)} for task in self.tasks)
                yield {"of": {**of, "task": ""}, "label": method, "data": "none", "settings": {}, "stored_bytes": 1000}

    def shots(self) -> Iterator[Row]:
        yield from self._references({"set": "all", "shots": 0}, "method", {})
        for shots in (0, 8, 32, 128, 512):
            of = {"set": "all", "shots": shots, "method": "stitch-learned" if shots else "stitch"}
            share = 0.7 + shots / 2560
            yield from ({"of": {**of, "task": task}, **self._score(task, share)} for task in self.tasks)
            data = f"{shots} labelled examples per class and task" if shots else "none"
            yield {"of": {**of, "task": ""}, "label": f"1% learned {shots} shots", "data": data, "settings": {}}

    def retention(self) -> Iterator[Row]:
        for held in self.tasks:
            for key, label, _, _, share in METHODS:
                kept = 0.9 - 0.2 * share + self._random.uniform(-0.02, 0.02)
                yield {"of": {"method": key, "held_out": held}, "label": label, "retained": round(kept * 0.8, 6),
                       "base": 0.8, "merged_average": round(share, 6)}  # fmt: skip

    def continual(self) -> Iterator[Row]:
        for key, label, data, _, share in METHODS:
            for step in range(2, len(self.tasks) + 1):
                names = self.tasks[:step]
                values = {task: self._score(task, share + (0.2 - share / 5) / step)["value"] for task in names}
                ratios = [values[task] / self.finetuned[task] for task in names]
                yield {"of": {"method": key, "step": step}, "label": label, "data": data, "tasks": list(names),
                       "values": values, "average": sum(values.values()) / step, "normalised": sum(ratios) / step,
                       "seconds": round(self._random.uniform(0.5, 200), 3), "peak_bytes": 900_000_000}  # fmt: skip

    def runtime(self) -> Iterator[Row]:
        reading = "read all checkpoints once"
        for what, floor, seconds in ((reading, None, 0.8), ("copy the base with fsync", None, 0.26),
                                     ("stitch", "copy the base with fsync", 0.6)):  # fmt: skip
            yield {"of": {"what": what}, "label": what, "data": "none", "floor": floor, "seconds": seconds,
                   "seconds_all": [seconds, seconds + 0.1], "peak_bytes": None}  # fmt: skip
        for number, (key, label, data, _, _) in enumerate(METHODS):
            yield {"of": {"what": key}, "label": label, "data": data, "floor": reading, "seconds": 0.9 * 3**number,
                   "seconds_all": [0.9 * 3**number], "peak_bytes": 2_400_000_000, "tasks": len(self.tasks)}  # fmt: skip

    def _merged(self, of: Row, tasks: Sequence[str]) -> Iterator[Row]:
        yield from (row for row in self._references(of, "method", {}) if row["of"]["task"] in tasks)
        for key, label, data, group, share in METHODS:
            yield from ({"of": {**of, "method": key, "task": task}, **self._score(task, share)} for task in tasks)
            yield {"of": {**of, "method": key, "task": ""}, "label": label, "data": data, "group": group,
                   "settings": {"coefficient": 0.4} if group == "dataless" else {}, "seconds": 3.2,
                   "published": 0.734 if key == "stitch-5" else None,
                   "stored_bytes": 49_000_000 if group == "ours" else None, "peak_bytes": 1_200_000_000}  # fmt: skip

    def _references(self, of: Row, name: str, more: Row) -> Iterator[Row]:
        for key, scores in (("base", self.base), ("finetuned", self.finetuned)):
            for task, value in scores.items():
                yield {
                    "of": {**of, name: key, "task": task, **more},
                    "value": value,
                    "metric": self._metric(task),
                    "examples": 872,
                }

    def _score(self, task: str, share: float) -> Row:
        noise = self._random.uniform(-0.05, 0.05)
        value = self.base[task] + (share + noise) * (self.finetuned[task] - self.base[task])
        return {"value": round(value, 6), "metric": self._metric(task), "examples": 872}

    @staticmethod
    def _metric(task: str) -> str:
        return "f1" if task == "MRPC" else "accuracy"


def header(bench: str, tasks: Sequence[str] = TASKS) -> Row:
    """What the first line says."""
    told = [
        {"name": task, "finetuned": task, "metric": "accuracy", "kind": "classify", "sha256": "ab" * 32}
        for task in tasks
    ]
    paper = {"merge": {"Localize-and-Stitch": {"average": 0.759}}, "note": "arXiv:2408.13656, Table 2"}
    suite = {"name": "glue-like", "about": "A made-up suite of twelve tasks", "seed": 0, "precision": "fp32",
             "base": {"name": "roberta-base", "sha256": "cd" * 32}, "tasks": told,
             "paper": paper}  # fmt: skip
    machine = {"processor": "A processor @ 2.0 GHz", "cores": 2, "memory_gib": 8, "python": "3.12.1"}
    return {"format": 1, "bench": bench, "suite": suite, "settings": {"limit": None}, "machine": machine,
            "versions": {"sparsetv": "0.1.0", "torch": "2.13.0"}}  # fmt: skip


def write_results(folder: Path, rows: dict[str, list[Row]], tasks: Sequence[str] = TASKS) -> Path:
    """A folder of results."""
    folder.mkdir(parents=True, exist_ok=True)
    for bench, own in rows.items():
        lines = [header(bench, tasks), *own]
        (folder / f"{bench}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
