"""`sparsetv bench`."""

from pathlib import Path
from typing import Any

import click

from sparsetv.cli.output import message, progress_bars

EXPERIMENTS = ("storage", "recovery", "merge", "groups", "density", "shots", "retention", "continual", "runtime")


@click.command()
@click.argument("experiment", type=click.Choice(EXPERIMENTS))
@click.option(
    "--suite",
    required=True,
    metavar="SUITE.toml|DIR|digits",
    help="What is measured: a suite's file, a directory with base/, fine-tunes and tasks/, or the embedded one.",
)
@click.option("-o", "--output", metavar="DIR", help="Folder of results.  [default: bench-SUITE]")
@click.option("--models", metavar="DIR", help="Where the suite's checkpoints lie.  [default: beside the suite]")
@click.option("--data", metavar="DIR", help="Where the suite's data lies.  [default: beside the suite]")
@click.option("--task", "tasks", multiple=True, metavar="GLOB", help="Only these tasks; may be repeated.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="KIND",
    help="storage, recovery: only these kinds of file, such as '1% exact', '0.15% budget', '1% learned'.",
)
@click.option(
    "--method", "methods", multiple=True, metavar="NAME", help="Only these methods; an unknown one lists all."
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N test examples of each task.")
@click.option("--device", default="auto", show_default=True, metavar="DEVICE", help="auto, cpu, cuda, mps.")
def bench(
    experiment: str,
    suite: str,
    output: str | None,
    models: str | None,
    data: str | None,
    **choice: Any,
) -> None:
    """Measure a base and its fine-tunes; a run that was stopped goes on where it was.

    \b
    storage     bytes, seconds and memory of every kind of file
    recovery    accuracy of each file alone, at every scale
    merge       all tasks in one body, by every method
    groups      the same for the suite's groups of tasks
    density     merging against the density of masks
    shots       merging against the examples that masks are learned from
    retention   how much of the base's own skill is left
    continual   task after task is added
    runtime     seconds and memory of every method and job

    Results are lines of JSON, OUTPUT/EXPERIMENT.jsonl; `sparsetv report OUTPUT` makes a page of them.
    """
    from sparsetv.bench.run import Selection, find_suite
    from sparsetv.bench.run import bench as run

    room = Path(output or f"bench-{Path(suite).stem}")
    found = find_suite(suite, room, models=models, data=data, progress=message)
    with progress_bars() as progress:
        click.echo(run(experiment, found, room, choice=Selection(**choice), progress=progress, say=message))
