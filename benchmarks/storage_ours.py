"""Rows of our own encodings: bytes of the written file, error, speed on one thread, distance from the entropy."""

import shutil
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.entropy import codecs_of, floor_of
from benchmarks.lossless import Times, jobs_of, timed
from benchmarks.storage_pairs import Pair
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.container.writer import encode
from sparsetv.difference import TaskVector
from sparsetv.jobs.archive import archive_to
from sparsetv.jobs.archived import verify_archive
from sparsetv.jobs.inspect import Summary, inspect
from sparsetv.jobs.options import PackOptions, StitchOptions
from sparsetv.jobs.pack import pack
from sparsetv.jobs.stitch import stitch
from sparsetv.jobs.verify import verify
from sparsetv.localize.scope import Scope
from sparsetv.packing.gather import gather_tensor
from sparsetv.quantize.named import VALUES
from sparsetv.task_vector import SparseTaskVector
from sparsetv.taskfile import read_task, write_task

DENSITY = 0.01
BUDGETS = ("0.15%", "0.5%", "1%")
EXACT, MASK, LOSSY, WHOLE = "exact kept values", "mask only", "lossy", "lossless whole"
"""Fidelity: kept weights bit for bit; which entries are kept; an error; every weight bit for bit."""


@dataclass(frozen=True, slots=True)
class Job:
    """One encoding of ours: its row's name, what is packed, and how often it is timed."""

    name: str
    options: PackOptions
    rounds: int = 3

    @property
    def exact(self) -> bool:
        """Whether kept weights must come back bit for bit."""
        return self.options.values == "exact"


def jobs(pair: Pair) -> list[Job]:
    """What is measured on a pair, `exact` first."""
    fixed = [Job(values, PackOptions(density=DENSITY, values=values)) for values in VALUES]
    if not pair.everything:
        return fixed[:1]
    drawn = Job("exact, random mask", PackOptions(density=DENSITY, values="exact", localizer="random"), rounds=1)
    return [*fixed, drawn, *(budget_job(budget, "body") for budget in BUDGETS)]


def budget_job(budget: str, scope: str) -> Job:
    """Packing to a size."""
    options = PackOptions(budget=budget, allocation="tensor", scope=Scope.parse([scope]))
    return Job(f"budget {budget} of fp32", options, rounds=1)


def row(pair: Pair, job: Job, room: Path) -> dict[str, Any]:
    """Pack, write, check, measure."""
    file = room / "task.stv"
    task = pack(pair.base, pair.finetuned, name=pair.name, options=job.options)
    write_task(file, task)
    verify(file, base=pair.base, finetuned=pair.finetuned)
    summary, times = inspect(file), timed(_work(pair, job, task, file), rounds=job.rounds)
    return {
        "by": "sparsetv",
        "name": job.name,
        "fidelity": EXACT if job.exact else LOSSY,
        "kept_entries": summary.kept_entries,
        "bytes": file.stat().st_size,
        "core_bytes": summary.sizes.core,
        "percent_of_scope": percent(summary.sizes.core, summary.scope_bytes),
        "percent_of_checkpoint": percent(file.stat().st_size, pair.checkpoint_bytes),
        "bits_per_entry": {key: round(value, 2) for key, value in summary.bits.items()},
        "codecs": codecs_of(task.tensors, seed=task.drawn),
        "over_entropy": floor_of(task.tensors, seed=task.drawn).ratios(),
        **_fidelity(pair, job, task, file, room),
        **_speeds(pair, times),
        **_share_packed(summary),
    }


def archive_row(pair: Pair, room: Path) -> dict[str, Any]:
    """The whole fine-tune without loss, of tensors that both sides have."""
    base, finetuned = room / "base", room / "finetuned"
    with tempfile.TemporaryDirectory(dir=room) as temporary:
        work = Path(temporary)
        size = archive_to(work / "kept.stv", base, finetuned).file_bytes
        verify_archive(work / "kept.stv", base=base, finetuned=finetuned)
        times = timed(jobs_of(base, finetuned, work), rounds=1)
    whole = (finetuned / "model.safetensors").stat().st_size
    return {
        "by": "sparsetv",
        "name": "archive",
        "fidelity": WHOLE,
        "bytes": size,
        "percent_of_checkpoint": percent(size, whole),
        "error": 0.0,
        **_speeds(pair, {"pack": times["archive"], "decode": times["restore"]}),
    }


def same_bytes(pair: Pair, size: int) -> dict[str, Any]:
    """What packing all tensors to a lossy peer's size loses of the task vector."""
    job = budget_job(str(size), "all")
    task = pack(pair.base, pair.finetuned, name=pair.name, options=job.options)
    core = encode(task).size
    if task.budget is None or task.budget.energy is None:
        raise SystemExit("a budget was asked for and is not in the task")
    return {"bytes": core, "error": round(1 - task.budget.energy, 6)}


def _work(pair: Pair, job: Job, task: SparseTaskVector, file: Path) -> dict[str, Callable[[], Any]]:
    return {
        "pack": lambda: write_task(
            file.with_suffix(".again"), pack(pair.base, pair.finetuned, name=pair.name, options=job.options)
        ),
        "codec": lambda: encode(task).tobytes(),
        "decode": lambda: read_task(file),
    }


def _speeds(pair: Pair, times: dict[str, Times]) -> dict[str, Any]:
    size = pair.checkpoint_bytes
    return {
        "megabytes_per_second": {way: round(size / statistics.median(t.processor) / 1e6) for way, t in times.items()},
        "megabytes_per_second_by_the_clock": {
            way: round(size / statistics.median(t.wall) / 1e6) for way, t in times.items()
        },
    }


def _share_packed(summary: Summary) -> dict[str, Any]:
    return {} if summary.budget is None else {"energy_kept": summary.budget["energy"]}


def _fidelity(pair: Pair, job: Job, task: SparseTaskVector, file: Path, room: Path) -> dict[str, Any]:
    vector = pair.vector()
    if job.exact:
        return {"error": 0.0, "kept_bits_equal": _kept_bits_equal(pair, vector, file, room)}
    return {"error": kept_error(vector, task)}


def kept_error(vector: TaskVector, task: SparseTaskVector) -> float:
    """Squared error of stored values over the squared norm of the kept deltas."""
    error = norm = 0.0
    for name, tensor in task.tensors.items():
        exact = gather_tensor(vector, name, tensor.positions).values.astype(np.float64)
        error += float(np.square(tensor.values - exact).sum())
        norm += float(np.square(exact).sum())
    return float(f"{error / norm:.3g}")


def _kept_bits_equal(pair: Pair, vector: TaskVector, file: Path, room: Path) -> int:
    """Stitch at scale 1 and count kept weights that are the fine-tune's bits on disk; all of them, or it fails."""
    out = room / "out"
    stitch(pair.base, [file], out, options=StitchOptions(scale="none"))
    merged, task = open_checkpoint(out), read_task(file)
    equal = 0
    for name, tensor in task.tensors.items():
        other = vector.finetuned_name(name)
        stitched = merged.bits(other if other in merged else name)[tensor.positions]
        equal += int((stitched == vector.target_bits(name, tensor.positions)).sum())
    shutil.rmtree(out)
    if equal != task.nnz:
        raise SystemExit(f"{pair.title}: {task.nnz - equal} kept weights are not the fine-tune's")
    return equal


def percent(part: int, whole: int) -> float:
    """Share in percent, four digits after the point."""
    return round(100 * part / whole, 4)
