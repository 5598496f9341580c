"""The rows of the README's tables of peers in one run."""

from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]

GOALS = ["goal", "times, at least", "found", "met"]
MERGING = ["whole processes", "seconds", "processor seconds", "peak anonymous / resident", "`ties` takes"]
MERGING += ["`task_arithmetic` takes", "what is not equal"]
STORING = ["tool", "what comes back", "file", "to the file: seconds, peak anonymous / resident", "and back"]
STORING += ["what is not equal"]


def goals(result: Row) -> list[list[str]]:
    """What was asked."""
    return [
        [one["goal"], f"{one['asked']:g}", f"{one['found']:.1f}", "yes" if one["met"] else "**no**"]
        for one in result["goals"]
    ]


def merging(result: Row) -> list[list[str]]:
    """Merging, and one task more or less, on disk and in memory, each against a re-merge by mergekit."""
    theirs = {method: _seconds(result, method) for method in ("ties", "task_arithmetic")}
    lines = [_process(one, theirs) for one in (*result["merging"], *result["changing"])]
    for count, found in result["in_memory"].items():
        for way in ("add", "remove"):
            seconds = found[way]["seconds"]
            unequal = "no process, no file: the task is read before, the merged weights stay in memory"
            name = f"`Composer.{way}` in memory, {count} tasks with it"
            lines.append([name, f"{seconds:.2f}", "", "", *_times(seconds, theirs), unequal])
    return lines


def _seconds(result: Row, method: str) -> float | None:
    """Seconds of a pass of mergekit; None where it is left out."""
    found = [one.get("seconds") for one in result["merging"] if f"mergekit `{method}`" in one["name"]]
    return found[0] if found else None


def _process(one: Row, theirs: Mapping[str, float | None]) -> list[str]:
    if "left_out" in one:
        return [one["name"], "left out", "", "", "", "", one["left_out"]]
    times = _times(one["seconds"], theirs) if one["by"] == "sparsetv" else ["", ""]
    return [one["name"], f"{one['seconds']:.2f}", f"{one['processor']:.1f}", _peak(one), *times, one["unequal"]]


def _times(seconds: float, theirs: Mapping[str, float | None]) -> list[str]:
    """How many times as long mergekit's passes take."""
    return [_multiple(other / seconds) if other is not None else "" for other in theirs.values()]


def _multiple(times: float) -> str:
    return f"{times:.0f} times" if times >= 10 else f"{times:.2g} times"


def storing(result: Row) -> list[list[str]]:
    """One fine-tune to a file and back."""
    lines = []
    for one in result["storing"]:
        if "left_out" in one:
            lines.append([one["name"], one["fidelity"], "left out", "", "", one["left_out"]])
            continue
        size = f"{one['bytes'] / 1e6:.1f} MB, {100 * one['bytes'] / result['checkpoint_bytes']:.1f} %"
        ways = [f"{one[way]['seconds']:.2f} s, {_peak(one[way])}" for way in ("compress", "restore")]
        lines.append([one["name"], one["fidelity"], size, *ways, one["unequal"]])
    return lines


def _peak(one: Row) -> str:
    return f"{one['anonymous_bytes'] / 1e6:,.0f} / {one['resident_bytes'] / 1e6:,.0f} MB"
