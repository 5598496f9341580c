"""What results come to: scores beside base and fine-tune, and averages over tasks."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparsetv.results import Row

BASE, FINETUNED = "base", "finetuned"
"""Methods, or kinds of file, that others are compared with."""


@dataclass(frozen=True, slots=True)
class Score:
    """A score on a task's test set, or the mean of some.

    Attributes:
        value: Accuracy or F1, in [0, 1].
        normalised: Value over the fine-tune's.
        gap_closed: (value - base) / (fine-tuned - base); None where the fine-tune is no better than the base.
    """

    value: float | None
    normalised: float | None = None
    gap_closed: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One method, or one kind of file, over all tasks of a set.

    Attributes:
        key: What tells it apart, by the names asked for.
        label: What tables call it.
        scores: By task; tasks that were not measured are missing.
        average: Over all tasks of the set; empty where one is missing.
        rows: The rows by task, and under `` the row of the method itself.
    """

    key: tuple[Any, ...]
    label: str
    scores: Mapping[str, Score]
    average: Score
    rows: Mapping[str, Row]

    @property
    def is_reference(self) -> bool:
        """Whether it is the base or the fine-tunes."""
        return self.key[0] in {BASE, FINETUNED}

    @property
    def whole(self) -> Row:
        """The row of the method itself; empty where there is none."""
        return self.rows.get("", {})

    def mean(self, name: str) -> float | None:
        """Mean of a measure over the tasks' rows; None where one lacks it."""
        return mean(number(row, name) for task, row in self.rows.items() if task)


@dataclass(frozen=True, slots=True)
class Board:
    """A set of tasks, and everything that was measured on it, in the order of measuring."""

    name: str
    tasks: tuple[str, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Retention:
    """What one method leaves of the base's skill at tasks that it did not merge.

    Attributes:
        key, label: The method.
        kept: Retained over base, by held-out task.
        average: Mean of `kept` over all held-out tasks; None where one is missing.
        merged: Mean of the merged tasks' normalised scores.
    """

    key: str
    label: str
    kept: Mapping[str, float | None]
    average: float | None
    merged: float | None


def score(value: float | None, *, base: float | None, finetuned: float | None) -> Score:
    """A score beside those of base and fine-tune.

    >>> score(0.85, base=0.5, finetuned=0.9).gap_closed
    0.875
    """
    normalised = value / finetuned if value is not None and finetuned else None
    known = value is not None and base is not None and finetuned is not None and finetuned > base
    gap = (value - base) / (finetuned - base) if known else None  # type: ignore[operator]
    return Score(value, normalised, gap)


def average(scores: Sequence[Score]) -> Score:
    """Means of values, of normalised values and of closed gaps; the last over the tasks where there is a gap.

    All are None where a task was not measured: a mean over other tasks would not compare.
    """
    if any(each.value is None for each in scores):
        return Score(None)
    gaps = [each.gap_closed for each in scores if each.gap_closed is not None]
    return Score(mean(each.value for each in scores), mean(each.normalised for each in scores), mean(gaps))


def mean(values: Iterable[float | None]) -> float | None:
    """Mean; None where a value is missing, or all are."""
    listed = list(values)
    known = [value for value in listed if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(listed) else None


def boards(rows: Sequence[Row], by: tuple[str, ...]) -> tuple[Board, ...]:
    """Rows of scores by set of tasks, and in it by what tells lines apart.

    Args:
        rows: Each with `of` (`task`, `set` where there are several, and what `by` names) and `value`; rows of the task
            `` tell of the method itself. A later row replaces an earlier one of the same `of`.
        by: Names in `of` that tell lines apart, the method or the kind of file first; its `base` and `finetuned` are
            what the others are compared with.
    """
    sets: dict[str, dict[tuple[Any, ...], dict[str, Row]]] = {}
    for row in rows:
        of = row.get("of")
        if isinstance(of, dict) and isinstance(of.get("task"), str) and isinstance(of.get(by[0]), str):
            key = tuple(_plain(of.get(name)) for name in by)
            sets.setdefault(str(of.get("set", "")), {}).setdefault(key, {})[of["task"]] = row
    return tuple(_board(name, lines) for name, lines in sets.items())


def retentions(rows: Sequence[Row]) -> tuple[Retention, ...]:
    """Rows of held-out tasks by method."""
    methods: dict[str, dict[str, Row]] = {}
    for row in rows:
        of = row.get("of")
        if isinstance(of, dict) and isinstance(of.get("method"), str) and isinstance(of.get("held_out"), str):
            methods.setdefault(of["method"], {})[of["held_out"]] = row
    tasks = list(dict.fromkeys(task for held in methods.values() for task in held))
    found = []
    for key, held in methods.items():
        kept = {task: _ratio(held.get(task, {})) for task in tasks}
        merged = mean(number(row, "merged_average") for row in held.values())
        found.append(Retention(key, _label(held.values(), (key,)), kept, mean(kept.values()), merged))
    return tuple(found)


def number(row: Mapping[str, Any], name: str) -> float | None:
    """A finite number of a row; None where there is none."""
    return finite(row.get(name))


def finite(value: Any) -> float | None:
    """A value that is a finite number, as it stands; None for any other."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None


def _board(name: str, lines: Mapping[tuple[Any, ...], Mapping[str, Row]]) -> Board:
    tasks = tuple(dict.fromkeys(task for rows in lines.values() for task in rows if task))
    references = {
        (key[0], task): number(row, "value")
        for key, rows in lines.items() if key[0] in {BASE, FINETUNED}
        for task, row in rows.items()
    }  # fmt: skip
    made = []
    for key, rows in lines.items():
        scores = {
            task: score(
                number(rows[task], "value"),
                base=references.get((BASE, task)),
                finetuned=references.get((FINETUNED, task)),
            )
            for task in tasks if task in rows
        }  # fmt: skip
        over = average([scores.get(task, Score(None)) for task in tasks])
        made.append(Line(key, _label(rows.values(), key), scores, over, rows))
    return Board(name, tasks, tuple(made))


def _label(rows: Iterable[Row], key: tuple[Any, ...]) -> str:
    told = next((row["label"] for row in rows if isinstance(row.get("label"), str) and row["label"]), "")
    return told or {FINETUNED: "fine-tuned"}.get(key[0], str(key[0]))


def _ratio(row: Row) -> float | None:
    retained, base = number(row, "retained"), number(row, "base")
    return retained / base if retained is not None and base else None


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else "" if value is None else str(value)
