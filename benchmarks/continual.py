"""Time to add a task to those in force, for 1 to 50 tasks in memory, against stitching and merging all of them anew.

    python -m benchmarks.continual [--room DIR] [--tasks N] [--rounds N] [--peers PYTHON] [--again]

roberta-base shape; each task keeps 1 % of every tensor at random positions. Beside it, in the same run: all tasks put
onto a fresh copy of the base in memory, `sparsetv stitch` to disk, a mergekit merge of three of the tasks as dense
checkpoints, and reloading the base from its file (page cache warm). mergekit runs in an environment of its own in the
room, unless `--peers` names the Python of one. Parts that are done stay in the room and are taken from there when the
benchmark is started again with the same code and settings; `--again` measures them anew. Needs 10 GB of memory and
6 GB of disk. Writes benchmarks/results/continual.json.
"""

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from benchmarks.common import part, summary, write_result
from benchmarks.peers_environment import PeersError, peers_python, run, versions
from benchmarks.peers_mergekit import command as merge_command
from benchmarks.peers_mergekit import largest_difference, program, recipe, save_dense
from benchmarks.runtime import copy_with_fsync
from benchmarks.synthetic import Tensors, base_directory, base_fingerprint, content, load_base, task
from sparsetv import Composer, SparseTaskVector, StitchOptions, stitch, write_task
from sparsetv.bench.cost import anonymous_bytes, interleaved, median, settle

SCALE = 0.5
FEW = 10
"""How many of the first and of the last additions are averaged, and the smaller number of tasks stitched anew."""
MERGED = 3
GOAL = 1.3
METHODS = ("task_arithmetic", "ties")


@dataclass(frozen=True, slots=True)
class Settings:
    """What is measured.

    Attributes:
        room: Where files go.
        tasks: Number of tasks.
        rounds: How often all but the additions are repeated.
        peers: Python of the peers' environment; None to make one.
    """

    room: Path
    tasks: int
    rounds: int
    peers: Path | None

    @property
    def sizes(self) -> list[int]:
        """Numbers of tasks that are stitched anew in memory."""
        return sorted({min(FEW, self.tasks), self.tasks})


def adding(settings: Settings) -> dict[str, Any]:
    """Add the tasks one by one, then remove them one by one in random order."""
    base = load_base(settings.room)
    fingerprint, before = base_fingerprint(base), content(base)
    composer = Composer(base, rule="mean", scale=SCALE, verify="meta")
    start, milliseconds, kept, bits = settled_memory(), [], 0, {}
    for number in range(settings.tasks):
        made = task(fingerprint, number)
        milliseconds.append(_milliseconds(partial(composer.add, made)))
        kept += made.nnz
        if number + 1 in settings.sizes:
            bits[str(number + 1)] = content(base)
    del made
    grown, held = settled_memory() - start, composer.state().nbytes
    names = list(composer.weights)
    random.Random(0).shuffle(names)
    removals = [_milliseconds(partial(composer.remove, name)) for name in names]
    if content(base) != before:
        raise SystemExit("removing every task does not give the base's bits")
    return {
        "kept_entries_per_task": kept // settings.tasks,
        "milliseconds": milliseconds,
        "removal_milliseconds": removals,
        "resident_bytes_per_kept_entry": round(grown / kept, 2),
        "state_bytes_per_kept_entry": round(held / kept, 2),
        "base_bits_after_removing_all": True,
        "content": bits,
    }


def settled_memory() -> int:
    """Anonymous memory once garbage is collected and the allocator has given back what nobody holds."""
    settle()
    return anonymous_bytes()


def _milliseconds(job: Callable[[], object]) -> float:
    start = time.perf_counter()
    job()
    return round(1e3 * (time.perf_counter() - start), 1)


def afresh(settings: Settings, bits: Mapping[str, str]) -> dict[str, Any]:
    """Put all tasks at once onto a fresh copy of the base in memory, and compare with adding one by one."""
    base = load_base(settings.room)
    fingerprint, found = base_fingerprint(base), {}
    for size in settings.sizes:
        tasks = [task(fingerprint, number) for number in range(size)]
        seconds = []
        for _ in range(settings.rounds):
            start = time.perf_counter()
            tensors = restitch(base, tasks)
            seconds.append(round(time.perf_counter() - start, 3))
        if content(tensors) != bits[str(size)]:
            raise SystemExit(f"adding {size} tasks one by one does not give the bits of stitching them at once")
        found[str(size)] = {"seconds": median(seconds), "seconds_all": seconds, "bits_equal": True}
    return found


