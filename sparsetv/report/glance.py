"""The few figures that a reader wants first."""

from collections.abc import Mapping, Sequence

from sparsetv.report import numbers
from sparsetv.report.html import Markup, element, join, paragraph
from sparsetv.report.summary import Line, boards
from sparsetv.results import Results

ENOUGH = 0.99
"""Of the fine-tunes' scores, on average."""
_APART = "compression"
"""Group of methods that keep something per task, so that no one body has all tasks."""


def glance(results: Mapping[str, Results]) -> Markup:
    """Tiles, of experiments that are there."""
    tiles: list[tuple[str, str]] = []
    if "recovery" in results:
        tiles += _smallest(
            [line for board in boards(results["recovery"].rows, ("kind", "scale")) for line in board.lines]
        )
    if "merge" in results:
        for board in boards(results["merge"].rows, ("method",))[:1]:
            tiles += _merged(board.lines, len(board.tasks))
    if not tiles:
        return Markup("")
    shown = (element("div", element("b", big), element("span", small)) for big, small in tiles)
    return join([element("div", *shown, class_="glance"), paragraph("Best by the test scores shown below.")])


def _smallest(lines: Sequence[Line]) -> list[tuple[str, str]]:
    """The smallest file that keeps enough, and the best score of all files."""
    found = [
        (size, line.average.normalised, line)
        for line in lines
        if not line.is_reference and (size := line.mean("file_bytes")) and line.average.normalised is not None
    ]
    enough = [item for item in found if item[1] >= ENOUGH]
    tiles = []
    if enough:
        size, score, line = min(enough, key=lambda item: item[0])
        what = f"smallest kind of file with {ENOUGH:g} of the fine-tunes' scores or more"
        tiles.append((numbers.size(size), f"{what}: {_named(line)} ({score:.3f})"))
    if found:
        size, score, line = max(found, key=lambda item: item[1])
        what = "of the fine-tunes' scores, the most that a kind of file gives back"
        tiles.append((numbers.fixed(score), f"{what}: {_named(line)}, {numbers.size(size)}"))
    return tiles


def _named(line: Line) -> str:
    return f"{line.label}, scale {line.key[1] or 'none'}"


def _merged(lines: Sequence[Line], tasks: int) -> list[tuple[str, str]]:
    """The best method without data, and the best of all."""
    found = [
        (line.average.normalised, line)
        for line in lines
        if not line.is_reference and line.average.normalised is not None and line.whole.get("group") != _APART
    ]
    free = [item for item in found if item[1].whole.get("data") == "none"]
    tiles = []
    for several, words in ((free, "best method without data"), (found, "best method of all")):
        if several:
            score, line = max(several, key=lambda item: item[0])
            what = f"of the fine-tunes' scores, {tasks} tasks in one body, {words}"
            tiles.append((numbers.fixed(score), f"{what}: {line.label}"))
    return tiles if len(tiles) < 2 or tiles[0][0] != tiles[1][0] else tiles[:1]
