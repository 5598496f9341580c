"""What every localizer is given, and what it gives: `localizer(problem) -> Localized`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sparsetv.difference import TaskVector
from sparsetv.errors import UsageError
from sparsetv.masks import Mask
from sparsetv.progress import Progress
from sparsetv.task_vector import Norms

if TYPE_CHECKING:
    import torch

    from sparsetv.objective.loss import Objective

DENSITY = 0.01
"""Fraction kept by default (Localize-and-Stitch, section 4)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A task vector to localize.

    Attributes:
        vector: Base and fine-tune.
        names: Base names of the scope, ascending.
        density: Fraction of the scope to keep, in (0, 1], held exactly by ranking; None for the density that the
            method arrives at by its own threshold, where it has one.
        allocation: `global` (one threshold for all tensors, the paper's) or `tensor` (the same density in every
            tensor, what is left by rounding down going to the largest remainders).
        seed: Of everything that is chosen at random.
        objective: A live model, batches and a loss, for the localizers that learn.
        device: Where the model runs; None for where its parameters are.
        others: The other tasks' vectors on the same base, for `tall`.
        progress: Told how far the work is.
    """

    vector: TaskVector
    names: tuple[str, ...]
    density: float | None = DENSITY
    allocation: str = "global"
    seed: int = 0
    objective: "Objective | None" = None
    device: "torch.device | None" = None
    others: tuple[TaskVector, ...] = ()
    progress: Progress | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """Entries per tensor of the scope."""
        return {name: self.vector.base.numel(name) for name in self.names}

    def at(self, density: float | None) -> "Problem":
        """The same problem at another density."""
        return replace(self, density=density)

    def needs_density(self, method: str) -> float:
        """The density.

        Raises:
            UsageError: It is left to the method, which has no threshold of its own.
        """
        if self.density is None:
            raise UsageError(f"{method} ranks entries and has no density of its own; give --density")
        return self.density

    def needs_objective(self, method: str) -> "Objective":
        """The objective.

        Raises:
            UsageError: There is none.
        """
        if self.objective is None:
            raise UsageError(f"{method} learns from examples; give some with --data, or --data random for none")
        return self.objective


@dataclass(frozen=True, slots=True)
class Localized:
    """A mask, and the norms of the whole task vector.

    Attributes:
        mask: Which entries are kept.
        norms: Per tensor of the scope.
        notes: Numbers that the method reports, by name.
    """

    mask: Mask
    norms: Mapping[str, Norms]
    notes: Mapping[str, float]
