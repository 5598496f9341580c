"""Sections on what lasts: the base's own skill after a merge, and tasks that come one after the other."""

from collections.abc import Callable, Mapping
from typing import Any

from sparsetv.report import charts, numbers
from sparsetv.report.html import Content, Markup, best, figure, paragraph, section, table
from sparsetv.report.summary import number, retentions
from sparsetv.results import Results, Row


def retention(results: Results) -> Markup:
    """How much of the base's skill at a task that was held out each method leaves."""
    found = retentions(results.rows)
    tasks = list(dict.fromkeys(task for each in found for task in each.kept))
    among = [True] * len(found)
    columns = [
        best(values, [numbers.fixed(value) for value in values], among)
        for values in (
            [each.average for each in found],
            [each.merged for each in found],
            *([each.kept[task] for each in found] for task in tasks),
        )
    ]
    rows = [(each.label, *(column[number] for column in columns)) for number, each in enumerate(found)]
    caption = "Score at each held-out task over the base's, and beside it the merged tasks' normalised scores"
    parts: list[Content] = [table(("method", "average", "merged tasks", *tasks), rows, caption=caption)]
    points = {each.label: [(each.merged, each.average)] for each in found if None not in {each.merged, each.average}}
    if points:
        picture = charts.lines("retention", points, joined=False, x_label="merged tasks, score over the fine-tunes'",  # type: ignore[arg-type]
                               y_label="held-out, score over the base's")  # fmt: skip
        parts.insert(0, figure(picture, "Right: better at what was merged. Up: more of the base is left."))
    about = (
        "One task is held out in turn and the others are merged. A linear probe that was fitted to the base's features "
        "of the held-out task reads the merged body's: what it loses, the merge has overwritten."
    )
    return section("retention", "What is left of the base's own skill", paragraph(about), *parts)


def continual(results: Results) -> Markup:
    """Scores over the tasks so far, and the time of each step."""
    methods: dict[str, dict[int, Row]] = {}
    for row in results.rows:
        of = row.get("of")
        if isinstance(of, dict) and isinstance(of.get("method"), str) and number(of, "step") is not None:
            methods.setdefault(of["method"], {})[int(of["step"])] = row
    labels = {key: _label(key, steps) for key, steps in methods.items()}
    series = {
        labels[key]: [(float(step), value) for step, row in sorted(steps.items())
                      if (value := number(row, "normalised")) is not None]
        for key, steps in methods.items()
    }  # fmt: skip
    parts: list[Content] = []
    if any(series.values()):
        ticks = sorted({step for points in series.values() for step, _ in points})
        picture = charts.lines("continual", series, x_label="step", y_label="score over the fine-tunes'", ticks=ticks)
        parts.append(figure(picture, "Mean over the tasks so far."))
    parts += [
        _steps(methods, labels, lambda row: numbers.fixed(number(row, "normalised")),
               "Score over the fine-tunes', mean over the tasks so far, after each step"),
        _steps(methods, labels, lambda row: numbers.fixed(number(row, "average")), "Score, mean over the tasks so far"),
        _last(methods, labels),
        _steps(methods, labels, lambda row: numbers.seconds(number(row, "seconds")), "Time of each step"),
        table(("method", "data it uses"), [(labels[key], _data(steps)) for key, steps in methods.items()],
              caption="What each method uses at each step", words=2),
    ]  # fmt: skip
    about = (
        "Tasks are added one by one. Time is what a step needs when the ones before it are done: dense merging starts "
        "afresh, tuning included; sparse stitching packs the new task and adds its file; continual training goes on."
    )
    return section("continual", "Task after task", paragraph(about), *parts)


def _steps(
    methods: Mapping[str, Mapping[int, Row]], labels: Mapping[str, str], show: Callable[[Row], str], caption: str
) -> Markup:
    steps = sorted({step for rows in methods.values() for step in rows})
    rows = [(labels[key], *(show(own.get(step, {})) for step in steps)) for key, own in methods.items()]
    return table(("method", *map(str, steps)), rows, caption=caption)


def _last(methods: Mapping[str, Mapping[int, Row]], labels: Mapping[str, str]) -> Markup:
    """Scores per task when all are there."""
    last = max((step for steps in methods.values() for step in steps), default=0)
    values = {key: _values(steps.get(last, {})) for key, steps in methods.items()}
    tasks = list(dict.fromkeys(task for own in values.values() for task in own))
    rows = [(labels[key], *(numbers.fixed(number(own, task)) for task in tasks)) for key, own in values.items()]
    return table(("method", *tasks), rows, caption=f"Score per task after step {last}")


def _values(row: Row) -> Mapping[str, Any]:
    values = row.get("values", row.get("value"))
    return values if isinstance(values, dict) else {}


def _data(steps: Mapping[int, Row]) -> str:
    return next((row["data"] for row in steps.values() if isinstance(row.get("data"), str)), "")


def _label(key: str, steps: Mapping[int, Row]) -> str:
    return next((row["label"] for row in steps.values() if isinstance(row.get("label"), str)), key)
