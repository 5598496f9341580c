"""`sparsetv doctor`."""

from dataclasses import asdict

import click

from sparsetv.cli.output import plain, print_json


@click.command()
@click.argument("directory", metavar="[DIR]", default=".")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(directory: str, as_json: bool) -> None:
    """Show versions, devices and places, and try the whole job on a made-up task in DIR; exit code 1 if it fails."""
    from sparsetv.errors import VerifyError
    from sparsetv.jobs.doctor import doctor as look

    findings = look(directory)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            click.echo(f"{'' if finding.good else 'NOT '}{'ok':4} {finding.about:16} {plain(finding.found)}")
    bad = [finding.about for finding in findings if not finding.good]
    if bad:
        raise VerifyError(f"not as it should be: {', '.join(bad)}; see the lines above")
