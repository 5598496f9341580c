"""Experiment: seconds and memory of every merge method (Tables 10 and 11), and of the jobs on disk, beside floors."""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sparsetv.bench.cost import cost, interleaved, median, settle
from sparsetv.bench.lab import Lab
from sparsetv.bench.merge import checked
from sparsetv.bench.method import Method
from sparsetv.bench.methods import choose
from sparsetv.bench.subject import checkpoint_files
from sparsetv.checkpoint.reading import chunked, open_checkpoint
from sparsetv.difference import task_vector
from sparsetv.jobs.options import PackOptions, StitchOptions
from sparsetv.jobs.pack import pack_to
from sparsetv.jobs.stitch import add, remove, stitch

ROUNDS, LONG = 5, 20.0
"""How often a job is repeated, unless once takes so many seconds."""
READING, COPYING, SUBTRACTING = (
    "read all checkpoints once",
    "copy the base with fsync",
    "subtract base and one fine-tune",
)


def runtime(lab: Lab, *, methods: Sequence[str] = ()) -> None:
    """Measure every method on the merged tasks, and every job on disk; rows `{what}` in `runtime.jsonl`.

    Methods start from checkpoints, with nothing packed and nothing tuned; models are built and data is read before,
    for every method alike. What takes over 20 seconds runs once, the rest five times, of which the median counts.
    """
    names, chosen = checked(lab), choose(methods)
    recorder = lab.recorder("runtime", timed=True)
    _on_disk(lab, names, recorder.measure, recorder.knows)
    for name in names:
        lab.subject(name).prepare()
    sources = [lab.suite.base, *(lab.suite.task(name).finetuned for name in names)]
    recorder.measure({"what": READING}, lambda: _repeated(partial(_read, sources)) | {"floor": None})
    for key, method in chosen.items():
        row = recorder.measure({"what": key}, lambda m=method: _timed(lab, names, m))  # type: ignore[misc]
        lab.say(f"{method.label}: {row['seconds']:.2f} s, {row['peak_bytes'] / 1e6:,.0f} MB")


def _timed(lab: Lab, names: Sequence[str], method: Method) -> dict[str, Any]:
    def once() -> None:
        with tempfile.TemporaryDirectory(dir=lab.room) as room:
            method.make(replace(lab, room=Path(room)), names)

    told = {"label": method.label, "data": method.data, "floor": READING, "tasks": len(names)}
    return told | _repeated(once)


def _repeated(job: Callable[[], object]) -> dict[str, Any]:
    seconds: list[float] = []
    peak = 0
    while len(seconds) < ROUNDS and max(seconds, default=0.0) < LONG:
        settle()
        with cost() as spent:
            job()
        seconds.append(spent.seconds)
        peak = max(peak, spent.peak_bytes)
    return {"seconds": median(seconds), "seconds_all": seconds, "peak_bytes": peak}


def _read(sources: Sequence[str]) -> int:
    """Look at every byte of some checkpoints."""
    total = 0
    for source in sources:
        for shard in open_checkpoint(source).shards.values():
            total += sum(int(piece.max()) for piece in chunked(shard.data))
    return total


def _on_disk(lab: Lab, names: Sequence[str], measure: Callable[..., Any], knows: Callable[..., bool]) -> None:
    """Pack, stitch, add and remove, interleaved with a copy of the base and a plain subtraction."""
    first = names[0]
    jobs = ("pack 1 %", "stitch", "add", "remove", COPYING, SUBTRACTING)
    if all(knows({"what": job}) for job in jobs):
        return
    with tempfile.TemporaryDirectory(dir=lab.room) as temporary:
        room = Path(temporary)
        options = PackOptions(density=0.01, probe=False)
        files = [room / f"{name}.stv" for name in names]
        for name, file in zip(names, files, strict=True):
            pack_to(file, lab.suite.base, lab.suite.task(name).finetuned, name=name, options=options)
        base, plain = lab.suite.base, StitchOptions(scale="none")
        stitch(base, files[1:], room / "part", options=plain)
        stitch(base, files, room / "whole", options=plain)
        seconds = interleaved(
            {
                "pack 1 %": partial(pack_to, room / "new.stv", base, lab.suite.task(first).finetuned, options=options),
                "stitch": partial(stitch, base, files, room / "out", options=plain),
                "add": lambda: add(room / "work-add", files[:1]),
                "remove": lambda: remove(room / "work-remove", [first]),
                COPYING: partial(_copy, base, room),
                SUBTRACTING: partial(_subtract, base, lab.suite.task(first).finetuned),
            },
            rounds=ROUNDS,
            before=partial(_fresh, room),
        )
    floors = {"pack 1 %": SUBTRACTING, "stitch": COPYING, "add": COPYING, "remove": COPYING}
    for job in jobs:
        told = {"label": job, "data": "none", "floor": floors.get(job), "tasks": len(names), "peak_bytes": None}
        times = [round(value, 3) for value in seconds[job]]
        measure({"what": job}, lambda t=told, s=times: t | {"seconds": median(s), "seconds_all": s})


def _fresh(room: Path) -> None:
    """What jobs change, as it was before them."""
    for name in ("out", "work-add", "work-remove", "copy"):
        shutil.rmtree(room / name, ignore_errors=True)
    shutil.copytree(room / "part", room / "work-add")
    shutil.copytree(room / "whole", room / "work-remove")
    os.sync()  # so that no job pays for the writing of the one before


def _copy(base: str, room: Path) -> None:
    (room / "copy").mkdir()
    for file in checkpoint_files(base):
        target = room / "copy" / file.name
        shutil.copyfile(file, target)
        descriptor = os.open(target, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _subtract(base: str, finetuned: str) -> None:
    vector = task_vector(open_checkpoint(base), open_checkpoint(finetuned))
    for name in vector.comparable():
        for chunk in vector.chunks(name):
            chunk.deltas()
