"""Batches in processes of their own: what kills a process, or never ends, is one file's failure and no more."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from threading import Lock
from typing import Any

from fuzz.batch import Found, run_batch
from fuzz.sound import LIMITS
from fuzz.target import Target
from fuzz.targets import SHARES, TARGETS
from fuzz.watch import forbid_memory

_BATCH = 5000
_SILENCE = 90.0
"""Seconds without another file after which a process is ended."""

_ROOM = 1 << 30
"""What a process may hold beside what the reader states."""

_SPAWN = multiprocessing.get_context("spawn")
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """Seeds `first` to `first + count` of a target."""

    target: str
    first: int
    count: int


def plan(files: int, first: int, names: tuple[str, ...] = tuple(TARGETS)) -> list[Job]:
    """Batches for so many files in all, each target's share of them, targets by turns."""
    whole = sum(SHARES[name] for name in names)
    jobs = []
    for name in names:
        own = max(1, round(files * SHARES[name] / whole))
        starts = range(0, own, _BATCH)
        jobs += [(start / own, Job(name, first + start, min(_BATCH, own - start))) for start in starts]
    return [job for _, job in sorted(jobs, key=lambda pair: pair[0])]


def run_all(jobs: list[Job], *, processes: int, until: float, write: Callable[[Record], None]) -> None:
    """Run batches; each is written down when it is done.

    Args:
        jobs: The batches.
        processes: How many run at once.
        until: Time, as `time.monotonic` counts, after which no further one starts.
        write: Takes each batch's record.
    """
    lock = Lock()

    def run(job: Job) -> None:
        if time.monotonic() < until:
            for found in isolated(TARGETS[job.target], job.first, job.count):
                with lock:
                    write(found)

    with ThreadPoolExecutor(processes) as pool:
        for done in [pool.submit(run, job) for job in jobs]:
            done.result()


def isolated(target: Target, first: int, count: int, *, silence: float = _SILENCE) -> Iterator[Record]:
    """Records of a batch; of its parts, where one file ended its process, or kept it silent for so many seconds."""
    if not count:
        return
    seen = _SPAWN.Value("q", first)
    ours, theirs = _SPAWN.Pipe(duplex=False)
    process = _SPAWN.Process(target=_work, args=(target, first, count, seen, theirs), daemon=True)
    process.start()
    theirs.close()
    found = _wait(process, ours, seen, silence)
    if found is not None:
        yield found
        return
    seed = int(seen.value)
    yield from isolated(target, first, seed - first, silence=silence)
    died = Found(target.name, seed, 1, failures=[(seed, f"ended its process ({process.exitcode})")])
    died.outcomes["FAILURE"] += 1
    yield died.to_json()
    yield from isolated(target, seed + 1, first + count - seed - 1, silence=silence)


def _wait(process: Any, results: Connection, seen: Any, silence: float) -> Record | None:
    """A process's record, or None where it died or fell silent; `seen` is the seed that it works on."""
    last, since = -1, time.monotonic()
    while True:
        try:
            if results.poll(1.0):
                found: Record = results.recv()
                process.join()
                return found
        except EOFError:
            process.join()
            return None
        if seen.value != last:
            last, since = seen.value, time.monotonic()
        if time.monotonic() - since > silence:
            process.kill()
            process.join()
            return None


def _work(target: Target, first: int, count: int, seen: Any, results: Connection) -> None:
    def now(seed: int) -> None:
        seen.value = seed

    forbid_memory(LIMITS.decoded_bytes + _ROOM)
    results.send(run_batch(target, first, count, now=now).to_json())
