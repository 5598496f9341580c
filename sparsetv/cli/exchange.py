"""`sparsetv export` and `sparsetv import`."""

import click

from sparsetv.cli.memory import max_memory
from sparsetv.cli.output import message, print_json


@click.command()
@click.argument("task", metavar="TASK.stv|STORE:NAME")
@click.option(
    "--to",
    "form",
    required=True,
    type=click.Choice(["scipy", "safetensors", "dense", "shira", "vllm-patch"]),
    help="scipy: a directory of .npz files; safetensors: CSR arrays; dense: a checkpoint of deltas; shira: an adapter "
    "for PEFT, linear layers alone; vllm-patch: new weights at flat indices.",
)
@click.option("-o", "--output", required=True, metavar="PATH", help="File, or for scipy and shira directory, to write.")
@click.option("--base", metavar="BASE", help="vllm-patch: the base, which deltas are added to.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "base"]),
    default="float32",
    show_default=True,
    help="dense: what deltas are stored in; base: the dtype of the base's tensor, rounded once.",
)
@click.option("--scale", type=float, default=1.0, show_default=True, help="What kept deltas are multiplied by.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written and what was left out as JSON.")
@max_memory
def export(task: str, form: str, output: str, base: str | None, dtype: str, scale: float, as_json: bool) -> None:
    """Write a task in another tool's form; what the form has no place for is named."""
    from sparsetv.jobs.exchange import export_task

    done = export_task(task, output, form=form, base=base, dtype=dtype, scale=scale)
    for item in done.left_out:
        message(f"left out: {item.what}{f' ({item.entries})' if item.entries else ''}: {item.reason}")
    if as_json:
        print_json(done)
        return
    click.echo(f"{output}: {done.entries:,} entries of {done.tensors} tensors, {done.form}")


@click.command("import")
@click.argument("source", metavar="SOURCE")
@click.option(
    "--from",
    "form",
    required=True,
    type=click.Choice(["shira", "dense", "tall"]),
    help="shira: an adapter's directory; dense: a checkpoint of deltas by the base's names; tall: a directory with "
    "multitask.safetensors and masks.safetensors.",
)
@click.option("-o", "--output", required=True, metavar="TASK.stv", help="Task file to write.")
@click.option("--base", required=True, metavar="BASE", help="The base that the deltas belong to.")
@click.option("--name", metavar="NAME", help="Name of the task.  [default: the output's name]")
@click.option("--task", metavar="NAME", help="tall: whose mask.")
@max_memory
def import_(source: str, form: str, output: str, base: str, name: str | None, task: str | None) -> None:
    """Make a task file of what another tool wrote.

    What is not known of the fine-tune stays unknown: norms are those of the kept entries. No pickle is opened.
    """
    from sparsetv.jobs.exchange import import_task

    made = import_task(source, output, form=form, base=base, name=name, task=task)
    click.echo(f"{output}: {made.nnz:,} entries of {len(made.tensors)} tensors, digest {made.digest()[:12]}")
