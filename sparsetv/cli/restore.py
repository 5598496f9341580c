"""`sparsetv restore`."""

import click

from sparsetv.cli.memory import max_memory
from sparsetv.cli.output import print_json, progress_bars
from sparsetv.units import human_bytes


@click.command()
@click.argument("base")
@click.argument("file", metavar="ARCHIVE.stv")
@click.option("-o", "--output", required=True, metavar="DIR", help="Directory to write; new or empty.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@max_memory
def restore(base: str, file: str, output: str, as_json: bool) -> None:
    """Give the checkpoint of an archive (`pack --lossless`) back, every file byte for byte."""
    from sparsetv.jobs.archive import restore as run

    with progress_bars() as progress:
        summary = run(base, file, output, progress=progress)
    if as_json:
        print_json(summary)
        return
    count = len(summary.files)
    click.echo(
        f"{output}: {count} file{'s' * (count > 1)}, {human_bytes(summary.checkpoint_bytes)}, every hash as archived"
    )
