"""`sparsetv pack`."""

from typing import TYPE_CHECKING, Any

import click

from sparsetv.cli.choosing import Choosing, choosing_options
from sparsetv.cli.memory import max_memory
from sparsetv.cli.output import message, parse_numbers, print_json, progress_bars
from sparsetv.units import human_bytes

if TYPE_CHECKING:
    from sparsetv.task_vector import SparseTaskVector


_LOSSLESS = {"base", "finetuned", "output", "name", "prefix", "lossless", "as_json"}


@click.command()
@click.argument("base")
@click.argument("finetuned")
@click.option("-o", "--output", required=True, metavar="TASK.stv", help="File to write.")
@click.option("--name", help="Name of the task.  [default: that of TASK.stv]")
@choosing_options
@click.option(
    "--budget",
    metavar="1%|7MB|0.3bpp",
    help="Largest size of the file: as many entries, as finely, as fit. Bytes, bits per parameter, or a share of --of.",
)
@click.option(
    "--of",
    type=click.Choice(["fp32", "stored"]),
    default="fp32",
    show_default=True,
    help="What a share means: of the fine-tune in float32, or as it is stored.",
)
@click.option(
    "--importance", multiple=True, metavar="GLOB=FACTOR", help="With --budget: what errors in some tensors count."
)
@click.option(
    "--values",
    type=click.Choice(["exact", "f16", "bf16", "q8", "q4", "q2", "sign"]),
    help="How kept deltas are stored.  [default: exact; with --budget what errs least]",
)
@click.option(
    "--probe/--no-probe",
    default=None,
    help="Run the models on random inputs to find the scale.  [default: where they can be built and run]",
)
@click.option("--mask", metavar="MASK.safetensors", help="Keep what this mask says, instead of localizing.")
@click.option(
    "--refit",
    metavar="random|FILE.jsonl|NAME[:SPLIT]",
    help="Train the kept values on the fine-tune's outputs on random inputs, or on examples.",
)
@click.option("--refit-steps", type=click.IntRange(1), default=150, show_default=True, help="Steps of refitting.")
@click.option(
    "--lossless", is_flag=True, help="Archive the whole checkpoint instead, bit for bit; `restore` gives it back."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@max_memory
def pack(  # noqa: PLR0913, PLR0917  one parameter per option
    base: str,
    finetuned: str,
    output: str,
    name: str | None,
    budget: str | None,
    of: str,
    importance: tuple[str, ...],
    values: str | None,
    probe: bool | None,
    mask: str | None,
    refit: str | None,
    refit_steps: int,
    lossless: bool,
    as_json: bool,
    **shared: Any,
) -> None:
    """Pack FINETUNED against BASE into one small, checked file.

    BASE and FINETUNED are Hugging Face directories, .safetensors files or hub ids (org/name@revision).
    """  # fmt: skip
    if lossless:
        _archive(base, finetuned, output, name, shared["prefix"], as_json=as_json)
        return
    from dataclasses import replace

    from sparsetv.jobs.inspect import inspect
    from sparsetv.jobs.options import RefitOptions
    from sparsetv.jobs.pack import pack_to

    choosing = Choosing.take(shared)
    if budget is not None and choosing.density is not None:
        raise click.UsageError("--budget decides how many entries are kept; leave out --density")
    _check_idle(click.get_current_context(), {"of": budget, "importance": budget, "refit_steps": refit})
    options = replace(choosing.options(), values=values, probe=probe, mask=mask)
    options = replace(options, budget=budget, of=of, importance=parse_numbers(importance, "--importance"))
    if refit is not None:
        options = replace(options, refit=RefitOptions(refit, options.learn.shots, refit_steps))
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
        + (f", {task.budget.energy:.1%} of the energy" if task.budget and task.budget.energy is not None else "")
        + (f", match scale {task.probe.scale:g}" if task.probe else "")
    )


def _archive(
    base: str, finetuned: str, output: str, name: str | None, prefix: tuple[str, str] | None, *, as_json: bool
) -> None:
    _check_alone(click.get_current_context())
    from sparsetv.cli.archives import size_line
    from sparsetv.jobs.archive import archive_to

    with progress_bars() as progress:
        summary = archive_to(output, base, finetuned, name=name, prefix=prefix or None, progress=progress, note=message)
    if as_json:
        print_json(summary)
    else:
        click.echo(f"{output}: {size_line(summary)}, lossless")


def _check_idle(context: click.Context, needs: dict[str, str | None]) -> None:
    """Refuse options that would do nothing without another one."""
    for name, needed in needs.items():
        given = context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
        if given and needed is None:
            other = "--refit" if name.startswith("refit") else "--budget"
            raise click.UsageError(f"--{name.replace('_', '-')} does nothing without {other}")


def _check_alone(context: click.Context) -> None:
    """Refuse options that choose what to keep: an archive keeps everything."""
    for parameter in context.command.params:
        given = context.get_parameter_source(str(parameter.name)) is not click.core.ParameterSource.DEFAULT
        if given and parameter.name not in _LOSSLESS:
            raise click.UsageError(
                f"{parameter.opts[0]} cannot go with --lossless, which keeps everything; leave it out"
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
