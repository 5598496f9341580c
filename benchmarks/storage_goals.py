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
    """Each goal: what it asks, what was found at worst, whether that is met, and by which pair."""
    return [*_sizes(rows), *_against_peers(rows), *_speeds(rows), *_entropy(rows)]


def _goal(what: str, asked: str, found: object, where: str, *, met: bool) -> Row:
    return {"goal": what, "asked": asked, "found": found, "where": where, "met": met}


def _sizes(rows: list[Row]) -> Iterator[Row]:
    for dtype, asked in _SCOPE.items():
        for optimizer in ("AdamW", "SGD"):
            own = [r for r in rows if (r["name"], r["dtype"], r["optimizer"]) == ("exact", dtype, optimizer)]
            worst = max(own, key=lambda r: float(r["percent_of_scope"]))
            found = worst["percent_of_scope"]
            what = f"exact at 1 %, {optimizer}, {dtype}, % of the scope's bytes"
            yield _goal(what, f"<= {asked:.2f}", found, worst["pair"], met=found <= asked)


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
            yield _goal(f"smaller than {name}", "> 1", own[0].get("failed", ""), "nowhere: it failed", met=False)
            continue
        ratio = _error_ratio if working[0]["fidelity"] == LOSSY else _size_ratio(rows)
        worst = min(working, key=ratio)
        found = round(ratio(worst), 3)
        what = (
            "error over ours at its bytes" if worst["fidelity"] == LOSSY else f"bytes over ours ({worst['fidelity']})"
        )
        failed = f"; failed on {len(own) - len(working)} pairs" if len(working) < len(own) else ""
        yield _goal(f"{name}: its {what}", "> 1", found, worst["pair"] + failed, met=found > 1)


def _size_ratio(rows: list[Row]) -> Callable[[Row], float]:
    def ratio(row: Row) -> float:
        ours = next(r for r in rows if (r["name"], r["pair"]) == (_OURS[row["fidelity"]], row["pair"]))
        return int(row["bytes"]) / size_of(ours)

    return ratio


def _error_ratio(row: Row) -> float:
    """Ours counts as 1e-6 where it is less: the share of energy in a file has six digits."""
    return float(row["error"]) / max(float(row["ours_at_its_bytes"]["error"]), 1e-6)


def _speeds(rows: list[Row]) -> Iterator[Row]:
    for way, asked, what in (("pack", _PACK, "pack"), ("decode", _DECODE, "decode")):
        for kind in ("at 1 %", "budgets"):
            own = [r for r in rows if r["by"] == "sparsetv" and r["fidelity"] != WHOLE]
            own = [r for r in own if r["name"].startswith("budget") == (kind == "budgets")]
            worst = min(own, key=lambda r, way=way: int(r["megabytes_per_second"][way]))  # type: ignore[misc]
            found = worst["megabytes_per_second"][way]
            where = f"{worst['pair']}, {worst['name']}"
            yield _goal(f"{what}, {kind}, MB/s of one thread", f">= {asked}", found, where, met=found >= asked)


def _entropy(rows: list[Row]) -> Iterator[Row]:
    own = [r for r in rows if r.get("over_entropy", {}).get("both")]
    for name in dict.fromkeys(r["name"] for r in own):
        worst = max((r for r in own if r["name"] == name), key=lambda r: float(r["over_entropy"]["both"]))
        found = worst["over_entropy"]["both"]
        what = f"{name}: positions and values over their entropy"
        yield _goal(what, f"<= {_ENTROPY}", found, worst["pair"], met=found <= _ENTROPY)