def restitch(base: Tensors, tasks: list[SparseTaskVector]) -> Tensors:
    """The stitch of tasks on a copy of the base."""
    tensors = {name: tensor.clone() for name, tensor in base.items()}
    composer = Composer(tensors, rule="mean", scale=SCALE, verify="meta")
    for one in tasks:
        composer.load(one)
    composer.activate({one.name: 1.0 for one in tasks})
    return tensors


def reloading(settings: Settings) -> dict[str, Any]:
    """Read the whole checkpoint and copy it into tensors that are there."""
    live, path = load_base(settings.room), base_directory(settings.room) / "model.safetensors"

    def reload() -> None:
        loaded = load_file(path)
        for name, tensor in live.items():
            tensor.copy_(loaded[name])

    reload()
    times = interleaved({"reload": reload}, rounds=3 * settings.rounds)
    return {"bytes": path.stat().st_size, **summary(times["reload"])}


def on_disk(settings: Settings) -> dict[str, Any]:
    """`sparsetv stitch` as a process, the same as a library call, and a copy of the base file with fsync."""
    room, base = settings.room, base_directory(settings.room)
    files = task_files(settings)
    options, out = StitchOptions(rule="mean", scale=SCALE), room / "out"
    jobs: dict[str, Callable[[], object]] = {"copy": partial(copy_with_fsync, base, room / "copy.safetensors")}
    for size in sorted({min(MERGED, len(files)), len(files)}):
        some = files[:size]
        jobs[f"command {size}"] = partial(_stitch_command, base, some, out)
        jobs[f"library {size}"] = partial(stitch, base, some, out, options=options)
    times = interleaved(jobs, rounds=settings.rounds, before=partial(_clear, room))
    _clear(room)
    return {name: summary(seconds) for name, seconds in times.items()}


def task_files(settings: Settings) -> list[Path]:
    """The first tasks as files."""
    files = [settings.room / "tasks" / f"task-{number:02}.stv" for number in range(min(FEW, settings.tasks))]
    if not all(file.exists() for file in files):
        files[0].parent.mkdir(exist_ok=True)
        fingerprint = base_fingerprint(load_base(settings.room))
        for number, file in enumerate(files):
            write_task(file, task(fingerprint, number))
    return files


def _stitch_command(base: Path, files: list[Path], out: Path) -> None:
    program = str(Path(sys.executable).parent / "sparsetv")
    options = ["--rule", "mean", "--scale", str(SCALE)]
    command = [program, "stitch", str(base), *map(str, files), "-o", str(out), *options]
    subprocess.run(command, check=True, capture_output=True)


def _clear(room: Path) -> None:
    """Remove what the jobs write, and let the disk finish, so that no job pays for the one before."""
    shutil.rmtree(room / "out", ignore_errors=True)
    (room / "copy.safetensors").unlink(missing_ok=True)
    os.sync()


def mergekit(settings: Settings) -> dict[str, Any]:
    """Merge tasks as dense checkpoints with mergekit; the reason where it cannot be run."""
    out = settings.room / "out"
    try:
        python = peers_python(settings.room, settings.peers)
        checkpoints = dense_checkpoints(settings)
        found: dict[str, Any] = {"versions": versions(python), "tasks": MERGED}
        starting = interleaved({"start": partial(run, [program(python), "--help"])}, rounds=settings.rounds)
        found["start"] = summary(starting["start"])
        for method in METHODS:
            command = merge_command(python, recipe(settings.room / f"{method}.yaml", method, checkpoints), out)
            times = interleaved(
                {method: partial(run, command)}, rounds=settings.rounds, before=partial(_clear, settings.room)
            )
            found[method] = summary(times[method])
            if method == "task_arithmetic":
                found["largest_difference_from_sum"] = largest_difference(out, _summed(settings))
    except PeersError as error:
        print(f"mergekit is left out: {error}")
        return {"left_out": str(error)}
    _clear(settings.room)
    return found


