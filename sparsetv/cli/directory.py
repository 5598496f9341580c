"""`sparsetv add`, `sparsetv remove`, `sparsetv tasks`."""

import click

from sparsetv.cli.memory import max_memory
from sparsetv.cli.output import parse_numbers, parse_pairs, progress_bars
from sparsetv.cli.stitch import report, verify_option

_fit = click.option(
    "--fit",
    "fits",
    multiple=True,
    metavar="NAME=FILE",
    help="Examples of a live task, where scales were fitted to such.",
)


@click.command()
@click.argument("directory", metavar="DIR")
@click.argument("task_files", nargs=-1, required=True, metavar="[TASK.stv|ORG/TASK|STORE:NAME,...]...")
@click.option("--weight", "weights", multiple=True, metavar="NAME=W", help="Weight of a task; repeat for several.")
@_fit
@verify_option
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
@max_memory
def add(
    directory: str,
    task_files: tuple[str, ...],
    weights: tuple[str, ...],
    fits: tuple[str, ...],
    verify: str,
    as_json: bool,
) -> None:
    """Add tasks to a stitched directory; one of the same name is replaced."""
    from sparsetv.jobs.stitch import add as run

    with progress_bars() as progress:
        record = run(
            directory,
            task_files,
            weights=parse_numbers(weights, "--weight"),
            fit=parse_pairs(fits, "--fit"),
            verify=verify,
            progress=progress,
        )
    report(directory, record, as_json=as_json)


@click.command()
@click.argument("directory", metavar="DIR")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_fit
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
@max_memory
def remove(directory: str, names: tuple[str, ...], fits: tuple[str, ...], as_json: bool) -> None:
    """Remove tasks, by name or glob, from a stitched directory; what they changed is the base's bits again."""
    from sparsetv.jobs.stitch import remove as run

    with progress_bars() as progress:
        record = run(directory, names, fit=parse_pairs(fits, "--fit"), progress=progress)
    report(directory, record, as_json=as_json)


@click.command()
@click.argument("directory", metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def tasks(directory: str, as_json: bool) -> None:
    """List the tasks on a stitched directory."""
    from pathlib import Path

    from sparsetv.compose.record import read_record

    report(directory, read_record(Path(directory)), as_json=as_json)
