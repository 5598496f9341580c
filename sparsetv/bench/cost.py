"""Time and memory of a piece of work in this process."""

import ctypes
import gc
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_EVERY = 0.002
"""Seconds between two looks at the memory."""


def interleaved(
    jobs: dict[str, Callable[[], Any]], *, rounds: int, before: Callable[[], Any] = lambda: None
) -> dict[str, list[float]]:
    """Run jobs in turn, `rounds` times each, with `before` untimed ahead of each; seconds per job and round."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            before()
            start = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median(seconds: list[float]) -> float:
    """Median, rounded to a millisecond."""
    return round(statistics.median(seconds), 3)


@dataclass
class Peak:
    """Largest anonymous resident memory seen above the start, in bytes."""

    start: int = 0
    top: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    @property
    def grown(self) -> int:
        """Bytes above the start."""
        return max(self.top - self.start, 0)


def anonymous_bytes() -> int:
    """Anonymous resident memory of this process; mapped files do not count. 0 where the system does not tell."""
    told = Path("/proc/self/status")
    for line in told.read_text().splitlines() if told.is_file() else []:
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Sample anonymous memory every two milliseconds while the block runs."""
    peak = Peak(start=anonymous_bytes())

    def watch() -> None:
        while not peak._stop.wait(_EVERY):
            peak.top = max(peak.top, anonymous_bytes())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        peak.top = max(peak.top, anonymous_bytes())
        peak._stop.set()
        thread.join()


def settle() -> None:
    """Give freed memory back to the system, so that what an earlier job freed does not hide what the next one takes."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


@dataclass
class Cost:
    """What a block took: seconds, and anonymous memory above its start in bytes."""

    seconds: float = 0.0
    peak_bytes: int = 0


@contextmanager
def cost() -> Iterator[Cost]:
    """Measure the block; the figures are there when it is done."""
    found = Cost()
    start = time.perf_counter()
    with peak_memory() as peak:
        yield found
    found.seconds, found.peak_bytes = round(time.perf_counter() - start, 3), peak.grown
