"""One picture of the demo's outcome: accuracy per task, and bytes per task."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from sparsetv.atomic import write_file
from sparsetv.demo.rows import Row
from sparsetv.errors import UsageError

_GREY, _DARK, _BLUE, _ORANGE = "#c3c7cd", "#4a5260", "#2f7fc1", "#e08a1e"

_MODELS = (
    ("base", "base + task head", _GREY),
    ("finetuned", "fine-tuned", _DARK),
    ("grafted", "grafted (this task)", _BLUE),
    ("stitched", "stitched (all tasks)", _ORANGE),
)
_BAR = 0.2
_UNITS = ("B", "kB", "MB", "GB", "TB")


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw accuracies as grouped bars and sizes on a logarithmic axis, and write them as one PNG.

    No figure is registered with pyplot, and matplotlib's global state is not changed.

    Args:
        rows: One per task, drawn in this order.
        path: File to write.

    Raises:
        UsageError: No rows, or a size that is not positive.
        OutputError: The file cannot be written.
    """
    if not rows or min(min(row.file_bytes, row.checkpoint_bytes) for row in rows) <= 0:
        raise UsageError(f"expected one or more rows with sizes above 0 bytes, found {list(rows)}")
    figure = Figure(figsize=(max(9.0, 3.2 + 1.7 * len(rows)), 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(2.2, 1))
    _draw_accuracy(left, rows)
    _draw_sizes(right, rows)
    png = BytesIO()
    figure.savefig(png, format="png")
    write_file(path, [png.getvalue()])


def _draw_accuracy(axes: Axes, rows: Sequence[Row]) -> None:
    for place, (field, label, color) in enumerate(_MODELS):
        centers = [index + (place - (len(_MODELS) - 1) / 2) * _BAR for index in range(len(rows))]
        heights = [getattr(row, field) for row in rows]
        bars = axes.bar(centers, heights, width=_BAR * 0.92, color=color, label=label)
        axes.bar_label(bars, [f"{100 * height:.0f}" for height in heights], fontsize=7, padding=1, color=_DARK)
    axes.set_xticks(range(len(rows)), [row.task for row in rows])
    axes.set_ylim(0, 1.04)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.set_title("Test accuracy", loc="left", pad=28)
    axes.legend(ncols=len(_MODELS), loc="lower left", bbox_to_anchor=(-0.01, 1.0), frameon=False, fontsize=8.5)
    _clean(axes)
    axes.grid(axis="y", color="#e6e8eb")


def _draw_sizes(axes: Axes, rows: Sequence[Row]) -> None:
    places = range(len(rows))
    sizes = [row.file_bytes for row in rows]
    whole = [row.checkpoint_bytes for row in rows]
    axes.hlines(places, sizes, whole, color=_GREY, linewidth=2)
    axes.scatter(whole, places, color=_DARK, s=46, zorder=3, label="checkpoint")
    axes.scatter(sizes, places, color=_BLUE, s=46, zorder=3, label="sparsetv file")
    for place, row in zip(places, rows, strict=True):
        text = f"{_human(row.file_bytes)}, {row.file_bytes / row.checkpoint_bytes:.2%} of the checkpoint"
        axes.annotate(text, (row.file_bytes, place), xytext=(0, 7), textcoords="offset points", fontsize=8, color=_DARK)
    axes.set_xscale("log")
    axes.set_xlim(min(sizes + whole) / 2, max(sizes + whole) * 2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _position: _human(size)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks(places, [row.task for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.6)
    axes.set_title("Bytes per task", loc="left", pad=28)
    axes.legend(ncols=2, loc="lower left", bbox_to_anchor=(-0.02, 1.0), frameon=False, fontsize=8.5, handletextpad=0.2)
    _clean(axes)
    axes.grid(axis="x", color="#e6e8eb")


def _clean(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _human(size: float) -> str:
    """A size with decimal units, as file managers and the hub show it: 31.9 kB."""
    power = 0
    while size >= 999.5 and power < len(_UNITS) - 1:
        size /= 1000
        power += 1
    return f"{size:.3g} {_UNITS[power]}"
