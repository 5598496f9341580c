"""`sparsetv stitch`."""

from typing import TYPE_CHECKING

import click

from sparsetv.cli.memory import max_memory
from sparsetv.cli.output import message, parse_numbers, parse_pairs, print_json, progress_bars

if TYPE_CHECKING:
    from sparsetv.compose.record import Record


verify_option = click.option(
    "--verify",
    type=click.Choice(["meta", "touched", "full"]),
    default="touched",
    show_default=True,
    help="How the base is compared with the one that a task was packed against: names, dtypes and shapes of the "
    "tensors that the task touches; their content, too; the content of all tensors.",
)


@click.command()
@click.argument("base")
@click.argument("tasks", nargs=-1, metavar="[TASK.stv|ORG/TASK|STORE:NAME,...]...")
@click.option("-o", "--output", required=True, metavar="DIR", help="Directory to write.")
@click.option(
    "--rule",
    type=click.Choice(["mean", "sum", "ties", "consensus"]),
    default="mean",
    show_default=True,
    help="What becomes of an entry that several tasks keep.",
)
@click.option(
    "--min-tasks",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="consensus: how many tasks must keep an entry.",
)
@click.option(
    "--scale",
    default="auto",
    show_default=True,
    metavar="auto|none|l2|l2-tensor|graft|match|joint|fit|NUMBER",
    help="What kept deltas are multiplied by; auto: match for one task, l2 for several; joint: found by running the "
    "models of all tasks together; fit: the same on examples.",
)
@click.option(
    "--weight",
    "weights",
    multiple=True,
    metavar="NAME=W",
    help="Weight of a task (negative: negate it); repeat for several.",
)
@click.option(
    "--fit", "fits", multiple=True, metavar="NAME=FILE", help="fit: examples of a task; repeat for all tasks."
)
@verify_option
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
@max_memory
def stitch(  # noqa: PLR0913, PLR0917  one parameter per option
    base: str,
    tasks: tuple[str, ...],
    output: str,
    rule: str,
    min_tasks: int,
    scale: str,
    weights: tuple[str, ...],
    fits: tuple[str, ...],
    verify: str,
    as_json: bool,
) -> None:
    """Put tasks onto BASE and write an ordinary checkpoint directory.

    Tasks are files, hub ids (ORG/TASK@REVISION), or tasks of a store by name or glob: STORE:sst2,mnli*. Where all come
    from stores that know their base, BASE can be left out.

    With one task the result is that task's model, head included; with several it is the base's class, and each task's
    head lies in DIR/sparsetv/heads.
    """  # fmt: skip
    from pathlib import Path

    from sparsetv.jobs.options import StitchOptions
    from sparsetv.jobs.stitch import stitch as run
    from sparsetv.scales import parse_scale
    from sparsetv.store.layout import parse_reference

    alone = parse_reference(base) is not None and not Path(base).exists()
    sources = (base, *tasks) if alone else tasks
    if not sources:
        raise click.UsageError("Missing argument 'TASK.stv...'.")
    weighed = parse_numbers(weights, "--weight")
    options = StitchOptions(rule, parse_scale(scale), weighed, min_tasks, parse_pairs(fits, "--fit"), verify=verify)
    with progress_bars() as progress:
        record = run(None if alone else base, sources, output, options=options, progress=progress, note=message)
    report(output, record, as_json=as_json)


def report(directory: str, record: "Record", *, as_json: bool) -> None:
    """Print what a directory is made of now."""
    if as_json:
        print_json(record)
        return
    count = len(record.members)
    state = "the base, bit for bit" if not count else f"{count} task{'s' * (count > 1)}, rule {record.rule}"
    click.echo(f"{directory}: {state}")
    for member in record.members:
        weight = "" if member.weight == 1 else f", weight {member.weight:g}"
        click.echo(f"  {member.name}: scale {member.scale:.4g} ({member.policy}){weight}, digest {member.digest[:12]}")
