"""`sparsetv convert`."""

import click

from sparsetv.cli.output import progress_bars


@click.command()
@click.argument("source", metavar="DIR|FILE.bin")
@click.option("-o", "--output", required=True, metavar="DIR", help="Directory to write; new or empty.")
def convert(source: str, output: str) -> None:
    """Write pickled weights (.bin) as a safetensors checkpoint, which all other commands read.

    The pickle is opened so that it can build tensors and nothing else. No other command ever opens one.
    """
    from sparsetv.jobs.convert import convert as run

    with progress_bars() as progress:
        names = run(source, output, progress=progress)
    click.echo(f"{output}: {len(names)} tensors")
