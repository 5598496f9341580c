"""Sections on task files: what they weigh, and how much skill they give back alone."""

from collections.abc import Mapping, Sequence

from sparsetv.report import charts, numbers
from sparsetv.report.html import Markup, figure, paragraph, section, table
from sparsetv.report.scores import absolute, metrics, relative
from sparsetv.report.summary import Board, Line, boards, mean, number
from sparsetv.results import Results, Row


def storage(results: Results) -> Markup:
    """Bytes of every kind of file per task, where they went, and what making them took."""
    rows = [row for row in results.rows if isinstance(row.get("of"), dict) and isinstance(row["of"].get("kind"), str)]
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        kinds.setdefault(row["of"]["kind"], []).append(row)
    sizes = [(kind, mean(number(row, "file_bytes") for row in own)) for kind, own in kinds.items()]
    drawn = [(kind, value, True) for kind, value in sizes if value and value > 0]
    parts = [_weights(kinds), _per_task(kinds)]
    if drawn:
        picture = charts.bars("storage", drawn, write=numbers.size, log=True)
        parts.insert(0, figure(picture, "Bytes of a file, mean over tasks."))
    about = "Sizes are those of the files, with heads, tokenizer, probe and every header in them."
    return section("storage", "What a fine-tune weighs", paragraph(about), *parts)


def _weights(kinds: Mapping[str, Sequence[Row]]) -> Markup:
    head = ("kind of file", "file", "of the checkpoint", "of float32", "times smaller", "of the scope",
            "bits per entry", "positions", "values", "rest", "time to pack", "peak memory")  # fmt: skip
    rows = []
    for kind, own in kinds.items():
        of_checkpoint = mean(_share(row, "checkpoint_bytes") for row in own)
        bits = [mean(number(row.get("bits") or {}, part) for row in own) for part in ("positions", "values", "rest")]
        known = [each for each in bits if each is not None]
        rows.append((
            kind,
            numbers.size(mean(number(row, "file_bytes") for row in own)),
            numbers.percent(of_checkpoint),
            numbers.percent(mean(_share(row, "fp32_bytes") for row in own)),
            numbers.times(1 / of_checkpoint if of_checkpoint else None),
            numbers.percent(mean(_share(row, "scope_bytes") for row in own)),
            numbers.fixed(sum(known), 2) if len(known) == len(bits) else "",
            *(numbers.fixed(each, 2) for each in bits),
            numbers.seconds(mean(number(row, "seconds") for row in own)),
            numbers.size(mean(number(row, "peak_bytes") for row in own)),
        ))  # fmt: skip
    return table(head, rows, caption="Means over tasks. The scope is what entries are kept of, in its own dtype.")


def _per_task(kinds: Mapping[str, Sequence[Row]]) -> Markup:
    tasks = list(dict.fromkeys(str(row["of"].get("task", "")) for own in kinds.values() for row in own))
    rows = []
    for kind, own in kinds.items():
        by_task = {str(row["of"].get("task", "")): row for row in own}
        rows.append((kind, *(_weight(by_task.get(task, {})) for task in tasks)))
    return table(
        ("kind of file", *tasks), rows, caption="Per task: bytes of the file, and their share of the checkpoint"
    )


def _weight(row: Row) -> str:
    share = _share(row, "checkpoint_bytes")
    size = numbers.size(number(row, "file_bytes"))
    return size if share is None else f"{size}, {numbers.percent(share)}"


def _share(row: Row, of: str) -> float | None:
    part, whole = number(row, "file_bytes"), number(row, of)
    return part / whole if part is not None and whole else None


def recovery(results: Results) -> Markup:
    """Scores of each fine-tune from its file alone, at every scale."""
    found = boards(results.rows, ("kind", "scale"))
    parts: list[Markup] = []
    for place, board in enumerate(found):
        size = {"file": lambda line: numbers.size(line.mean("file_bytes"))}
        caption = f"Test {metrics(results.rows)} of each fine-tune, from its file alone; `file` is their mean size"
        parts += [*_trade(board, f"recovery{place}"), absolute(board, _HEAD, _names, caption=caption, more=size)]
        parts += [relative(board, _HEAD, _names), _factors(board)]
    about = (
        "One file on the base, under the fine-tune's own head. `base` is the base's body under that head. The scale is "
        "what kept entries are multiplied by to make up for those that were dropped."
    )
    return section("recovery", "How much skill a file gives back", paragraph(about), *parts)


_HEAD = ("kind of file", "scale")


def _names(line: Line) -> tuple[str, str]:
    return line.label, str(line.key[1])


def _trade(board: Board, name: str) -> list[Markup]:
    """Normalised score against size, a line per scale."""
    series: dict[str, list[tuple[float, float]]] = {}
    for line in board.lines:
        size = line.mean("file_bytes") or 0
        if size > 0 and line.average.normalised is not None and not line.is_reference:
            series.setdefault(f"scale {line.key[1] or '1'}", []).append((size, line.average.normalised))
    if not series:
        return []
    picture = charts.lines(name, {key: sorted(points) for key, points in series.items()}, log=True, joined=False,
                           x_label="bytes of the file", y_label="score over the fine-tune's",
                           write=numbers.size)  # fmt: skip
    return [figure(picture, "Means over tasks; a point per kind of file and scale. The fine-tunes are at 1.")]


def _factors(board: Board) -> Markup:
    rows = [
        (*_names(line), *(numbers.fixed(number(line.rows.get(task, {}), "factor")) for task in board.tasks))
        for line in board.lines if line.mean("factor") is not None
    ]  # fmt: skip
    return table((*_HEAD, *board.tasks), rows, caption="Factor that kept entries were multiplied by", words=2)
