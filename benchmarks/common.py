"""What every benchmark needs: machine and versions, timing, peak anonymous memory, result files, parts of them."""

import gc
import hashlib
import json
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sparsetv

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("sparsetv", "torch", "transformers", "numpy", "scipy", "safetensors", "zstandard")


def machine() -> dict[str, Any]:
    """Processor, cores, memory and versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def write_result(name: str, value: dict[str, Any]) -> None:
    """Write a committed result file: the value, and the machine it was measured on."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"machine": machine(), **value}, indent=1, ensure_ascii=False) + "\n"
    (RESULTS / f"{name}.json").write_text(text)


def part(folder: Path, name: str, settings: dict[str, Any], job: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A part of a result: from the folder where the same code was measured with the same settings, else anew.

    A part that was left out, which says so under `left_out`, is tried again the next time.
    """
    path = folder / f"{name}.json"
    key = {"machine": machine(), "sources": sources(), **settings}
    if path.exists() and (stored := json.loads(path.read_text()))["key"] == key:
        print(f"{name}: as measured before", flush=True)
        value: dict[str, Any] = stored["value"]
        return value
    value = job()
    gc.collect()
    if not value.get("left_out"):
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"key": key, "value": value}))
    print(f"{name}: measured", flush=True)
    return value


def sources() -> str:
    """Hash of what is measured and of what measures it."""
    root = Path(sparsetv.__file__).parent
    files = sorted([*root.rglob("*.py"), *Path(__file__).parent.glob("*.py")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


class Cache:
    """Numbers by key in a JSON file, written after each."""

    def __init__(self, path: Path) -> None:
        """Open or create."""
        self._path = path
        self._known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}

    def get(self, key: str, make: Callable[[], float]) -> float:
        """The number of `key`, made where it is not known."""
        if key not in self._known:
            self.put(key, make())
        return self._known[key]

    def put(self, key: str, number: float) -> None:
        """Remember a number."""
        self._known[key] = number
        self._path.write_text(json.dumps(self._known, indent=0))
        print(f"{key}: {number:.4f}", flush=True)


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


def summary(seconds: list[float]) -> dict[str, Any]:
    """Median, and every round."""
    return {"seconds": median(seconds), "seconds_all": [round(value, 3) for value in seconds]}


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
    """Anonymous resident memory of this process; mapped files do not count."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Sample anonymous memory every two milliseconds while the block runs."""
    peak = Peak(start=anonymous_bytes())

    def watch() -> None:
        while not peak._stop.wait(0.002):
            peak.top = max(peak.top, anonymous_bytes())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        peak.top = max(peak.top, anonymous_bytes())
        peak._stop.set()
        thread.join()
