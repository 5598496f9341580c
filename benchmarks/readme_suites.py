"""The rows of the tables that stand on experiments over the suite of sentences."""

from collections.abc import Sequence
from typing import Any

from benchmarks.common import RESULTS
from sparsetv.report.summary import Line, Score, boards, number, retentions
from sparsetv.results import Row, read_results

FOLDER = RESULTS / "sentences"
Table = tuple[list[str], list[list[str]]]
"""Head and rows."""


def rows_of(bench: str) -> tuple[Row, ...]:
    """Committed rows of an experiment."""
    return read_results(FOLDER / f"{bench}.jsonl").rows


def merged() -> Table:
    """Every method on the four tasks: score per task, averages, what it stores and sees."""
    (board,) = boards(rows_of("merge"), by=("method",))
    rows = []
    for line in board.lines:
        stored = number(line.whole, "stored_bytes")
        size = "" if line.is_reference else f"{stored / 1e6:.2f} MB" if stored else "a checkpoint"
        rows.append(
            [line.label, *_scores(line, board.tasks), _both(line.average), size, str(line.whole.get("data", ""))]
        )
    return ["merge", *board.tasks, "normalised / gap closed", "stored for all tasks", "data it sees"], rows


def groups() -> Table:
    """Similar and dissimilar tasks: mean score, normalised, gap closed."""
    found = boards(rows_of("groups"), by=("method",))
    lines = {board.name: {line.key: line for line in board.lines} for board in found}
    first = next(iter(lines.values()))
    rows = [
        [line.label, *(f"{_number(mine[key].average.value)} ({_both(mine[key].average)})" for mine in lines.values())]
        for key, line in first.items()
    ]
    return ["merge", *(f"{board.name}: {', '.join(board.tasks)}" for board in found)], rows


def density() -> Table:
    """Merging at growing density."""
    (board,) = boards(rows_of("density"), by=("method", "density"))
    shares = sorted({float(line.key[1]) for line in board.lines if line.key[1]})
    methods = list(dict.fromkeys(str(line.key[0]) for line in board.lines if not line.is_reference))
    found = {line.key: line for line in board.lines}
    rows = [
        [
            _METHODS[method],
            *(_both(found[method, share].average) if (method, share) in found else "" for share in shares),
        ]
        for method in methods
    ]
    return ["masks, scale", *(f"{100 * share:g} %" for share in shares)], rows


_METHODS = {
    "stitch": "magnitude, unscaled (the paper, dataless)",
    "stitch-scaled": "magnitude, `l2-tensor`",
    "stitch-joint": "magnitude, `joint`",
    "stitch-learned": "learned from 64 examples per class, unscaled (the paper)",
}


def retention() -> Table:
    """What is left of the base's skill at a task that was not merged."""
    found = retentions(rows_of("retention"))
    tasks = list(found[0].kept)
    rows = [
        [each.label, *(_number(each.kept[task]) for task in tasks), _number(each.average), _number(each.merged)]
        for each in found
    ]
    return [
        "merge of the other three",
        *(f"{task} held out" for task in tasks),
        "kept, mean",
        "merged, normalised",
    ], rows


def continual() -> Table:
    """Task after task: mean normalised score of the tasks so far, and seconds of the step."""
    rows_by: dict[str, list[Row]] = {}
    for row in rows_of("continual"):
        rows_by.setdefault(row["of"]["method"], []).append(row)
    steps = [row["of"]["step"] for row in next(iter(rows_by.values()))]
    rows = [
        [mine[0]["label"], *(f"{row['normalised']:.3f}, {row['seconds']:.0f} s" for row in mine), mine[0]["data"]]
        for mine in rows_by.values()
    ]
    return ["method", *(f"{step} tasks" for step in steps), "data it sees"], rows


def runtimes() -> Table:
    """Seconds and memory of every method and job."""
    rows, known = [], {row["of"]["what"]: row for row in rows_of("runtime")}
    for what, row in known.items():
        floor = known.get(str(row.get("floor")))
        ratio = f"{row['seconds'] / floor['seconds']:.1f}" if floor else ""
        peak = number(row, "peak_bytes")
        rows.append([str(row.get("label", what)), f"{row['seconds']:.2f} s", f"{peak / 1e6:,.0f} MB" if peak else "",
                     ratio, str(row.get("floor") or ""), str(row.get("data", ""))])  # fmt: skip
    return ["what", "seconds", "peak memory", "times its floor", "floor", "data it sees"], rows


def _scores(line: Line, tasks: Sequence[str]) -> list[str]:
    return [_number(line.scores[task].value) if task in line.scores else "" for task in tasks]


def _both(score: Score) -> str:
    gap = "" if score.gap_closed is None else f" / {score.gap_closed:.2f}"
    return f"{_number(score.normalised)}{gap}"


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.3f}"
