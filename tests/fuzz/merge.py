"""Records of batches merged into one per target, and printed as a table."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

Record = dict[str, Any]

_HEAD = ("target", "files", "seconds", "per s", "outcomes", "places", "slowest s (seed)", "MB held", "failures")


def merged(records: Iterable[Record]) -> list[Record]:
    """One record per target, targets in the order in which they came."""
    by_target: dict[str, list[Record]] = {}
    for record in records:
        by_target.setdefault(record["target"], []).append(record)
    return [_merge(target, own) for target, own in by_target.items()]


def _merge(target: str, records: Sequence[Record]) -> Record:
    outcomes = Counter[str]()
    for record in records:
        outcomes.update(record["outcomes"])
    return {
        "target": target,
        "first": min(record["first"] for record in records),
        "count": sum(record["count"] for record in records),
        "seconds": round(sum(record["seconds"] for record in records), 1),
        "outcomes": dict(outcomes.most_common()),
        "places": sorted({place for record in records for place in record["places"]}),
        "slowest": max(record["slowest"] for record in records),
        "memory": max(record["memory"] for record in records),
        "resident": max(record["resident"] for record in records),
        "failures": sorted(failure for record in records for failure in record["failures"]),
    }


def table(records: Sequence[Record]) -> str:
    """A table in Markdown: one line per target and one of all."""
    lines = [row(_HEAD), row(["---"] * len(_HEAD))]
    lines += [row(_cells(record)) for record in records]
    files, seconds = sum(r["count"] for r in records), sum(r["seconds"] for r in records)
    failures = sum(len(r["failures"]) for r in records)
    rate = f"{files / max(seconds, 1e-9):,.0f}"
    lines.append(row(["all", f"{files:,}", f"{seconds:,.0f}", rate, "", "", "", "", str(failures)]))
    return "\n".join(lines)


def _cells(record: Record) -> list[str]:
    outcomes = ", ".join(f"{name} {count:,}" for name, count in record["outcomes"].items())
    seconds, seed = record["slowest"]
    return [
        record["target"], f"{record['count']:,}", f"{record['seconds']:,.0f}",
        f"{record['count'] / max(record['seconds'], 1e-9):,.0f}", outcomes, str(len(record["places"])),
        f"{seconds:.3f} ({seed})", f"{record['memory'][0] / 1e6:.1f}", str(len(record["failures"])),
    ]  # fmt: skip


def row(cells: Sequence[str]) -> str:
    """A line of a table in Markdown."""
    return "| " + " | ".join(cells) + " |"
