"""`sparsetv verify`."""

import click

from sparsetv.cli.memory import max_memory
from sparsetv.cli.output import print_json, progress_bars


@click.command()
@click.argument("task", metavar="TASK.stv|ORG/TASK")
@click.option("--base", help="Compare the hashes of this base's tensors.")
@click.option(
    "--finetuned", help="Compare every kept entry, or archived byte, with this fine-tune, bit for bit; needs --base."
)
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
@max_memory
def verify(task: str, base: str | None, finetuned: str | None, as_json: bool) -> None:
    """Check everything about a task file or an archive that can be checked."""
    from dataclasses import asdict

    from sparsetv.jobs.verify import verify as check

    with progress_bars() as progress:
        checks = check(task, base=base, finetuned=finetuned, progress=progress)
    if as_json:
        print_json([asdict(item) for item in checks])
        return
    for item in checks:
        click.echo(f"ok  {item.name:10} {item.found}")
