"""`sparsetv pull`, `sparsetv push` and `sparsetv card`."""

import click

from sparsetv.cli.memory import max_memory
from sparsetv.cli.output import message as say
from sparsetv.cli.output import parse_numbers, plain, print_json
from sparsetv.units import human_bytes

_accuracy = click.option(
    "--accuracy",
    "accuracies",
    multiple=True,
    metavar="NAME=0.91",
    help="An accuracy that you measured on data NAME, for the card; repeat for several.",
)


@click.command()
@click.argument("source", metavar="ORG/TASK[@REV]")
@click.option("-o", "--output", metavar="FILE.stv", help="File to write.  [default: TASK.stv in the current directory]")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@max_memory
def pull(source: str, output: str | None, as_json: bool) -> None:
    """Bring a task file from the hub and check all of it.

    ORG/REPO/NAME names one of several in a repository. Other commands take such ids, too, in place of files.
    """
    from sparsetv.jobs.hub import pull as run

    found = run(source, output)
    if as_json:
        print_json(found)
        return
    click.echo(
        f"{found.path}: {found.name}, {human_bytes(found.bytes)}, every hash as it should be; "
        f"{found.repo}@{found.commit[:12]}, digest {found.digest[:12]}"
    )


@click.command()
@click.argument("file", metavar="FILE.stv")
@click.argument("repo", metavar="ORG/TASK")
@click.option("--private", is_flag=True, help="Nobody else may see the repository; one that is public is refused.")
@click.option("--revision", metavar="BRANCH", help="Branch to write to; made where there is none.  [default: main]")
@click.option("--message", help="Message of the commit.")
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of writing to the branch.")
@click.option("--parent-commit", metavar="COMMIT", help="Write only if the branch still stands there.")
@_accuracy
@click.option("--dry-run", is_flag=True, help="Print the card and the files that would be written; ask no network.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@max_memory
def push(  # noqa: PLR0913, PLR0917  one parameter per option
    file: str,
    repo: str,
    private: bool,
    revision: str | None,
    message: str | None,
    create_pr: bool,
    parent_commit: str | None,
    accuracies: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Put a task file, with a card, onto the hub; all of it is checked first.

    It becomes the repository's `task.stv`; as ORG/REPO/NAME its `NAME.stv`. A README.md that sparsetv did not make
    stays.
    """
    from sparsetv.jobs.hub import push as run

    done = run(
        file,
        repo if revision is None else f"{repo}@{revision}",
        private=private,
        message=message,
        create_pr=create_pr,
        parent_commit=parent_commit,
        accuracy=parse_numbers(accuracies, "--accuracy"),
        dry_run=dry_run,
    )
    if as_json:
        print_json(done)
        return
    if dry_run:
        click.echo(done.card, nl=False)
        for name, size in done.files.items():
            say(f"{name}: {size:,} bytes, not written")
        return
    kept = "" if done.card else "; its README.md stays as it is"
    click.echo(plain(f"{done.pull_request or done.url}: {', '.join(done.files)}, digest {done.digest[:12]}{kept}"))


@click.command()
@click.argument("source", metavar="FILE.stv|ORG/TASK|DIR")
@_accuracy
@max_memory
def card(source: str, accuracies: tuple[str, ...]) -> None:
    """Print the model card (README.md) of a task file, or of a directory that `stitch` wrote."""
    from sparsetv.jobs.card import card as make

    click.echo(make(source, accuracy=parse_numbers(accuracies, "--accuracy")), nl=False)
