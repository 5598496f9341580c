"""`sparsetv report`."""

import click

from sparsetv.units import human_bytes


@click.command()
@click.argument("folder", metavar="DIR")
@click.option("-o", "--output", required=True, metavar="FILE.html", help="Page to write.")
@click.option("--title", default="", metavar="TEXT", help="Title of the page.  [default: the suite's name]")
def report(folder: str, output: str, title: str) -> None:
    """Make one self-contained page of the results in DIR (needs the extra `demo`).

    DIR holds *.jsonl as `sparsetv bench` writes them; there is a section for each experiment that is there.
    """
    from sparsetv.report.page import write_report

    click.echo(f"{output}: {human_bytes(write_report(folder, output, title=title))}")
