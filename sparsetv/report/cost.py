"""Section on time and memory, beside what the machine needs for the least of it."""

from sparsetv.report import charts, numbers
from sparsetv.report.html import Content, Markup, figure, paragraph, section, table
from sparsetv.report.summary import finite, number
from sparsetv.results import Results, Row


def runtime(results: Results) -> Markup:
    """Every job's median, its spread, its peak memory, and how many times its floor it takes."""
    found = {row["of"]["what"]: row for row in results.rows
             if isinstance(row.get("of"), dict) and isinstance(row["of"].get("what"), str)}  # fmt: skip
    drawn = [(_label(what, row), seconds, row.get("floor") is not None) for what, row in found.items()
             if (seconds := number(row, "seconds") or 0) > 0]  # fmt: skip
    parts: list[Content] = []
    if drawn:
        picture = charts.bars("runtime", drawn, write=numbers.seconds, log=True)
        parts.append(figure(picture, "Median time. Grey: floors, and what has none."))
    rows = []
    for what, row in found.items():
        floor = found.get(str(row.get("floor")), {})
        rows.append((
            _label(what, row),
            numbers.seconds(number(row, "seconds")),
            _spread(row),
            numbers.size(number(row, "peak_bytes")),
            _ratio(row, floor),
            "" if not floor else _label(str(row["floor"]), floor),
            row["data"] if isinstance(row.get("data"), str) else "",
        ))  # fmt: skip
    head = ("what", "median", "all runs", "peak memory", "times the floor", "floor", "data it uses")
    parts.append(table(head, rows, caption="Time, and peak memory above the start", tail=2))
    about = "A floor is what the machine needs to read, copy or subtract the same bytes, measured in the same run."
    return section("runtime", "Time and memory", paragraph(about), *parts)


def _label(what: str, row: Row) -> str:
    label = row.get("label")
    return label if isinstance(label, str) and label else what


def _spread(row: Row) -> str:
    told = row.get("seconds_all")
    known = [value for each in told if (value := finite(each)) is not None] if isinstance(told, list) else []
    if not known:
        return ""
    low, high = numbers.seconds(min(known)), numbers.seconds(max(known))
    return f"{len(known)}: {low} to {high}" if len(known) > 1 else "1"


def _ratio(row: Row, floor: Row) -> str:
    mine, least = number(row, "seconds"), number(floor, "seconds")
    return numbers.times(mine / least if mine is not None and least else None)
