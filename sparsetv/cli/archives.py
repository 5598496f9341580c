"""How archives are shown."""

from typing import TYPE_CHECKING

import click

from sparsetv.cli.output import plain, print_json
from sparsetv.units import human_bytes

if TYPE_CHECKING:
    from sparsetv.jobs.archived import ArchiveSummary


def print_archive(summary: "ArchiveSummary", *, as_json: bool) -> None:
    """What an archive holds, and where its bytes went."""
    if as_json:
        print_json(summary)
        return
    base = summary.base
    origin = plain(f"{base['repo']}@{base['commit']}, ") if base["repo"] else ""
    click.echo(f"archive     {summary.name}")
    click.echo(f"base        {origin}{base['tensors']} of its tensors are needed")
    click.echo(f"file        {size_line(summary)}")
    modes = ", ".join(f"{mode} {size:,}" for mode, size in summary.modes.items())
    click.echo(f"bytes       {modes}, other {summary.other_bytes:,}")
    for file in summary.files:
        where = {"base": ", as in the base"}.get(str(file["kind"]), "")
        click.echo(f"holds       {file['name']}: {file['size']:,} bytes{where}, SHA-256 {str(file['sha256'])[:16]}…")
    width = max((len(plain(tensor.name)) for tensor in summary.tensors), default=6)
    click.echo(f"\n{'tensor':{width}}  dtype    {'stored':>12}  {'share':>7}  mode")
    for tensor in summary.tensors:
        share = 100 * tensor.stored / tensor.size if tensor.size else 0.0
        name = "" if tensor.base in (tensor.name, None) else f" ({plain(str(tensor.base))})"
        listed = ", ".join(tensor.modes) + name
        click.echo(f"{plain(tensor.name):{width}}  {tensor.dtype:7}  {tensor.stored:>12,}  {share:>6.2f}%  {listed}")


def size_line(summary: "ArchiveSummary") -> str:
    """Bytes of an archive and the share of the checkpoint that they are."""
    share = 100 * summary.file_bytes / summary.checkpoint_bytes if summary.checkpoint_bytes else 0.0
    return (
        f"{human_bytes(summary.file_bytes)}, {share:.3f} % of the checkpoint's {human_bytes(summary.checkpoint_bytes)}"
    )
