"""Options that `pack` and `localize` share: which entries are kept, and what localizers learn from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sparsetv.cli.output import parse_pairs

if TYPE_CHECKING:
    from sparsetv.jobs.options import PackOptions

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--density",
        metavar="FRACTION|own",
        help="Fraction of the scope's entries to keep; own: what the localizer arrives at.  [default: 0.01]",
    ),
    click.option(
        "--scope",
        multiple=True,
        metavar="blocks|body|all|GLOB",
        help="Tensors that may keep entries; repeat for several globs, '!GLOB' excludes.  [default: blocks; with "
        "--budget body]",
    ),
    click.option(
        "--allocation",
        type=click.Choice(["global", "tensor", "balanced"]),
        help="One threshold for all tensors, or the same density in each; with --budget what an error counts: the same "
        "everywhere, or relative to the tensor's own change, or between.  [default: global; with --budget tensor]",
    ),
    click.option(
        "--localizer",
        type=click.Choice(["magnitude", "learned", "grafting", "saliency", "tall", "random"]),
        default="magnitude",
        show_default=True,
        help="How entries are chosen.",
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        help="A parameter of the localizer (learned: variant, rate, epochs, l1, push, start; grafting: rate, steps, "
        "bias; saliency: signed, points; tall: factor; random: exact); repeat for several.",
    ),
    click.option(
        "--data",
        default="random",
        show_default=True,
        metavar="FILE.jsonl|NAME[:SPLIT]|random",
        help="Examples to learn from; random: random inputs and the fine-tune's outputs.",
    ),
    click.option("--shots", default="64", show_default=True, metavar="N|all", help="Examples per class."),
    click.option(
        "--target",
        type=click.Choice(["labels", "finetuned"]),
        default="labels",
        show_default=True,
        help="Learn from the examples' labels, or from the fine-tune's outputs on them.",
    ),
    click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Examples per step."),
    click.option("--batches", type=click.IntRange(1), default=16, show_default=True, help="Batches of random inputs."),
    click.option(
        "--max-length", type=click.IntRange(2), default=128, show_default=True, help="Cut texts to so many tokens."
    ),
    click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps", help="Where models run."),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16"]),
        default="fp32",
        show_default=True,
        help="Of matrix products; weights, masks and gradients are float32.",
    ),
    click.option("--checkpointing", is_flag=True, help="Recompute activations: less memory, more time."),
    click.option(
        "--other", "others", multiple=True, metavar="FINETUNED", help="tall: another task's fine-tune; repeat for all."
    ),
    click.option(
        "--prefix", nargs=2, metavar="FROM TO", help="How base names become the fine-tune's, if the rule cannot tell."
    ),
    click.option(
        "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Seed of all that is random."
    ),
)


@dataclass(frozen=True, slots=True)
class Choosing:
    """What the shared options say, as the command line has it."""

    density: str | None
    scope: tuple[str, ...]
    allocation: str | None
    localizer: str
    settings: tuple[str, ...]
    data: str
    shots: str
    target: str
    batch_size: int
    batches: int
    max_length: int
    device: str
    precision: str
    checkpointing: bool
    others: tuple[str, ...]
    prefix: tuple[str, str] | None
    seed: int

    @classmethod
    def take(cls, given: dict[str, Any]) -> "Choosing":
        """Take the shared options out of a command's arguments."""
        return cls(**{name: given.pop(name) for name in cls.__slots__})

    def options(self) -> "PackOptions":
        """The same for the library.

        Raises:
            UsageError: A scope, setting or localizer that does not exist.
        """
        from sparsetv.jobs.learning import Learn
        from sparsetv.jobs.options import PackOptions
        from sparsetv.localize.problem import DENSITY
        from sparsetv.localize.scope import Scope

        return PackOptions(
            density=_number(self.density or f"{DENSITY:g}", "own", "'--density'"),
            scope=Scope.parse(self.scope) if self.scope else None,
            allocation=self.allocation,
            prefix=self.prefix or None,
            seed=self.seed,
            localizer=self.localizer,
            settings=parse_pairs(self.settings, "--set"),
            others=self.others,
            learn=Learn(
                data=self.data,
                shots=shots(self.shots),
                target=self.target,
                batch_size=self.batch_size,
                batches=self.batches,
                max_length=self.max_length,
                device=self.device,
                precision=self.precision,
                checkpointing=self.checkpointing,
            ),
        )


def choosing_options(command: _Command) -> _Command:
    """Add the shared options to a command that takes them as keyword arguments."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def shots(text: str) -> int | None:
    """A number of examples per class, or `all`."""
    found = _number(text, "all", "--shots")
    if found is not None and not found.is_integer():
        raise click.BadParameter(f"{text!r} is no whole number", param_hint="--shots")
    return None if found is None else int(found)


def _number(text: str, none: str, hint: str) -> float | None:
    if text == none:
        return None
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither a number nor {none!r}", param_hint=hint) from None
