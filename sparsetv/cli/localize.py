"""`sparsetv localize`."""

from dataclasses import asdict
from typing import Any

import click

from sparsetv.cli.choosing import Choosing, choosing_options
from sparsetv.cli.memory import max_memory
from sparsetv.cli.output import print_json, progress_bars


@click.command()
@click.argument("base")
@click.argument("finetuned")
@click.option("-o", "--output", required=True, metavar="MASK.safetensors", help="File to write.")
@choosing_options
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@max_memory
def localize(base: str, finetuned: str, output: str, as_json: bool, **shared: Any) -> None:
    """Find which entries of FINETUNED minus BASE carry the skill, and write them as a mask for `pack --mask`."""
    from sparsetv.jobs.localize import find_mask

    options = Choosing.take(shared).options()
    with progress_bars() as progress:
        found = find_mask(base, finetuned, output=output, options=options, progress=progress)
    mask = found.mask
    if as_json:
        norms = {name: asdict(norm) for name, norm in found.norms.items()}
        kept = {name: len(positions) for name, positions in mask.positions.items()}
        notes = dict(found.notes)
        print_json({"path": output, "kept": kept, "density": mask.density, "notes": notes, "norms": norms})
        return
    notes_text = "".join(f", {name.replace('_', ' ')} {value:.4g}" for name, value in found.notes.items())
    click.echo(
        f"{output}: {mask.nnz:,} of {mask.numel:,} entries ({mask.density:.4%}) by {options.localizer}{notes_text}"
    )
