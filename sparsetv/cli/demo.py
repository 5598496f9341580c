"""`sparsetv demo`."""

import click

from sparsetv.cli.output import message, print_json


@click.command()
@click.option(
    "-o", "--output", metavar="DIR", help="Keep models, task files and picture here.  [default: a temporary directory]"
)
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def demo(output: str | None, as_json: bool) -> None:
    """Run the whole thing on an embedded default: no download, under two minutes.

    Pretrains a small vision transformer on scikit-learn's digits, fine-tunes it on several tasks, packs each, grafts,
    stitches, adds, removes, and checks every bit.
    """
    from sparsetv.jobs.demo import run_demo

    result = run_demo(output, note=message)
    if as_json:
        print_json(result)
        return
    click.echo(result.table())
