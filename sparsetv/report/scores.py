"""Tables that all experiments with scores share."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sparsetv.report import numbers
from sparsetv.report.html import Content, Markup, best, table
from sparsetv.report.summary import Board, Line, Score

Names = Callable[[Line], Sequence[str]]
"""First cells of a line."""

RELATIVE = "Each score over the fine-tune's / share of the gap between base and fine-tune that is closed"


def absolute(
    board: Board,
    head: Sequence[str],
    names: Names,
    *,
    caption: str,
    more: Mapping[str, Callable[[Line], str]] | None = None,
) -> Markup:
    """Scores per task, and their three averages; the best of each column in bold, base and fine-tunes aside."""
    extra = more or {}
    averages = [
        _column(board, lambda line: line.average.value),
        _column(board, lambda line: line.average.normalised),
        _column(board, lambda line: line.average.gap_closed),
    ]
    tasks = [_column(board, lambda line, t=task: line.scores.get(t, Score(None)).value) for task in board.tasks]  # type: ignore[misc]
    rows = [
        (
            *names(line),
            *(column[number] for column in averages),
            *(tell(line) for tell in extra.values()),
            *(column[number] for column in tasks),
        )
        for number, line in enumerate(board.lines)
    ]
    heads = (*head, "average", "normalised", "gap closed", *extra, *board.tasks)
    return table(heads, rows, caption=caption, words=len(head))


def relative(board: Board, head: Sequence[str], names: Names) -> Markup:
    """Normalised score and closed gap per task, of all but base and fine-tunes."""
    rows = [
        (*names(line), _pair(line.average), *(_pair(line.scores.get(task, Score(None))) for task in board.tasks))
        for line in board.lines
        if not line.is_reference
    ]
    return table((*head, "average", *board.tasks), rows, caption=RELATIVE, words=len(head))


def _column(board: Board, value: Callable[[Line], float | None]) -> list[Content]:
    values = [value(line) for line in board.lines]
    return best(values, [numbers.fixed(each) for each in values], [not line.is_reference for line in board.lines])


def _pair(score: Score) -> str:
    return numbers.pair(score.normalised, score.gap_closed)


def metrics(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the values are, in words."""
    by_task: dict[str, str] = {
        str(row["of"].get("task", "")): row["metric"]
        for row in rows
        if isinstance(row.get("of"), dict) and isinstance(row.get("metric"), str)
    }
    names = sorted(set(by_task.values()))
    if not names:
        return "score"
    if len(names) == 1:
        return names[0]
    last = ", ".join(f"{task} {metric}" for task, metric in by_task.items() if metric != "accuracy")
    return f"accuracy ({last})" if "accuracy" in names else last
