"""`sparsetv inspect`."""

from typing import TYPE_CHECKING

import click

from sparsetv.cli.memory import max_memory
from sparsetv.cli.output import plain, print_json
from sparsetv.units import human_bytes

if TYPE_CHECKING:
    from sparsetv.jobs.inspect import Summary


@click.command()
@click.argument("task", metavar="TASK.stv|ORG/TASK")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@max_memory
def inspect(task: str, as_json: bool) -> None:
    """Show what a task file or an archive holds and where its bytes went."""
    from sparsetv.archive.file import is_archive
    from sparsetv.hub.fetch import local
    from sparsetv.jobs.inspect import inspect as summarise

    file = local(task)
    if is_archive(file):
        from sparsetv.cli.archives import print_archive
        from sparsetv.jobs.archived import inspect_archive

        print_archive(inspect_archive(file), as_json=as_json)
        return
    summary = summarise(task)
    if as_json:
        print_json(summary)
        return
    print_summary(summary)


def print_summary(summary: "Summary") -> None:
    """A task file's summary for people."""
    _print_head(summary)
    _print_tensors(summary)


def _print_head(summary: "Summary") -> None:
    recipe, split, base = summary.recipe, summary.sizes, summary.base
    click.echo(f"task        {summary.name}")
    click.echo(f"digest      {summary.digest}")
    origin = plain(f"{base['repo']}@{base['commit']}, ") if base["repo"] else ""
    click.echo(f"base        {origin}{base['tensors']} tensors, digest {base['digest'][:16]}…")
    click.echo(
        f"kept        {summary.kept_entries:,} of {summary.scope_entries:,} entries, density {summary.density:.6g}, "
        + plain(f"{recipe['localizer']}, {recipe['allocation']} threshold, scope {_scope(recipe)}, ")
        + plain(f"values {recipe['values']}")
    )
    click.echo(
        f"file        {human_bytes(split.file)}: positions {split.positions:,}, values {split.values:,}, "
        f"extras {split.extras:,}, probe {split.probe:,}, manifest and header {split.framing:,} bytes"
    )
    bits = summary.bits
    click.echo(
        f"per entry   {sum(bits.values()):.2f} bits: positions {bits['positions']:.2f}, values {bits['values']:.2f}, "
        f"rest {bits['rest']:.2f}"
    )
    scope, checkpoint = _percent(split.core, summary.scope_bytes), _percent(split.file, summary.checkpoint_bytes)
    click.echo(
        f"share       {scope:.3f} % of the scope (without extras and probe), {checkpoint:.3f} % of the checkpoint"
    )
    if summary.energy is not None:
        click.echo(f"lost        {1 - summary.energy:.2%} of the squared L2 norm of the scope's task vector")
    if summary.budget is not None:
        click.echo(f"budget      {_budget(summary)}")
    click.echo(f"scale       {'no probe; l2 applies' if summary.scale is None else f'{summary.scale:g} (match)'}")
    for extra in summary.extras:
        click.echo(f"carried     {extra['name']} ({extra['kind']}, {extra['dtype']}, {list(extra['shape'])})")
    if summary.files:
        click.echo(f"files       {', '.join(summary.files)}")
    for name, share in summary.outside:
        click.echo(f"left out    {name}: changed outside the scope, {share:.2%} of the task vector's energy")


def _budget(summary: "Summary") -> str:
    """What was asked for, how far it is used up, for what, and what that keeps."""
    budget, split = summary.budget or {}, summary.sizes
    of = f" of {budget['of']}" if "%" in budget["asked"] else ""
    asked = plain(f"{budget['asked']}{of}") + f" = {budget['bytes']:,} bytes"
    used = f"{asked}, {_percent(split.file, budget['bytes']):.2f} % used: "
    parts = {"positions": split.positions, "values": split.values, "rest": split.file - split.positions - split.values}
    shares = ", ".join(f"{name} {_percent(size, split.file):.1f} %" for name, size in parts.items())
    kept = "values were trained" if budget["energy"] is None else f"keeps {budget['energy']:.2%} of the energy"
    return f"{used}{shares}; {kept}"


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0


def _scope(recipe: dict[str, object]) -> str:
    from sparsetv.localize.scope import Scope

    include, exclude = recipe["include"], recipe["exclude"]
    return Scope(str(recipe["preset"]), tuple(map(str, include)), tuple(map(str, exclude))).describe()  # type: ignore[call-overload]


def _print_tensors(summary: "Summary") -> None:
    width = max((len(tensor.name) for tensor in summary.tensors), default=6)
    click.echo(f"\n{'tensor':{width}}  dtype  {'kept':>10}  {'density':>9}  {'L2':>9}  shape")
    for tensor in summary.tensors:
        shape = "x".join(map(str, tensor.shape)) or "scalar"
        numbers = f"{tensor.nnz:>10,}  {tensor.density:>9.5f}  {tensor.l2:>9.4g}"
        click.echo(f"{tensor.name:{width}}  {tensor.dtype:5}  {numbers}  {shape}")
