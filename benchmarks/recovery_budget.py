"""Accuracy of real fine-tunes against bytes of their files: `python -m benchmarks.recovery --budget`.

Every kind of file is packed to every size; whole test sets, matrix products in bfloat16. Files and scores are kept in
the room, so a run that was stopped goes on. Writes benchmarks/results/recovery_budget.json and budget.svg.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, Cache, write_result
from benchmarks.data import ADAMW, SGD, Sentences
from benchmarks.sentences import MAX_LENGTH, dense, subject, summarise
from sparsetv.jobs.learning import Learn
from sparsetv.jobs.options import PackOptions, RefitOptions
from sparsetv.jobs.pack import pack_files
from sparsetv.localize.scope import Scope
from sparsetv.scales import resolve_scale
from sparsetv.task_vector import SparseTaskVector
from sparsetv.taskfile import read_task, write_task

BUDGETS = (0.1, 0.15, 0.25, 0.5, 1.0, 2.0)
"""Percent of the fp32 checkpoint."""

PAPER: dict[str, Any] = {"allocation": "global", "scope": Scope("blocks")}
"""One threshold for the transformer blocks, as in Localize-and-Stitch."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How files are packed, the scale they are used at, and their sizes."""

    options: PackOptions
    scale: str
    budgets: tuple[float, ...]


KINDS = {
    "budget": Kind(PackOptions(), "match", BUDGETS),
    "exact, no scale": Kind(PackOptions(values="exact", **PAPER), "none", (0.15, 0.5, 2.0)),
    "exact": Kind(PackOptions(values="exact", **PAPER), "match", (0.15, 0.5, 2.0)),
    "absolute errors": Kind(PackOptions(**PAPER), "match", (0.15, 0.5)),
    "budget, refit": Kind(PackOptions(refit=RefitOptions()), "none", (0.15,)),
}
"""`budget` is the default; trained files take minutes each."""


def measure(data: Sentences, room: Path) -> list[dict[str, Any]]:
    """One row per kind, size and fine-tune."""
    cache, rows = Cache(room / "budget.json"), []
    for kind, how in KINDS.items():
        for budget in how.budgets:
            for name in (*ADAMW, *SGD):
                file = _packed(data, room, name, budget, kind.removesuffix(", no scale"), how.options)
                task, live = read_task(file), subject(data, name)
                scale = resolve_scale(task, how.scale, company=1)[1]
                score = cache.get(f"{kind} {budget} {name}", lambda s=live, t=task, c=scale: s.score(dense(t, c)))  # type: ignore[misc]
                rows.append({
                    "kind": kind, "budget": budget, "task": name, "accuracy": score,
                    "base": cache.get(f"base {name}", lambda s=live: s.floor),  # type: ignore[misc]
                    "finetuned": cache.get(f"fine-tuned {name}", lambda s=live: s.ceiling),  # type: ignore[misc]
                    "checkpoint_bytes": (data.finetuned(name) / "model.safetensors").stat().st_size,
                    **_told(task, file, scale),
                })  # fmt: skip
    return rows


def _packed(data: Sentences, room: Path, name: str, budget: float, kind: str, options: PackOptions) -> Path:
    title = kind.replace(", ", "-").replace(" ", "-")
    file = room / f"{name}-{budget:g}-{title}.stv"
    if not file.exists():
        learn = Learn(precision="bf16", max_length=MAX_LENGTH)
        chosen = replace(options, budget=f"{budget:g}%", probe=True, learn=learn)
        write_task(file, pack_files(data.base(), data.finetuned(name), name=name, options=chosen))
    return file


def _told(task: SparseTaskVector, file: Path, scale: float) -> dict[str, Any]:
    budget = task.budget
    if budget is None or file.stat().st_size > budget.bytes:
        raise SystemExit(f"{file}: larger than its budget")
    return {
        "file_bytes": file.stat().st_size, "budget_bytes": budget.bytes, "energy": budget.energy,
        "density": task.density, "scale": scale,
    }  # fmt: skip


def averages(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per kind and size: bytes, and scores over AdamW, SGD and all fine-tunes."""
    found = []
    for kind, budget in dict.fromkeys((row["kind"], row["budget"]) for row in rows):
        mine = [row for row in rows if (row["kind"], row["budget"]) == (kind, budget)]
        groups = {"AdamW": ADAMW, "SGD": SGD, "all": (*ADAMW, *SGD)}
        scores = {
            group: summarise((row["accuracy"], row["base"], row["finetuned"]) for row in mine if row["task"] in names)
            for group, names in groups.items()
        }
        size = round(sum(row["file_bytes"] for row in mine) / len(mine))
        found.append({"kind": kind, "budget": budget, "file_bytes": size, **scores})
    return found


def draw(summary: list[dict[str, Any]], path: Path) -> None:
    """Normalised accuracy over all fine-tunes against the size of the file."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    mpl.rcParams["svg.hashsalt"] = "sparsetv"
    figure, axes = plt.subplots(figsize=(7, 3.6))
    for kind in KINDS:
        points = [each for each in summary if each["kind"] == kind]
        line = [each["budget"] for each in points], [each["all"]["normalised"] for each in points]
        axes.plot(*line, marker="o", markersize=4, linewidth=2 if kind.startswith("budget") else 1, label=kind)
    axes.axhline(1, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_xticks(BUDGETS, [f"{budget:g} %" for budget in BUDGETS])
    axes.minorticks_off()
    axes.set_xlabel("file, of the fp32 checkpoint")
    axes.set_ylabel("accuracy / fine-tuned accuracy")
    axes.set_ylim(0.6, 1.02)
    axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def run(models: Path, tasks: Path, room: Path) -> None:
    """Measure, write results and picture."""
    rows = measure(Sentences(models, tasks), room)
    summary = averages(rows)
    write_result("recovery_budget", {"precision": "bf16", "rows": rows, "summary": summary})
    draw(summary, RESULTS / "budget.svg")
    for each in summary:
        print(each["kind"], each["budget"], each["file_bytes"], each["AdamW"], each["SGD"], each["all"])
