"""How entries are chosen and stored, and how tasks combine, as a user chooses it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sparsetv.jobs.learning import RANDOM, Learn
from sparsetv.localize.names import Settings
from sparsetv.localize.problem import DENSITY
from sparsetv.localize.scope import Scope

if TYPE_CHECKING:
    from sparsetv.examples.reading import Example


@dataclass(frozen=True, slots=True)
class RefitOptions:
    """How kept values are trained to make up for what was dropped.

    Attributes:
        data: `random`, or examples as in `Learn`, whose labels are not used.
        shots: Examples per class.
        steps: Steps of training.
        rate: Step size as a share of the values' root mean square.
        batch_size: Inputs per step.
        tail: Density, in each, of changed tensors between the blocks and the head (poolers, last norms), which scope
            `blocks` leaves out: without them the blocks are trained to stand in for what they cannot do. 0 for none.
    """

    data: str | Path = RANDOM
    shots: int | None = 64
    steps: int = 150
    rate: float = 0.15
    batch_size: int = 32
    tail: float = 0.1
    spread: float = 2.0
    polish: int = 40


@dataclass(frozen=True, slots=True)
class PackOptions:
    """How to choose and store entries.

    Attributes:
        density: Fraction of the scope to keep, in (0, 1]; None for what the localizer arrives at by itself.
        scope: Which tensors may keep entries; None for the blocks, and with a budget for the body.
        allocation: `global` or `tensor`, see `sparsetv.localize.problem`; with a budget what an error counts in each
            tensor, also `balanced`, see `sparsetv.jobs.budget`. None for `global`, and with a budget for `tensor`.
        values: A name of `sparsetv.quantize.named.VALUES`; None for `exact`, and with a budget for what errs least.
        prefix: (from, to) between the names of base and fine-tune where the rule cannot tell.
        probe: Whether `pack_files` runs the models; None for wherever they can be built and run and the fine-tune has
            at most 4 GiB.
        seed: Seed of the probe's inputs, and of all that a localizer chooses at random.
        localizer: A name of `sparsetv.localize.names.LOCALIZERS`.
        settings: Values of the localizer's own parameters by name.
        learn: What the localizer learns from.
        others: Fine-tunes of the same base that `tall` compares with.
        mask: Mask file to use instead of a localizer.
        refit: How kept values are trained by `pack_files`; None to keep the fine-tune's.
        budget: Largest size of the file, such as `1%`, `7MB` or `0.3bpp`, which density and bits are chosen for; None
            to keep `density` entries, whatever their size.
        of: What a share means: `fp32` (4 bytes per parameter of the fine-tune) or `stored` (its tensors' bytes).
        importance: With a budget, factors on what a squared error counts, by globs over tensor names.
    """

    density: float | None = DENSITY
    scope: Scope | None = None
    allocation: str | None = None
    values: str | None = None
    prefix: tuple[str, str] | None = None
    probe: bool | None = None
    seed: int = 0
    localizer: str = "magnitude"
    settings: Settings = field(default_factory=dict)
    learn: Learn = field(default_factory=Learn)
    others: tuple[str | Path, ...] = ()
    mask: str | Path | None = None
    refit: RefitOptions | None = None
    budget: str | None = None
    of: str = "fp32"
    importance: Mapping[str, float] = field(default_factory=dict)

    @property
    def covered(self) -> Scope:
        """The scope, chosen or by default."""
        return self.scope or Scope("blocks" if self.budget is None else "body")

    @property
    def shared(self) -> str:
        """The allocation, chosen or by default."""
        return self.allocation or ("global" if self.budget is None else "tensor")


@dataclass(frozen=True, slots=True)
class StitchOptions:
    """How tasks combine.

    Attributes:
        rule: `mean`, `sum`, `ties` or `consensus`.
        scale: `auto`, `none`, `l2`, `l2-tensor`, `graft`, `match`, `joint`, `fit` or a number.
        weights: Weight per task name; 1 where absent, negative to negate a task.
        min_tasks: How many tasks must keep an entry for `consensus` to keep it.
        fit: Examples per task name, for the scale `fit`: a file, a data set of the hub, or examples that were read.
        device: Where models run, for the scales that run them.
        verify: How the base is compared with the one that a task was packed against, a name of `belonging.VERIFY`:
            `meta` (names, dtypes and shapes of the tensors that the task touches), `touched` (their content, too) or
            `full` (the content of all tensors).
    """

    rule: str = "mean"
    scale: str | float = "auto"
    weights: Mapping[str, float] = field(default_factory=dict)
    min_tasks: int = 2
    fit: Mapping[str, str | Path | Sequence["Example"]] = field(default_factory=dict)
    device: str = "auto"
    verify: str = "touched"
