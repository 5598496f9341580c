"""Charts as SVG inside the page: text stays text, its colour is the page's, and same input gives same bytes.

matplotlib is an extra, so it is imported where it is used; its global state is left as it was.
"""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal

from sparsetv.errors import NotFoundError
from sparsetv.report.html import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Series = Mapping[str, Sequence[tuple[float, float]]]
"""Points by the name of a line."""

_INK = "#010203"
"""Stands for the page's own text colour, until the picture is written."""
_COLORS = (
    "#2f7fc1", "#e08a1e", "#3a9a4b", "#d0504a", "#8b62c0", "#9a6a52", "#d873b5", "#7f868f", "#a8a52a", "#22a9b8",
)  # fmt: skip
_MARKERS = "osD^vP"
_WIDTH = 4.6
_LOG = 5
"""An axis that spans less is not made logarithmic: it would have too few round numbers."""


def check_matplotlib() -> None:
    """Raise NotFoundError where charts cannot be drawn."""
    try:
        import matplotlib.figure  # noqa: F401, PLC0415  an extra
    except ImportError:
        raise NotFoundError("a report needs matplotlib; install the extra: pip install 'sparsetv[demo]'") from None


def bars(
    name: str,
    rows: Sequence[tuple[str, float, bool]],
    *,
    write: Callable[[float], str],
    tick: Callable[[float], str] | None = None,
    log: bool = False,
) -> str:
    """Horizontal bars, each under its label; on a logarithmic axis, where no bar has an end, dots.

    Args:
        name: Of the picture, unique on the page.
        rows: (label, value, whether it stands out).
        write: How values are written.
        tick: How numbers of the axis are written; as values if None.
        log: Whether the axis is logarithmic where values differ enough; they must be positive.
    """
    figure, axes = _chart(0.5 + 0.5 * len(rows))
    values = [value for _, value, _ in rows]
    log = log and _spans(values) > _LOG
    left = min(values) / 2 if log else min(0.0, *values)
    colors = [_COLORS[0] if marked else _COLORS[7] for *_, marked in rows]
    places = [number + 0.18 for number in range(len(rows))]
    if log:
        axes.set_xscale("log")
        axes.hlines(places, left, values, colors=colors, linewidth=1.5)
        axes.scatter(values, places, c=colors, s=26, zorder=3)
    else:
        axes.barh(places, values, height=0.36, color=colors)
    for place, (label, value, _) in zip(places, rows, strict=True):
        axes.annotate(_short(label), (0, place - 0.24), xycoords=("axes fraction", "data"), fontsize=9.5, va="bottom")
        axes.annotate(
            write(value), (value, place), xytext=(5, 0), textcoords="offset points", fontsize=9.5, va="center"
        )
    axes.set_xlim(left, max(values) * (6 if log else 1.18) or 1)
    axes.set_ylim(len(rows) - 0.4, -0.75)
    axes.set_yticks([])
    axes.xaxis.set_major_formatter(lambda value, _place: (tick or write)(value))
    axes.xaxis.set_major_locator(_few_ticks(values, log=log))
    _clean(axes, "x")
    return _svg(figure, name)


def lines(
    name: str,
    series: Series,
    *,
    x_label: str,
    y_label: str,
    joined: bool = True,
    log: bool = False,
    write: Callable[[float], str] = "{:g}".format,
    ticks: Sequence[float] = (),
) -> str:
    """Lines, or points alone, over a number.

    Args:
        name: Of the picture, unique on the page.
        series: What is drawn; names go to the legend.
        x_label, y_label: What the axes are.
        joined: Whether points are joined.
        log: Whether the horizontal axis is logarithmic where its numbers differ enough.
        write: How its numbers are written.
        ticks: Its numbers, evenly spaced whatever they are; otherwise it has a scale.
    """
    figure, axes = _chart(2.7 + 0.21 * len(series))
    places = {tick: place for place, tick in enumerate(ticks)}
    for number, (label, points) in enumerate(series.items()):
        color, marker = _COLORS[number % len(_COLORS)], _MARKERS[number // len(_COLORS) % len(_MARKERS)]
        xs = [places.get(x, x) for x, _ in points]
        axes.plot(xs, [y for _, y in points], color=color, marker=marker, markersize=4.5, label=_short(label),
                  linewidth=1.4 if joined else 0)  # fmt: skip
    across = [x for points in series.values() for x, _ in points]
    log = log and _spans(across) > _LOG
    if log:
        axes.set_xscale("log")
    if ticks:
        axes.set_xticks(range(len(ticks)), [write(tick) for tick in ticks])
    else:
        axes.xaxis.set_major_formatter(lambda value, _place: write(value))
        axes.xaxis.set_major_locator(_few_ticks(across, log=log))
    axes.set_xlabel(x_label, fontsize=9.5, color=_INK)
    axes.set_ylabel(y_label, fontsize=9.5, color=_INK)
    figure.legend(loc="outside lower left", frameon=False, fontsize=9.5, labelcolor=_INK)
    _clean(axes, "both")
    return _svg(figure, name)


def _chart(height: float) -> "tuple[Figure, Axes]":
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.subplots()


def _few_ticks(values: Sequence[float], *, log: bool) -> Any:
    from matplotlib.ticker import LogLocator, MaxNLocator  # noqa: PLC0415

    return LogLocator(subs=(1, 2, 5) if _spans(values) < 100 else (1,), numticks=5) if log else MaxNLocator(4)


def _spans(values: Sequence[float]) -> float:
    """How many times the smallest value the largest is."""
    return max(values) / min(values) if values and min(values) > 0 else 1.0


def _short(label: str) -> str:
    """A label as it stands, not as a formula, cut to what fits."""
    text = visible(label).replace("`", "")
    return (text if len(text) <= 54 else text[:53] + "…").replace("$", r"\$")


def _clean(axes: "Axes", grid: Literal["x", "both"]) -> None:
    from matplotlib.ticker import NullLocator  # noqa: PLC0415

    axes.patch.set_visible(False)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=9, colors=_INK)
    for text in axes.texts:
        text.set_color(_INK)
    axes.spines[:].set_visible(False)
    axes.grid(axis=grid, color=_INK, alpha=0.14, linewidth=0.8)


def _svg(figure: "Figure", name: str) -> str:
    from matplotlib import rc_context  # noqa: PLC0415

    figure.patch.set_visible(False)
    file = StringIO()
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the reader's fonts are not this machine's
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = file.getvalue()
    text = _OUTSIDE.sub("", text[text.index("<svg ") :])
    return _TAG.sub(lambda tag: _adapted(tag[0], name), text).strip()


_OUTSIDE = re.compile(r"<metadata>.*?</metadata>\s*|<style .*?</style>\s*|<!--.*?-->\s*", re.DOTALL)
_TAG = re.compile(r"<[^>]*>")


def _adapted(tag: str, name: str) -> str:
    """A tag whose ids belong to this picture alone, whose ink is the page's, and which takes the page's width."""
    if tag.startswith("<svg "):
        box = re.search(r'viewBox="[^"]*"', tag)
        return f'<svg {box[0] if box else ""} aria-hidden="true">'  # tables say the same in words
    tag = re.sub(r'\bid="', f'id="{name}-', tag)
    tag = tag.replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    return tag.replace(_INK, "currentColor")
