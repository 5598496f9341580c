"""`sparsetv pack`."""

from typing import TYPE_CHECKING

import click

from sparsetv.cli.output import human_bytes, message, print_json, progress_bars

if TYPE_CHECKING:
    from sparsetv.task_vector import SparseTaskVector


@click.command()
@click.argument("base")
@click.argument("finetuned")
@click.option("-o", "--output", required=True, metavar="TASK.stv", help="File to write.")
@click.option("--name", help="Name of the task.  [default: that of TASK.stv]")
@click.option("--density", type=float, default=0.01, show_default=True, help="Fraction of the scope's entries to keep.")
@click.option(
    "--scope",
    multiple=True,
    default=("blocks",),
    show_default=True,
    metavar="blocks|body|all|GLOB",
    help="Tensors that may keep entries; repeat for several globs, '!GLOB' excludes.",
)
@click.option(
    "--allocation",
    type=click.Choice(["global", "tensor"]),
    default="global",
    show_default=True,
    help="One threshold for all tensors, or the same density in each.",
)
@click.option(
    "--values",
    type=click.Choice(["exact", "sign"]),
    default="exact",
    show_default=True,
    help="Exact deltas, or one bit per entry.",
)
@click.option(
    "--prefix", nargs=2, metavar="FROM TO", help="How base names become the fine-tune's, if the rule cannot tell."
)
@click.option(
    "--probe/--no-probe",
    default=None,
    help="Run the models on random inputs to find the scale.  [default: where they can be built and run]",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the probe's inputs.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def pack(  # noqa: PLR0913, PLR0917  one parameter per option
    base: str,
    finetuned: str,
    output: str,
    name: str | None,
    density: float,
    scope: tuple[str, ...],
    allocation: str,
    values: str,
    prefix: tuple[str, str] | None,
    probe: bool | None,
    seed: int,
    as_json: bool,
) -> None:
    """Pack FINETUNED against BASE into one small, checked file.

    BASE and FINETUNED are Hugging Face directories, .safetensors files or hub ids (org/name@revision).
    """  # fmt: skip
    from sparsetv.jobs.inspect import inspect
    from sparsetv.jobs.options import PackOptions
    from sparsetv.jobs.pack import pack_to
    from sparsetv.localize.scope import Scope

    options = PackOptions(
        density=density,
        scope=Scope.parse(scope),
        allocation=allocation,
        values=values,
        prefix=prefix or None,
        probe=probe,
        seed=seed,
    )
    with progress_bars() as progress:
        task = pack_to(output, base, finetuned, name=name, options=options, progress=progress, note=message)
    _report(task)
    if as_json:
        print_json(inspect(output))
        return
    summary = inspect(output)
    click.echo(
        f"{output}: {human_bytes(summary.sizes.file)}, {task.nnz:,} of {task.numel:,} entries ({task.density:.4%}), "
        f"{100 * summary.sizes.core / summary.scope_bytes:.3f} % of the scope, "
        f"{100 * summary.sizes.file / summary.checkpoint_bytes:.3f} % of the checkpoint"
        + (f", match scale {task.probe.scale:g}" if task.probe else "")
    )


def _report(task: "SparseTaskVector") -> None:
    tuned = task.finetuned
    if tuned.prefix != ("", ""):
        message(
            f"names: {tuned.prefix[0] or '(nothing)'} in the base is {tuned.prefix[1] or '(nothing)'} in the fine-tune"
        )
    if tuned.dtype:
        message(f"dtype: the fine-tune is {tuned.dtype}; it was cast to the base's")
    if tuned.missing:
        message(f"not in the fine-tune: {', '.join(tuned.missing)}")
    if task.extras:
        listed = ", ".join(f"{name} ({extra.kind})" for name, extra in task.extras.items())
        message(f"carried whole: {listed}")
    if tuned.outside:
        share = sum(part for _, part in tuned.outside)
        names = ", ".join(name for name, _ in tuned.outside[:4]) + (", …" if len(tuned.outside) > 4 else "")
        message(
            f"changed outside the scope, not kept: {names} ({share:.1%} of the task vector's energy); "
            "widen --scope to keep entries there"
        )
