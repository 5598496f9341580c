"""`sparsetv overlap` and `sparsetv where`."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from sparsetv.cli.memory import max_memory
from sparsetv.cli.output import plain, print_json

if TYPE_CHECKING:
    from sparsetv.analyze.overlap import Overlap
    from sparsetv.analyze.where import Profile, Where

_Command = Callable[..., Any]


def _common(command: _Command) -> _Command:
    for decorate in reversed(
        (
            click.argument("tasks", nargs=-1, required=True, metavar="TASK.stv|ORG/TASK|STORE:NAME,..."),
            click.option("--plot", metavar="FILE.png|svg", help="Also draw a picture (needs the extra `demo`)."),
            click.option("--json", "as_json", is_flag=True, help="Print everything as JSON."),
        )
    ):
        command = decorate(command)
    return command


@click.command()
@_common
@max_memory
def overlap(tasks: tuple[str, ...], plot: str | None, as_json: bool) -> None:
    """Show which entries tasks of one base share, and whether they agree there.

    Per pair: Jaccard of the masks, beside that of random masks with as many entries in every tensor; cosine of the
    masked task vectors, whole and over shared entries alone; share of shared entries whose signs agree.
    """
    from sparsetv.jobs.analyze import overlap as compare

    found = compare(tasks, plot=plot)
    if as_json:
        print_json(found)
        return
    _print_overlap(found)


@click.command()
@_common
@max_memory
def where(tasks: tuple[str, ...], plot: str | None, as_json: bool) -> None:
    """Show in which layers and components the kept entries of tasks lie.

    `times average` is the density in the group over that of the whole mask: 1 is what a random mask has.
    """
    from sparsetv.jobs.analyze import where as locate

    found = locate(tasks, plot=plot)
    if as_json:
        print_json(found)
        return
    _print_where(found)


def _print_overlap(found: "Overlap") -> None:
    _table(
        ("task", "kept", "density"),
        [(task.name, f"{task.kept:,}", f"{task.density:.4%}") for task in found.tasks],
    )
    click.echo(f"\nkept by any task: {found.union:,} of {found.scope:,} entries ({found.union_share:.4%})")
    rows = [(f"{row.tasks}", f"{row.entries:,}", f"{row.share:.2%}") for row in found.coverage]
    _table(("by exactly", "entries", "of them"), rows)
    if found.pairs:
        click.echo("")
    pairs = sorted(found.pairs, key=lambda pair: -pair.jaccard)
    _table(
        ("tasks", "", "shared", "Jaccard", "by chance", "cosine", "shared alone", "signs agree"),
        [
            (pair.first, pair.second, f"{pair.shared:,}", f"{pair.jaccard:.4f}", f"{pair.expected:.4f}",
             _number(pair.cosine), _number(pair.cosine_shared), _number(pair.agree))
            for pair in pairs
        ],
        words=2,
    )  # fmt: skip


def _print_where(found: "Where") -> None:
    _print_groups(found, "layer", lambda profile: [(group.name, group) for group in profile.layers])
    click.echo("")
    _print_groups(found, "component", lambda profile: [(group.name, group) for group in profile.components])


def _print_groups(found: "Where", what: str, groups: "Callable[[Profile], list[tuple[str, Any]]]") -> None:
    """All tasks together, then each task's share of its own mask."""
    single = len(found.tasks) == 1
    columns = [] if single else [groups(task) for task in found.tasks]
    rows = []
    for number, (name, group) in enumerate(groups(found.together)):
        shares = (f"{column[number][1].share:.2%}" for column in columns)
        rows.append(
            (name, f"{group.kept:,}", f"{group.density:.4%}", f"{group.lift:.2f}", f"{group.share:.2%}", *shares)
        )
    heads = [] if single else [task.name for task in found.tasks]
    _table((what, "kept", "density", "times average", "of the mask", *heads), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> None:
    """Columns of one width; the first `words` to the left, numbers to the right."""
    if not rows:
        return
    lines = [[plain(cell) for cell in line] for line in (head, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        cells = (cell.ljust(width) if column < words else cell.rjust(width)
                 for column, (cell, width) in enumerate(zip(line, widths, strict=True)))  # fmt: skip
        click.echo("  ".join(cells).rstrip())


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
