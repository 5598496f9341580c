"""Pictures of where masks fall and of what tasks share, as PNG or SVG; same input, same bytes.

matplotlib is an extra, so it is imported where it is used. No figure is registered with pyplot, and of matplotlib's
global state nothing is changed for longer than a picture takes.
"""

import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sparsetv.analyze.overlap import Overlap
from sparsetv.analyze.where import OUTSIDE, Group, Where
from sparsetv.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("png", "svg")
_GREY, _DARK, _BLACK, _BLUE, _EMPTY = "#d3d6db", "#4a5260", "#1d232b", "#2f7fc1", "#eef0f2"
_TASKS = (
    "#2f7fc1", "#e08a1e", "#3a9a4b", "#c8403a", "#8b62c0", "#8a5a44", "#d873b5", "#6f757e", "#b3b026", "#22a9b8",
    "#173f66", "#f2b98a",
)  # fmt: skip
_MOST_WRITTEN = 16
"""Above so many tasks, cells of heatmaps are too small for numbers."""

Matrix = NDArray[np.float64]


def picture_kind(path: str | Path) -> str:
    """The kind of picture that a file's name asks for, once it is known that it can be drawn.

    Raises:
        UsageError: It is neither `.png` nor `.svg`.
        NotFoundError: matplotlib is not installed.
    """
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in KINDS:
        raise UsageError(f"{path}: a picture's name ends in .png or .svg")
    try:
        import matplotlib.figure  # noqa: F401, PLC0415  an extra
    except ImportError:
        raise NotFoundError(
            f"{path}: pictures need matplotlib; install the extra: pip install 'sparsetv[demo]'"
        ) from None
    return kind


def draw_overlap(found: Overlap, *, kind: str) -> bytes:
    """Heatmaps of Jaccard and cosine, and how many tasks keep an entry.

    Below the diagonal stands what the number above it is to be judged by: the Jaccard of random masks, and the cosine
    over the shared entries alone.

    Args:
        found: What to draw; legible for 2 to 12 tasks, numbers are left out above 16.
        kind: `png` or `svg`.
    """
    names = [_literal(task.name) for task in found.tasks]
    n = len(names)
    side = max(3.4, 1.3 + 0.52 * n + 0.05 * max(map(len, names)))
    figure = _figure(2 * side + 4.4, side + 0.9)
    left, middle, right = figure.subplots(1, 3, width_ratios=(side, side, 3.6))
    jaccard, expected, cosine, shared = (
        _matrix(found, name) for name in ("jaccard", "expected", "cosine", "cosine_shared")
    )
    top = max(float(np.nanmax(np.append(jaccard, 0))), float(np.nanmax(np.append(expected, 0))), 1e-6)
    _heatmap(
        left, np.where(np.isnan(jaccard), expected.T, jaccard), names, colors="Blues", limits=(0, top), percent=True
    )
    _title(left, "Jaccard of masks, %", "below the diagonal: random masks of the same density per tensor")
    _heatmap(middle, np.where(np.isnan(cosine), shared.T, cosine), names, colors="RdBu", limits=(-1, 1))
    _title(middle, "Cosine of masked task vectors", "below the diagonal: over shared entries alone")
    _draw_coverage(right, found)
    return _save(figure, kind)


