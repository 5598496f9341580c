"""Sections on several tasks in one body: all methods, groups of tasks, growing density, growing data."""

from collections.abc import Callable, Sequence
from typing import Any

from sparsetv.report import charts, numbers
from sparsetv.report.html import Content, Markup, element, figure, paragraph, section, table
from sparsetv.report.scores import absolute, metrics, relative
from sparsetv.report.summary import Board, Line, boards, number
from sparsetv.results import Results

_HEAD = ("method",)


def merge(results: Results) -> Markup:
    """Every method on every set of tasks, and what each used and kept."""
    about = "All tasks share one body; each is scored under its own head."
    return section("merge", "Several tasks in one body", paragraph(about), *_sets(results, "merge"))


def groups(results: Results) -> Markup:
    """The same on groups of tasks, such as similar and dissimilar ones."""
    about = "Merging is harder the less the tasks have in common."
    return section("groups", "Groups of tasks", paragraph(about), *_sets(results, "groups"))


def density(results: Results) -> Markup:
    """Merging against the fraction of entries that each task keeps."""
    about = "Each task keeps this fraction of the scope's entries."
    return section("density", "Density of the masks", paragraph(about), *_sweep(results, "density", numbers.percent))


def shots(results: Results) -> Markup:
    """Merging against the number of examples that masks are learned from."""
    about = "Masks learned from this many labelled examples per class; 0 is a mask found without data."
    return section(
        "shots", "Examples that masks are learned from", paragraph(about), *_sweep(results, "shots", "{:g}".format)
    )


def _sets(results: Results, name: str) -> list[Content]:
    parts: list[Content] = []
    found = boards(results.rows, _HEAD)
    published = any(number(line.whole, "published") is not None for board in found for line in board.lines)
    for place, board in enumerate(found):
        if len(found) > 1:
            parts.append(element("h3", f"{board.name}: {', '.join(board.tasks)}"))
        parts += _bars(board, f"{name}{place}")
        more = {"published": lambda line: numbers.fixed(number(line.whole, "published"))} if published else {}
        caption = f"Test {metrics(results.rows)} per task"
        parts += [absolute(board, _HEAD, _label, caption=caption, more=more), relative(board, _HEAD, _label)]
        parts.append(_used(board))
    return parts


def _label(line: Line) -> tuple[str]:
    return (line.label,)


def _bars(board: Board, name: str) -> list[Content]:
    drawn = [
        (line.label, line.average.normalised, _told(line, "group") == "ours")
        for line in board.lines if not line.is_reference and line.average.normalised is not None
    ]  # fmt: skip
    if not drawn:
        return []
    marked = " Blue: sparse task vectors." if any(each for *_, each in drawn) else ""
    return [
        figure(
            charts.bars(name, drawn, write=numbers.fixed, tick="{:g}".format),
            f"Score over the fine-tune's, mean over tasks.{marked}",
        )
    ]


def _used(board: Board) -> Markup:
    rows = [
        (line.label, _told(line, "data"), numbers.plain(line.whole.get("settings")),
         numbers.seconds(number(line.whole, "seconds")), numbers.size(number(line.whole, "peak_bytes")),
         numbers.size(number(line.whole, "stored_bytes")))
        for line in board.lines if not line.is_reference
    ]  # fmt: skip
    head = ("method", "data it uses", "settings", "time", "peak memory", "stored for all tasks")
    caption = "What each method uses, chose, and keeps beside base and heads; nothing stored means one whole checkpoint"
    return table(head, rows, caption=caption, words=3)


def _told(line: Line, name: str) -> str:
    """What a row of the method, or else one of its tasks' rows, says."""
    rows = [line.whole, *line.rows.values()]
    return next((row[name] for row in rows if isinstance(row.get(name), str)), "")


def _sweep(results: Results, name: str, write: Callable[[float], str]) -> list[Content]:
    parts: list[Content] = []
    for place, board in enumerate(boards(results.rows, ("method", name))):
        parts += _curves(board, f"{name}{place}", name, write)
        names = _names(write)
        caption = f"Test {metrics(results.rows)} per task"
        parts += [absolute(board, ("method", name), names, caption=caption), relative(board, ("method", name), names)]
        parts.append(_data(board))
    return parts


def _names(write: Callable[[float], str]) -> Callable[[Line], Sequence[str]]:
    def names(line: Line) -> Sequence[str]:
        value: Any = line.key[1]
        return line.label, "" if line.is_reference else write(value) if isinstance(value, int | float) else str(value)

    return names


def _curves(board: Board, name: str, what: str, write: Callable[[float], str]) -> list[Content]:
    series: dict[str, list[tuple[float, float]]] = {}
    for line in board.lines:
        at, value = line.key[1], line.average.normalised
        if not line.is_reference and isinstance(at, int | float) and value is not None:
            series.setdefault(str(line.key[0]), []).append((float(at), value))
    if not series:
        return []
    ticks = sorted({at for points in series.values() for at, _ in points})
    ordered = {key: sorted(points) for key, points in series.items()}
    picture = charts.lines(name, ordered, x_label=what, y_label="score over the fine-tune's", write=write, ticks=ticks)
    return [figure(picture, "Means over tasks.")]


def _data(board: Board) -> Markup:
    used = dict.fromkeys((line.label, _told(line, "data")) for line in board.lines if not line.is_reference)
    return table(("method", "data it uses"), list(used), caption="What each method uses", words=2)
