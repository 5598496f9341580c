"""`sparsetv evaluate`."""

import click

from sparsetv.cli.memory import max_memory
from sparsetv.cli.output import print_json, progress_bars


@click.command()
@click.argument("source", metavar="DIR")
@click.option("--task", metavar="NAME|TASK.stv", help="Whose head to use, where DIR itself is no classifier.")
@click.option("--data", required=True, metavar="FILE.jsonl", help='Lines of {"text": …, "label": …}.')
@click.option("--max-length", type=click.IntRange(1), default=128, show_default=True, help="Tokens per input at most.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@max_memory
def evaluate(source: str, task: str | None, data: str, max_length: int, as_json: bool) -> None:
    """Measure the accuracy of a sequence classifier on JSON lines.

    DIR is a base, a fine-tune or a stitched directory.
    """
    from sparsetv.jobs.evaluate import evaluate as run

    with progress_bars() as progress:
        result = run(source, data, task=task, max_length=max_length, progress=progress)
    if as_json:
        print_json({"accuracy": result.value, "correct": result.correct, "total": result.total})
        return
    click.echo(f"accuracy {result.value:.4f} ({result.correct} of {result.total})")