def draw_where(found: Where, *, kind: str) -> bytes:
    """A heatmap of the layers, and bars of the components with a dot per task.

    Args:
        found: What to draw; legible for up to 12 tasks.
        kind: `png` or `svg`.
    """
    names = [_literal(task.name) for task in found.tasks]
    layers = _layer_names(found.together.layers)
    tall = max(1.7 + 0.42 * len(names), 1.6 + len(found.together.components) * max(0.34, 0.055 * len(names)))
    wide = max(4.2, 1.4 + 0.5 * len(layers) + 0.08 * max(map(len, names)))
    figure = _figure(wide + 8.6, tall + 0.5)
    left, middle, right = figure.subplots(1, 3, width_ratios=(wide, 4.2, 3.0))
    shares = np.array([[group.share for group in task.layers] for task in found.tasks])
    _heatmap(left, shares, layers, rows=names, colors="Blues", limits=(0, max(float(shares.max()), 1e-6)), percent=True)
    left.set_xlabel("layer", color=_DARK, fontsize=9)
    _title(left, "Layers, % of the mask", "where each task's kept entries lie")
    _draw_shares(middle, found)
    _draw_lifts(right, found)
    return _save(figure, kind)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: "Figure", kind: str) -> bytes:
    from matplotlib import rc_context  # noqa: PLC0415

    data = BytesIO()
    metadata: dict[str, Any] = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with rc_context({"svg.hashsalt": "sparsetv", "svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in a script that the font lacks is no reason to complain
        figure.savefig(data, format=kind, metadata=metadata)
    return data.getvalue()


def _matrix(found: Overlap, field: str) -> Matrix:
    """A field of all pairs above the diagonal, NaN elsewhere and where it is not defined."""
    n = len(found.tasks)
    matrix = np.full((n, n), np.nan)
    numbers = [getattr(pair, field) for pair in found.pairs]
    matrix[np.triu_indices(n, 1)] = [np.nan if number is None else number for number in numbers]
    return matrix


def _heatmap(
    axes: "Axes",
    cells: Matrix,
    columns: Sequence[str],
    *,
    colors: str,
    limits: tuple[float, float],
    rows: Sequence[str] = (),
    percent: bool = False,
) -> None:
    from matplotlib import colormaps  # noqa: PLC0415

    shown = colormaps[colors].with_extremes(bad=_EMPTY)
    image = axes.imshow(np.ma.masked_invalid(cells), cmap=shown, vmin=limits[0], vmax=limits[1], aspect="auto")
    tilted = max(map(len, columns)) > 3
    axes.set_xticks(range(len(columns)), columns, rotation=40 if tilted else 0, ha="right" if tilted else "center",
                    rotation_mode="anchor")  # fmt: skip
    axes.set_yticks(range(len(cells)), rows or columns)
    axes.tick_params(length=0, labelsize=8.5)
    axes.set_xticks(np.arange(1, len(columns)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(cells)) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    if len(cells) > _MOST_WRITTEN:
        axes.figure.colorbar(image, ax=axes, fraction=0.04)
        return
    for (row, column), number in np.ndenumerate(cells):
        if not np.isnan(number):
            red, green, blue, _ = image.to_rgba(np.array([number]))[0]
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.62
            text = _percent(number) if percent else f"{number:.2f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color="white" if dark else _BLACK)


def _literal(name: str) -> str:
    """A name as it stands, not as a formula."""
    return name.replace("$", r"\$")


def _percent(share: float) -> str:
    """Without its sign, with two digits: 23, 2.3, 0.23."""
    value = 100 * share
    if 0 < value < 0.005:
        return "<0.01"
    return f"{value:.0f}" if value >= 9.95 or not value else f"{value:.1f}" if value >= 0.95 else f"{value:.2f}"


def _draw_coverage(axes: "Axes", found: Overlap) -> None:
    numbers = [row.tasks for row in found.coverage]
    bars = axes.bar(numbers, [100 * row.share for row in found.coverage], color=_BLUE, width=0.75)
    if len(numbers) <= _MOST_WRITTEN:
        labels = [_percent(row.share) if row.entries else "" for row in found.coverage]
        axes.bar_label(bars, labels, fontsize=7.5, padding=1, color=_DARK)
        axes.set_xticks(numbers)
    axes.set_xlabel("tasks that keep an entry", color=_DARK, fontsize=9)
    _title(
        axes, "Entries by number of tasks, %", f"of {found.union:,} kept by any, {found.union_share:.2%} of the scope"
    )
    _clean(axes, "y")


def _draw_shares(axes: "Axes", found: Where) -> None:
    groups = found.together.components
    places = range(len(groups))
    axes.barh(places, [100 * group.share for group in groups], color=_GREY, height=0.8)
    _dots(axes, found, [[100 * group.share for group in task.components] for task in found.tasks])
    axes.set_xlim(left=0)
    axes.set_yticks(places, [f"{group.name}  {_percent(group.share)}" for group in groups])
    _title(axes, "Components, % of the mask", "bars and numbers: all tasks together")
    _clean(axes, "x")
    axes.set_ylim(len(groups) - 0.4, -0.6)


def _draw_lifts(axes: "Axes", found: Where) -> None:
    from matplotlib.ticker import NullLocator  # noqa: PLC0415

    groups = found.together.components
    lifts = [[group.lift for group in task.components] for task in found.tasks]
    _dots(axes, found, lifts)
    if len(found.tasks) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8, handletextpad=0.2)
    axes.axvline(1, color=_DARK, linewidth=0.8)
    axes.set_xscale("log")
    found_lifts = [lift for row in lifts for lift in row if lift > 0]
    low, high = min([0.5, *found_lifts]) / 1.3, max([2.0, *found_lifts]) * 1.3
    axes.set_xlim(low, high)
    axes.set_xticks(ticks := [tick for tick in (0.01, 0.1, 0.2, 0.5, 1, 2, 5, 10, 50, 100) if low <= tick <= high],
                    [f"{tick:g}" for tick in ticks])  # fmt: skip
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks(range(len(groups)), [""] * len(groups))
    _title(axes, "Times the average density", "1: what a random mask has")
    _clean(axes, "x")
    axes.set_ylim(len(groups) - 0.4, -0.6)


def _dots(axes: "Axes", found: Where, rows: Sequence[Sequence[float]]) -> None:
    """One dot per task and component, the tasks a little below each other."""
    for number, (task, row) in enumerate(zip(found.tasks, rows, strict=True)):
        shift = 0.0 if len(rows) == 1 else 0.6 * (number / (len(rows) - 1) - 0.5)
        heights = [place + shift for place in range(len(row))]
        axes.scatter(
            row, heights, s=13, color=_TASKS[number % len(_TASKS)], zorder=3, linewidths=0, label=_literal(task.name)
        )


def _layer_names(groups: Sequence[Group]) -> list[str]:
    """Numbers alone where there is one stack of layers, else also what tells the stacks apart."""
    inside = [group.name.rpartition(".") for group in groups if group.name != OUTSIDE]
    stacks = {stack for stack, _, _ in inside}
    names = [number if len(stacks) == 1 else f"{stack.split('.')[0]} {number}" for stack, _, number in inside]
    return names + ["outside"] * (len(groups) > len(inside))


def _title(axes: "Axes", title: str, under: str) -> None:
    axes.set_title(title, loc="left", pad=20, fontsize=11)
    axes.text(0, 1, under, transform=axes.transAxes + _raised(axes), fontsize=7.5, color=_DARK)


def _raised(axes: "Axes") -> Any:
    from matplotlib.transforms import ScaledTranslation  # noqa: PLC0415

    return ScaledTranslation(0, 7 / 72, axes.figure.dpi_scale_trans)


def _clean(axes: "Axes", grid: Literal["x", "y"]) -> None:
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8.5)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.grid(axis=grid, color="#e6e8eb")