def dense_checkpoints(settings: Settings) -> list[Path]:
    """The base and the first tasks as whole checkpoints; the base comes first."""
    found = [settings.room / "dense" / name for name in ("base", *(f"task-{n:02}" for n in range(MERGED)))]
    if not (found[-1] / "config.json").exists():
        tensors = load_base(settings.room)
        fingerprint = base_fingerprint(tensors)
        composer = Composer(tensors, scale="none", verify="meta")
        save_dense(settings.room, found[0], tensors)
        for number, directory in enumerate(found[1:]):
            one = task(fingerprint, number)
            composer.add(one)
            save_dense(settings.room, directory, tensors)
            composer.remove(one.name)
    return [directory.absolute() for directory in found]


def _summed(settings: Settings) -> Tensors:
    """What task arithmetic must come to, by our rule `sum`: that both have done the same work."""
    base = load_base(settings.room)
    fingerprint = base_fingerprint(base)
    composer = Composer(base, rule="sum", scale="none", verify="meta")
    for number in range(MERGED):
        composer.add(task(fingerprint, number))
    return base


def measure(settings: Settings) -> dict[str, Any]:
    """All figures."""
    asked = {"tasks": settings.tasks, "rounds": settings.rounds}
    kept = partial(part, settings.room / "continual", settings=asked)
    added = kept("adding", job=partial(adding, settings))
    again = kept("afresh", job=partial(afresh, settings, added["content"]))
    return {
        "tasks": settings.tasks,
        "rounds": settings.rounds,
        "rule": "mean",
        "scale": SCALE,
        "goal": GOAL,
        **averages(added["milliseconds"], added["removal_milliseconds"]),
        **{key: value for key, value in added.items() if key != "content"},
        "afresh_in_memory": again,
        "reload": kept("reload", job=partial(reloading, settings)),
        "on_disk": kept("on_disk", job=partial(on_disk, settings)),
        "mergekit": kept("mergekit", job=partial(mergekit, settings)),
    }


def averages(added: list[float], removed: list[float]) -> dict[str, Any]:
    """Milliseconds of the first and the last additions, their ratio, and the first removals, when most are there."""
    groups = {"first": added[:FEW], "last": added[-FEW:], "all": added, "removal": removed[:FEW]}
    found: dict[str, Any] = {}
    for name, values in groups.items():
        found[name] = {"mean": round(statistics.mean(values), 1), "median": round(statistics.median(values), 1)}
    for kind in ("mean", "median"):
        found[f"last_over_first_{kind}"] = round(found["last"][kind] / found["first"][kind], 2)
    return found


def report(result: dict[str, Any]) -> None:
    """Print the figures, and each alternative as a multiple of adding one task to many."""
    one = result["last"]["median"] / 1e3
    rows = {f"all {n} tasks anew in memory": v for n, v in result["afresh_in_memory"].items()}
    rows |= {"reload the checkpoint": result["reload"]}
    rows |= {f"on disk, {name}": value for name, value in result["on_disk"].items()}
    rows |= {f"mergekit {name}": v for name, v in result["mergekit"].items() if isinstance(v, dict) and "seconds" in v}
    for name in ("first", "last", "all", "removal"):
        print(f"{name:30} mean {result[name]['mean']:>8} ms   median {result[name]['median']:>8} ms")
    print(f"{'last over first':30} mean {result['last_over_first_mean']}, goal {GOAL}")
    print(f"{'resident bytes per kept entry':30} {result['resident_bytes_per_kept_entry']}")
    print(f"{'state bytes per kept entry':30} {result['state_bytes_per_kept_entry']}")
    for name, value in rows.items():
        print(f"{name:30} {value['seconds']:>8} s   {value['seconds'] / one:>7.1f} times one addition")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--room", type=Path)
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=Path, metavar="PYTHON")
    parser.add_argument("--again", action="store_true")
    args = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        room = args.room or Path(temporary)
        room.mkdir(parents=True, exist_ok=True)
        if args.again:
            shutil.rmtree(room / "continual", ignore_errors=True)
        result = measure(Settings(room, args.tasks, args.rounds, args.peers))
    write_result("continual", result)
    report(result)
    print(f"{'benchmark took':30} {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
