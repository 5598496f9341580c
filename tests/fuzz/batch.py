"""A run of seeds through one target: the unit that is counted, written down and never done twice."""

import random
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from fuzz.target import Target
from fuzz.watch import HangError, alarm, place, resident, traced

SECONDS = 1.0
"""Longest that a file may take, in seconds of processor time of all threads."""
ALARM = 20.0
"""Seconds after which a file that is still running is given up."""
_TRACED_ONE_IN = 64
_FAILURES = 50


@dataclass(slots=True)
class Found:
    """What a batch found.

    Attributes:
        target, first, count: Which seeds.
        seconds: How long they took, making them included.
        outcomes: Files by what became of them.
        places: Lines of the package that refused files.
        slowest: Processor seconds and seed of the slowest file.
        memory: Traced bytes above what the reader states, and bytes traced, each the largest, with its seed.
        resident: Bytes by which the process grew.
        failures: Seed and what went wrong.
    """

    target: str
    first: int
    count: int
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    places: set[str] = field(default_factory=set)
    slowest: tuple[float, int] = (0.0, -1)
    memory: tuple[int, int] = (0, -1)
    resident: int = 0
    failures: list[tuple[int, str]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "outcomes": dict(self.outcomes), "places": sorted(self.places)}


def run_batch(target: Target, first: int, count: int, *, now: Callable[[int], None] = lambda seed: None) -> Found:
    """Run seeds `first` to `first + count` through a target.

    Args:
        target: The target.
        first, count: The seeds.
        now: Told each seed before it runs, so that a process that dies leaves word of what killed it.
    """
    found = Found(target.name, first, count)
    target.run(target.make(random.Random(0)))  # what is made once per process counts for no file
    before, start = resident(), time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(first, first + count):
            now(seed)
            _run(target, seed, found)
    found.seconds = time.monotonic() - start
    found.resident = resident() - before
    return found


def _run(target: Target, seed: int, found: Found) -> None:
    try:
        case = target.make(random.Random(seed))
        start = time.process_time()
        with alarm(ALARM):
            outcome, held = _examine(target, case, traced_too=seed % _TRACED_ONE_IN == 0)
            outcome.written()
    except (Exception, HangError) as error:
        found.outcomes["FAILURE"] += 1
        if len(found.failures) < _FAILURES:
            what = str(error).replace(tempfile.gettempdir(), "")
            found.failures.append((seed, f"{type(error).__name__} at {place(error)}: {what}"[:300]))
        return
    taken = time.process_time() - start
    found.outcomes[outcome.kind] += 1
    if outcome.error is not None:
        found.places.add(place(outcome.error))
    if held is None:
        found.slowest = max(found.slowest, (taken, seed))
        if taken > SECONDS:
            found.failures.append((seed, f"took {taken:.2f} seconds"))
        return
    found.memory = max(found.memory, (held, seed))
    allowed = target.bound(case)
    if held > allowed:
        found.failures.append((seed, f"held {held} bytes, stated were {allowed}"))


def _examine(target: Target, case: Any, *, traced_too: bool) -> tuple[Any, int | None]:
    return traced(lambda: target.examine(case)) if traced_too else (target.examine(case), None)
