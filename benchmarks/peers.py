"""Peers in one run: wall time and peak memory of whole processes that do the same work, at roberta-base shape.

    python -m benchmarks.peers [--room DIR] [--rounds N] [--peers PYTHON] [--again]

124.6 M float32 entries, generated: a base and three dense fine-tunes of it (every entry changed, heavy-tailed,
standard deviation 1e-3). `merging`: packing and stitching them, taking one task out and putting it back, and mergekit's
merges of the same checkpoints; also both in memory. `storing`: one fine-tune to a file and back. In each round every
process runs once, in turn, after a sync, page cache warm; medians of rounds, largest peaks. `anonymous` is memory that
the processes have to themselves, `resident` counts mapped files, too. That both tools merge the same is checked.

Peers run in an environment of their own in the room, unless the extra `peers` is installed or `--peers` names another
Python; one that cannot be installed or fails is a row that says why. Rounds that are done stay in the room and are
taken from there when the benchmark is started again with the same code; `--again` measures them anew. Needs 8 GB of
memory and 12 GB of disk. Writes benchmarks/results/peers.json.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from benchmarks.common import part, summary, write_result
from benchmarks.peers_environment import PeersError, peers_python, versions
from benchmarks.peers_jobs import CHANGING, MERGED, MERGING, METHODS, Job, Places, merging, stitch, storing
from benchmarks.peers_mergekit import mergekit_name, recipe, save_dense
from benchmarks.peers_result import goals, rows, stored
from benchmarks.processes import ProcessError, measured_process
from benchmarks.storage_pairs import kept_entries, write_sides
from benchmarks.synthetic import base_fingerprint, finetune, load_base, task
from sparsetv import Composer, PackOptions, pack, read_task, write_task
from sparsetv.bench.cost import interleaved
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.difference import task_vector
from sparsetv.localize.scope import Scope

SAME = 1e-6
"""Merged entries further apart than this differ; they are sums near 1e-2 that may be rounded in another order."""


def make_inputs(places: Places) -> None:
    """Write checkpoints, the tasks of the directory of ten, and what peers that store are given; kept in the room."""
    base, *tuned = places.checkpoints
    if not tuned[-1].exists():
        tensors = load_base(places.room)
        save_dense(places.room, base, tensors)
        for number, directory in enumerate(tuned):
            save_dense(places.room, directory, finetune(tensors, number))
    if not places.many[-1].exists():
        named = {mergekit_name(name): tensor for name, tensor in load_base(places.room).items()}
        fingerprint = base_fingerprint(dict(sorted(named.items())))
        places.many[0].parent.mkdir(exist_ok=True)
        for number, file in enumerate(places.many):
            write_task(file, task(fingerprint, number))
    if not (places.pair / "kept" / "model.safetensors").exists():
        options = PackOptions(scope=Scope.parse(["all"]), allocation="tensor")
        vector = task_vector(open_checkpoint(base), open_checkpoint(tuned[0]))
        places.pair.mkdir(exist_ok=True)
        write_sides(vector, kept_entries(vector, pack(base, tuned[0], options=options).tensors), places.pair)
    for method in METHODS:
        recipe(places.room / f"{method}.yaml", method, places.checkpoints, normalize=method != "task_arithmetic")


def one_round(jobs: Mapping[str, Job], number: int) -> dict[str, Any]:
    """Every process once, in turn; where one fails, why."""
    found: dict[str, dict[str, Any]] = {"jobs": {}, "failed": {}}
    for name, job in jobs.items():
        job.prepare()
        os.sync()
        try:
            measured = asdict(measured_process(job.command))
        except ProcessError as error:
            print(f"{name}: {error}", flush=True)
            found["failed"][name] = str(error)
            continue
        del measured["output"]
        found["jobs"][name] = {**measured, "bytes": job.file.stat().st_size if job.file is not None else None}
        print(f"round {number}, {name}: {measured['seconds']:.2f} s, {measured['anonymous'] / 1e6:.0f} MB", flush=True)
    return found


def merged_round(places: Places, python: Path | None, number: int) -> dict[str, Any]:
    """A round of merging, and how many entries the two merges by TIES have apart."""
    measured_process(stitch(places.checkpoints[0], places.many, places.work / "ten"))
    found = one_round(merging(places, python), number)
    if "ties" in found["jobs"]:
        found["apart"] = apart(places.work / "mergekit-ties", places.work / "three", places.checkpoints[0])
    return found


def apart(theirs: Path, ours: Path, base: Path) -> dict[str, int]:
    """How many entries two merges change, and in how many they differ."""
    first, second, start = (load_file(directory / "model.safetensors") for directory in (theirs, ours, base))
    changed = sum(int((tensor != start[name]).sum()) for name, tensor in second.items())
    return {"changed": changed, "apart": sum(int(((first[n] - t).abs() > SAME).sum()) for n, t in second.items())}


def in_memory(places: Places, rounds: int) -> dict[str, Any]:
    """Adding a task to those that are there and taking it out again, in memory; the tasks are read before."""
    found: dict[str, Any] = {}
    for files in ([places.packed(number) for number in range(MERGED)], places.many):
        tensors = {name: tensor.clone() for name, tensor in load_file(_weights(places.checkpoints[0])).items()}
        composer = Composer(tensors, rule="ties", scale="none", verify="meta")
        *before, last = [read_task(file) for file in files]
        for one in before:
            composer.add(one)
        jobs: dict[str, Callable[[], object]] = {
            "add": partial(composer.add, last),
            "remove": partial(composer.remove, last.name),
            "read_task": partial(read_task, files[-1]),
        }
        times = interleaved(jobs, rounds=rounds + 1)
        found[str(len(files))] = {name: summary(seconds[1:]) for name, seconds in times.items()}
    return found


def _weights(directory: Path) -> Path:
    return directory / "model.safetensors"


def memory_apart(places: Places, rounds: int) -> dict[str, Any]:
    """The same in a process of its own, whose memory nothing else has touched."""
    command = [sys.executable, "-m", "benchmarks.peers", "--in-memory", "--room", places.room, "--rounds", str(rounds)]
    shown = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    value: dict[str, Any] = json.loads(shown.stdout.splitlines()[-1])
    return value


def measure(places: Places, rounds: int, given: Path | None) -> dict[str, Any]:
    """All figures."""
    python, known, reason = _peers(places.room, given)
    make_inputs(places)
    places.work.mkdir(exist_ok=True)
    kept = partial(part, places.room / "parts", settings={"peers": known})
    merged = [kept(f"merging-{n}", job=partial(merged_round, places, python, n)) for n in range(rounds)]
    memory = kept(f"memory-{rounds}", job=partial(memory_apart, places, rounds))
    jobs = storing(places, python)
    held = [kept(f"storing-{n}", job=partial(one_round, jobs, n)) for n in range(rounds)]
    return {
        "entries": sum(tensor.numel() for tensor in load_file(_weights(places.checkpoints[0])).values()),
        "checkpoint_bytes": _weights(places.checkpoints[0]).stat().st_size,
        "rounds": rounds,
        "versions": known,
        "left_out": reason,
        "goals": goals(merged, memory),
        "merging": rows(merged, MERGING),
        "changing": rows(merged, CHANGING),
        "in_memory": memory,
        "storing": stored(held),
        "ties_merges": merged[-1].get("apart"),
    }


def _peers(room: Path, given: Path | None) -> tuple[Path | None, dict[str, str], str | None]:
    """Python of the peers, their versions, and why there is none."""
    try:
        python = peers_python(room, given)
        return python, versions(python), None
    except PeersError as error:
        print(f"peers are left out: {error}", flush=True)
        return None, {}, str(error)


def report(result: Mapping[str, Any]) -> None:
    """Print the rows, what is not equal beside each, and the goals."""
    for one in (*result["merging"], *result["changing"]):
        print(_line(one["name"], one) + f"   {one['unequal']}")
    for count, found in result["in_memory"].items():
        for way in ("add", "remove"):
            print(f"{f'Composer.{way}, {count} tasks':58} {found[way]['seconds']:>8.2f} s")
    for one in result["storing"]:
        for way in ("compress", "restore"):
            print(_line(f"{one['name']}, {way}", one.get(way, one)) + f"   {one['fidelity']}; {one['unequal']}")
    for goal in result["goals"]:
        print(f"{'met   ' if goal['met'] else 'MISSED'} {goal['goal']}: {goal['found']} (at least {goal['asked']})")


def _line(name: str, one: Mapping[str, Any]) -> str:
    if "left_out" in one:
        return f"{name:58} left out: {one['left_out']}"
    peaks = f"{one['anonymous_bytes'] / 1e6:>6.0f} MB anonymous {one['resident_bytes'] / 1e6:>6.0f} MB resident"
    return f"{name:58} {one['seconds']:>8.2f} s {peaks}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--room", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=Path, metavar="PYTHON")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--in-memory", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.in_memory:
        print(json.dumps(in_memory(Places(args.room), args.rounds)))
        return
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        places = Places((args.room or Path(temporary)).absolute())
        places.room.mkdir(parents=True, exist_ok=True)
        if args.again:
            shutil.rmtree(places.room / "parts", ignore_errors=True)
        result = measure(places, args.rounds, args.peers)
    write_result("peers", result)
    report(result)
    print(f"benchmark took {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
