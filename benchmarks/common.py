"""What benchmarks share beside what the package measures with: result files, parts of them, numbers by key."""

import gc
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sparsetv
from sparsetv.bench.cost import median
from sparsetv.bench.machine import machine

RESULTS = Path(__file__).parent / "results"


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


def summary(seconds: list[float]) -> dict[str, Any]:
    """Median, and every round."""
    return {"seconds": median(seconds), "seconds_all": [round(value, 3) for value in seconds]}
