"""`sparsetv store`: a library of many tasks of one base."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from sparsetv.cli.inspect import print_summary
from sparsetv.cli.memory import max_memory
from sparsetv.cli.output import plain, print_json, progress_bars
from sparsetv.units import human_bytes

if TYPE_CHECKING:
    from sparsetv.store.fsck import Report
    from sparsetv.store.library import Entry

_waiting = click.option(
    "--wait", type=float, default=0.0, metavar="SECONDS", help="Wait so long for another writer; else fail at once."
)


@click.group()
def store() -> None:
    """Keep many tasks of one base in a directory, by name."""


@store.command()
@click.argument("directory", metavar="STORE")
@click.option("--base", metavar="BASE", help="Base of all tasks; without it the first task decides.")
@_waiting
def init(directory: str, base: str | None, wait: float) -> None:
    """Make a new or empty directory a store."""
    from sparsetv.jobs.store import Store

    with progress_bars() as progress:
        made = Store.init(directory, base, progress=progress, wait=wait)
    known = made.known_base()
    click.echo(f"{directory}: a store, " + (f"base {known.digest[:16]}…" if known else "no base yet"))


@store.command()
@click.argument("directory", metavar="STORE")
@click.argument("task_files", nargs=-1, required=True, metavar="[TASK.stv|ORG/TASK]...")
@click.option("--name", metavar="NAME", help="Name in the store; that in the file without it.")
@click.option("--replace", is_flag=True, help="Replace a task of the same name.")
@_waiting
@max_memory
def add(directory: str, task_files: tuple[str, ...], name: str | None, replace: bool, wait: float) -> None:
    """Check task files and add them, one after the other."""
    from sparsetv.jobs.store import Store

    if name is not None and len(task_files) > 1:
        raise click.UsageError(f"--name names one task, but there are {len(task_files)} files; add them one by one")
    opened = Store.open(directory)
    for file in task_files:
        ref = opened.add(file, name, replace=replace, wait=wait)
        click.echo(f"{ref.name}: revision {ref.revision}, digest {ref.digest[:12]}, object {ref.object[:12]}")


@store.command("list")
@click.argument("directory", metavar="STORE")
@click.option("--json", "as_json", is_flag=True, help="Print the tasks as JSON.")
def list_tasks(directory: str, as_json: bool) -> None:
    """List the tasks of a store."""
    from sparsetv.jobs.store import Store

    entries = Store.open(directory).list()
    if as_json:
        print_json([asdict(entry) for entry in entries])
    else:
        _print_entries(entries)


def _print_entries(entries: Sequence["Entry"]) -> None:
    width = max((len(entry.name) for entry in entries), default=4)
    click.echo(f"{'task':{width}}  {'density':>9}  {'kept':>12}  {'file':>8}  revision  digest")
    for entry in entries:
        numbers = f"{entry.density:>9.5f}  {entry.nnz:>12,}  {human_bytes(entry.size):>8}  {entry.revision:>8}"
        click.echo(f"{entry.name:{width}}  {numbers}  {entry.digest[:12]}")


@store.command()
@click.argument("directory", metavar="STORE")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@max_memory
def show(directory: str, name: str, as_json: bool) -> None:
    """Show what a name stands for and what its file holds."""
    from sparsetv.jobs.store import Store

    shown = Store.open(directory).show(name)
    if as_json:
        print_json(shown)
        return
    ref = shown.ref
    click.echo(f"name        {ref.name}, revision {ref.revision}")
    click.echo(f"object      {ref.object}" + (f", before {ref.previous}" if ref.previous else ""))
    print_summary(shown.summary)


@store.command()
@click.argument("directory", metavar="STORE")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_waiting
def remove(directory: str, names: tuple[str, ...], wait: float) -> None:
    """Remove tasks by name or glob; `gc` removes their files later."""
    from sparsetv.jobs.store import Store

    for name in Store.open(directory).remove(*names, wait=wait):
        click.echo(f"{name}: removed")


@store.command()
@click.argument("directory", metavar="STORE")
@click.option("--dry-run", is_flag=True, help="Only tell.")
@click.option(
    "--grace",
    type=float,
    default=3600.0,
    show_default=True,
    metavar="SECONDS",
    help="Keep files that were named so short a time ago; someone may read them.",
)
@_waiting
def gc(directory: str, dry_run: bool, grace: float, wait: float) -> None:
    """Remove files that no name stands for, and what a killed writer left."""
    from sparsetv.jobs.store import Store

    collected = Store.open(directory).gc(grace=grace, dry_run=dry_run, wait=wait)
    for file in collected.files:
        click.echo(f"{file.path}: {file.size:,} bytes")
    count, verb = len(collected.files), "would go" if dry_run else "removed"
    click.echo(f"{count} file{'s' * (count != 1)}, {collected.size:,} bytes {verb}")


@store.command()
@click.argument("directory", metavar="STORE")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@max_memory
def fsck(directory: str, as_json: bool) -> None:
    """Read everything in a store and print each problem on a line; exit code 3 where there is one."""
    from sparsetv.errors import FormatError
    from sparsetv.jobs.store import Store

    report = Store.open(directory).fsck()
    if as_json:
        print_json(report)
    else:
        _print_report(report)
    if report.problems:
        count = len(report.problems)
        what = f"{count} problem{'s' * (count != 1)}"
        raise FormatError(f"{directory}: {what}; remove what does not belong there, and add damaged tasks again")


def _print_report(report: "Report") -> None:
    for problem in report.problems:
        click.echo(plain(problem))
    click.echo(
        f"names {report.refs}, files {report.objects} ({human_bytes(report.size)}), of which no name stands for "
        f"{len(report.dangling)}; temporary files {len(report.temporaries)}"
    )
