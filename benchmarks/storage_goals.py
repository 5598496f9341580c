"""The goals of storage, checked against the rows of one run."""

from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.storage_ours import EXACT, LOSSY, MASK, WHOLE

Row = dict[str, Any]

_OURS = {EXACT: "exact", MASK: "sign", WHOLE: "archive"}
"""Which of our rows is compared with peers of a fidelity; `sign` holds more than a mask."""

_SCOPE = {"F32": 0.90, "BF16": 0.80}
_PACK, _DECODE, _ENTROPY = 150, 400, 1.04


def goals(rows: list[Row]) -> list[Row]:
    """Each goal: what it asks, what was found where it is worst, and whether that is met."""
    return [*_sizes(rows), *_against_peers(rows), *_speeds(rows), *_entropy(rows)]


def worst(checked: list[Row]) -> list[Row]:
    """Of each kind the goal that is missed by most, or comes nearest to it."""
    found: dict[str, Row] = {}
    for one in checked:
        if one["kind"] not in found or one["margin"] < found[one["kind"]]["margin"]:
            found[one["kind"]] = one
    return list(found.values())


def _goal(kind: str, what: str, asked: str, found: float, where: str, *, margin: float) -> Row:
    """Margin: how much better than asked, as a factor; below 1 it is missed."""
    met, margin = margin >= 1, round(margin, 3)
    return {"kind": kind, "goal": what, "asked": asked, "found": found, "where": where, "met": met, "margin": margin}


def _sizes(rows: list[Row]) -> Iterator[Row]:
    for dtype, asked in _SCOPE.items():
        for optimizer in ("AdamW", "SGD", "generated"):
            own = [r for r in rows if (r["name"], r["dtype"], r["optimizer"]) == ("exact", dtype, optimizer)]
            most = max(own, key=lambda r: float(r["percent_of_scope"]))
            found = float(most["percent_of_scope"])
            what = f"exact at 1 %, {optimizer}, {dtype}, % of the scope's bytes"
            yield _goal(what, what, f"at most {asked:.2f}", found, most["pair"], margin=asked / found)


def size_of(row: Row) -> int:
    """Bytes to compare: ours without carried heads and files, which no peer has."""
    return int(row["core_bytes"] if "core_bytes" in row else row["bytes"])


def _against_peers(rows: list[Row]) -> Iterator[Row]:
    """Per peer its closest pair: the peer's bytes over ours at equal fidelity, or errors at equal bytes."""
    peers = [r for r in rows if r["by"] == "peer"]
    for name in dict.fromkeys(r["name"] for r in peers):
        own = [r for r in peers if r["name"] == name]
        working = [r for r in own if "bytes" in r]
        if not working:
            yield _goal("peers that failed", name, "above 1", 0.0, own[0]["failed"], margin=0.0)
            continue
        fidelity = working[0]["fidelity"]
        ratio = _error_ratio if fidelity == LOSSY else _size_ratio(rows)
        least = min(working, key=ratio)
        what = "error over ours at its bytes" if fidelity == LOSSY else f"bytes over ours ({fidelity})"
        failed = f"; failed on {len(own) - len(working)} pairs" if len(working) < len(own) else ""
        found = ratio(least)
        yield _goal(fidelity, f"{name}: its {what}", "above 1", round(found, 3), least["pair"] + failed, margin=found)


def _size_ratio(rows: list[Row]) -> Callable[[Row], float]:
    def ratio(row: Row) -> float:
        ours = next(r for r in rows if (r["name"], r["pair"]) == (_OURS[row["fidelity"]], row["pair"]))
        return int(row["bytes"]) / size_of(ours)

    return ratio


def _error_ratio(row: Row) -> float:
    """Ours counts as 1e-6 where it is less: the share of energy in a file has six digits."""
    return float(row["error"]) / max(float(row["ours_at_its_bytes"]["error"]), 1e-6)


def _speeds(rows: list[Row]) -> Iterator[Row]:
    ours = [r for r in rows if r["by"] == "sparsetv" and r["fidelity"] != WHOLE]
    kinds = {
        "budgets": [r for r in ours if r["name"].startswith("budget")],
        "fp32 at 1 %": [r for r in ours if not r["name"].startswith("budget") and r["dtype"] == "F32"],
        "bf16 at 1 %": [r for r in ours if not r["name"].startswith("budget") and r["dtype"] == "BF16"],
    }
    for way, asked in (("pack", _PACK), ("decode", _DECODE)):
        for kind, own in kinds.items():
            least = min(own, key=lambda r: int(r["megabytes_per_second"][way]))
            found, what = int(least["megabytes_per_second"][way]), f"{way}, {kind}, MB/s of one thread"
            yield _goal(what, what, f"at least {asked}", found, f"{least['pair']}, {least['name']}",
                        margin=found / asked)  # fmt: skip


def _entropy(rows: list[Row]) -> Iterator[Row]:
    own = [r for r in rows if r.get("over_entropy", {}).get("both")]
    for name in dict.fromkeys(r["name"] for r in own):
        most = max((r for r in own if r["name"] == name), key=lambda r: float(r["over_entropy"]["both"]))
        found = float(most["over_entropy"]["both"])
        kind = "entropy, random mask" if "random" in name else "entropy"
        what = f"{name}: positions and values over their entropy"
        yield _goal(kind, what, f"at most {_ENTROPY}", found, most["pair"], margin=_ENTROPY / found)
