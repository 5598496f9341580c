"""Rounds of measured processes as rows, and what was asked of them."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers_jobs import CHANGING, MERGING, PACK_ALL, STORING, Row

Round = Mapping[str, Any]
"""What one round gave: `jobs` by name, and why a job `failed`."""

SUMS = ("seconds", "processor")
PEAKS = ("anonymous", "resident")


def row(rounds: Sequence[Round], one: Row) -> dict[str, Any]:
    """A line: medians of the rounds' sums, the largest peaks, the bytes of the last round's files, or why not."""
    found: dict[str, Any] = {"by": one.by, "name": one.name}
    failed = [each["failed"][job] for each in rounds for job in one.jobs if job in each["failed"]]
    missing = [job for job in one.jobs if any(job not in each["jobs"] for each in rounds)]
    if failed or missing:
        return {**found, "left_out": failed[0] if failed else "was not run", "unequal": one.unequal}
    measured = [[each["jobs"][job] for job in one.jobs] for each in rounds]
    for key in SUMS:
        sums = [sum(job[key] for job in jobs) for jobs in measured]
        found[key] = round(statistics.median(sums), 3)
        found[f"{key}_all"] = [round(value, 3) for value in sums]
    for key in PEAKS:
        found[f"{key}_bytes"] = max(job[key] for jobs in measured for job in jobs)
    sizes = [job["bytes"] for job in measured[-1] if job["bytes"] is not None]
    return {**found, "bytes": sum(sizes) if sizes else None, "unequal": one.unequal}


def rows(rounds: Sequence[Round], listed: Sequence[Row]) -> list[dict[str, Any]]:
    """Several lines."""
    return [row(rounds, one) for one in listed]


def stored(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """One fine-tune to a file and back: a line per tool."""
    found = []
    for by, key, name, fidelity, unequal in STORING:
        ways = {way: row(rounds, Row(by, name, (f"{key} {way}",), "")) for way in ("compress", "restore")}
        left_out = [one["left_out"] for one in ways.values() if "left_out" in one]
        line: dict[str, Any] = {"by": by, "name": name, "fidelity": fidelity, "unequal": unequal}
        found.append({**line, "left_out": left_out[0]} if left_out else {**line, **_ways(ways)})
    return found


def _ways(ways: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Both ways without what the line says once."""
    size = ways["compress"]["bytes"]
    once = ("by", "name", "unequal", "bytes")
    return {"bytes": size, **{way: {k: v for k, v in one.items() if k not in once} for way, one in ways.items()}}


def goals(merging: Sequence[Round], memory: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was asked, what was found, whether it is met; goals of what was left out are missing."""
    found = {name: row(merging, one) for name, one in NAMED.items()}
    asked = []
    for goal, key, more, less, times in GOALS:
        if "left_out" not in found[more] and "left_out" not in found[less]:
            asked.append(_goal(goal, found[more][key] / found[less][key], times))
    for goal, more, way in IN_MEMORY:
        if "left_out" not in found[more]:
            asked.append(_goal(goal, found[more]["seconds"] / memory["3"][way]["seconds"], 20))
    return asked


def _goal(goal: str, found: float, asked: float) -> dict[str, Any]:
    return {"goal": goal, "asked": asked, "found": round(found, 2), "met": found >= asked}


NAMED = {one.jobs[0] if len(one.jobs) == 1 else one.name: one for one in (*MERGING, *CHANGING)}
PASS = "mergekit's TIES pass over 3 fine-tunes"
GOALS = (
    (f"{PASS} / packing one of them, seconds", "seconds", "ties", "pack 0", 10),
    (f"{PASS} / packing all 3, seconds", "seconds", "ties", PACK_ALL, 10),
    (f"{PASS} / packing one, peak anonymous memory", "anonymous_bytes", "ties", "pack 0", 3),
    (f"{PASS} / packing one, peak resident memory with mapped files", "resident_bytes", "ties", "pack 0", 3),
    ("re-merge by TIES / `sparsetv add` of the third task, seconds", "seconds", "ties", "add 3", 20),
    ("re-merge by TIES / `sparsetv remove` of one of 3, seconds", "seconds", "ties", "remove 3", 20),
    ("re-merge by task arithmetic / `sparsetv add` of the third task", "seconds", "task_arithmetic", "add 3", 20),
    ("re-merge by task arithmetic / `sparsetv remove` of one of 3", "seconds", "task_arithmetic", "remove 3", 20),
)
"""Goal, what is compared, of which row, over which row, how many times at least."""

IN_MEMORY = tuple(
    (f"re-merge by {shown} / `Composer.{way}` in memory, third task", method, way)
    for method, shown in (("ties", "TIES"), ("task_arithmetic", "task arithmetic"))
    for way in ("add", "remove")
)
