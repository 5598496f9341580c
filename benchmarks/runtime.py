"""Time and memory of pack and stitch at roberta-base shape, against floors measured in the same run.

    python -m benchmarks.runtime [--room DIR] [--rounds N]

Floors: for pack one plain pass that reads both files and subtracts them in chunks; for stitch a copy of the base file
with fsync. All files are in the page cache. Needs 2 GB of disk. Writes benchmarks/results/runtime.json.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import write_result
from sparsetv.atomic import write_new_file
from sparsetv.bench.cost import interleaved, median, peak_memory
from sparsetv.jobs.options import PackOptions, StitchOptions
from sparsetv.jobs.pack import pack
from sparsetv.jobs.stitch import stitch
from sparsetv.taskfile import write_task
from sparsetv.wire.header import encode_header, place

CHUNK = 1 << 22
BUDGET = "0.15%"


def shapes() -> dict[str, tuple[int, ...]]:
    """Tensors of roberta-base (RobertaModel): 124.6 M entries."""
    hidden, inner = 768, 3072
    found: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (50265, hidden),
        "embeddings.position_embeddings.weight": (514, hidden),
        "embeddings.token_type_embeddings.weight": (1, hidden),
        "embeddings.LayerNorm.weight": (hidden,),
        "embeddings.LayerNorm.bias": (hidden,),
        "pooler.dense.weight": (hidden, hidden),
        "pooler.dense.bias": (hidden,),
    }
    for layer in range(12):
        start = f"encoder.layer.{layer}."
        for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            found[f"{start}{part}.weight"], found[f"{start}{part}.bias"] = (hidden, hidden), (hidden,)
        found[f"{start}intermediate.dense.weight"], found[f"{start}intermediate.dense.bias"] = (inner, hidden), (inner,)
        found[f"{start}output.dense.weight"], found[f"{start}output.dense.bias"] = (hidden, inner), (hidden,)
        for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
            found[f"{start}{norm}.weight"], found[f"{start}{norm}.bias"] = (hidden,), (hidden,)
    return dict(sorted(found.items()))


def generate(room: Path) -> tuple[Path, Path]:
    """Write a base and a dense fine-tune of it, seeded; skipped where they exist."""
    base, finetuned = room / "base", room / "finetuned"
    if (finetuned / "model.safetensors").exists():
        return base, finetuned
    rng = np.random.default_rng(0)
    weights = {
        name: rng.standard_normal(np.prod(shape), np.float32) * np.float32(0.04) for name, shape in shapes().items()
    }
    for directory, change in ((base, 0.0), (finetuned, 1e-3)):
        directory.mkdir(parents=True)
        tensors = {n: w + np.float32(change) * rng.standard_normal(len(w), np.float32) for n, w in weights.items()}
        _save(directory / "model.safetensors", tensors)
    return base, finetuned


def _save(path: Path, tensors: dict[str, np.ndarray]) -> None:
    stored = place((name, "F32", shapes()[name]) for name in tensors)
    write_new_file(path, [encode_header(stored, {"format": "pt"}), *(data.view(np.uint8) for data in tensors.values())])


def plain_pass(base: Path, finetuned: Path) -> float:
    """Read both files and subtract them in chunks; the floor of pack."""
    total = 0.0
    with (base / "model.safetensors").open("rb") as first, (finetuned / "model.safetensors").open("rb") as second:
        while data := first.read(CHUNK):
            other = second.read(CHUNK)
            even = len(data) // 4 * 4
            deltas = np.frombuffer(other[:even], np.float32) - np.frombuffer(data[:even], np.float32)
            total += float(deltas[0])
    return total


def copy_with_fsync(base: Path, target: Path) -> None:
    """Copy the base file and sync it; the floor of stitch."""
    shutil.copyfile(base / "model.safetensors", target)
    descriptor = os.open(target, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def clear(room: Path) -> None:
    """Remove what the jobs write, and let the disk finish, so that no job pays for the one before."""
    shutil.rmtree(room / "out", ignore_errors=True)
    for name in ("copy.safetensors", "task.stv"):
        (room / name).unlink(missing_ok=True)
    os.sync()


def peak_of(job: str, room: Path) -> int:
    """Peak anonymous memory of a job above that of a fresh process with everything imported, in bytes."""
    command = [sys.executable, "-m", "benchmarks.runtime", "--room", str(room), "--peak", job]
    shown = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(shown.stdout.strip())


def print_peak(job: str, room: Path) -> None:
    """Run a job once in this process and print the anonymous memory that it took."""
    shutil.rmtree(room / "out", ignore_errors=True)
    with peak_memory() as peak:
        if job == "pack":
            pack(room / "base", room / "finetuned", options=PackOptions(density=0.01))
        else:
            stitch(room / "base", [room / "kept.stv"], room / "out", options=StitchOptions(scale="none"))
    print(peak.grown)


def help_seconds() -> float:
    """Median seconds of `sparsetv --help` as a process."""
    command = [str(Path(sys.executable).parent / "sparsetv"), "--help"]
    times = interleaved({"help": lambda: subprocess.run(command, check=True, capture_output=True)}, rounds=7)
    return median(times["help"])


def measure(room: Path, rounds: int) -> dict[str, object]:
    """All figures."""
    base, finetuned = generate(room)
    options, sized = PackOptions(density=0.01), PackOptions(budget=BUDGET)
    task = pack(base, finetuned, options=options)
    size = write_task(room / "kept.stv", task)
    seconds = interleaved(
        {
            "plain_pass": lambda: plain_pass(base, finetuned),
            "pack": lambda: write_task(room / "task.stv", pack(base, finetuned, options=options)),
            "pack_budget": lambda: write_task(room / "budget.stv", pack(base, finetuned, options=sized)),
            "copy_with_fsync": lambda: copy_with_fsync(base, room / "copy.safetensors"),
            "stitch": lambda: stitch(base, [room / "kept.stv"], room / "out", options=StitchOptions(scale="none")),
        },
        rounds=rounds,
        before=lambda: clear(room),
    )
    peaks = {job: peak_of(job, room) for job in ("pack", "stitch")}
    kept = task.nnz
    times = {name: median(values) for name, values in seconds.items()}
    return {
        "entries": sum(int(np.prod(shape)) for shape in shapes().values()),
        "kept_entries": kept,
        "file_bytes": size,
        "rounds": rounds,
        "seconds": times,
        "seconds_all": {name: [round(value, 3) for value in values] for name, values in seconds.items()},
        "pack_over_plain_pass": round(times["pack"] / times["plain_pass"], 2),
        "budget": BUDGET,
        "budget_file_bytes": (room / "budget.stv").stat().st_size,
        "budget_over_pack": round(times["pack_budget"] / times["pack"], 2),
        "stitch_over_copy": round(times["stitch"] / times["copy_with_fsync"], 2),
        "pack_peak_bytes": peaks["pack"],
        "pack_peak_limit_bytes": 300_000_000 + 24 * kept,
        "stitch_peak_bytes": peaks["stitch"],
        "help_seconds": help_seconds(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--room", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peak", choices=["pack", "stitch"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        print_peak(args.peak, args.room)
        return
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        result = measure(args.room or Path(temporary), args.rounds)
    write_result("runtime", result)
    for key, value in result.items():
        print(f"{key:26} {value}")
    print(f"{'benchmark took':26} {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
