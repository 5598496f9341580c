"""Which tasks are put onto a base, with which numbers, in which order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sparsetv.csr import SparseTensor
from sparsetv.errors import UsageError
from sparsetv.rules import Rule
from sparsetv.task_vector import SparseTaskVector


@dataclass(frozen=True, slots=True)
class Active:
    """A task with the numbers that it enters with.

    Attributes:
        task: The task.
        weight: The user's weight.
        policy, scale: How the scale was found, and the scale.
        factors: What single tensors are multiplied by before; 1 where none is given.
    """

    task: SparseTaskVector
    weight: float
    policy: str
    scale: float
    factors: Mapping[str, float] = field(default_factory=dict)

    @property
    def coefficient(self) -> float:
        """What the task's deltas are multiplied by."""
        return self.weight * self.scale

    def tensor(self, name: str) -> SparseTensor | None:
        """Kept deltas of a tensor times its factor; None where the task keeps none."""
        found = self.task.tensors.get(name)
        return found.scaled(self.factors.get(name, 1.0)) if found is not None and found.nnz else None


@dataclass(frozen=True, slots=True)
class Mix:
    """Active tasks in canonical order, and how they combine.

    Attributes:
        active: Tasks, ordered by digest.
        rule: The rule.
        scale: Scale policy as it was asked for.
    """

    active: tuple[Active, ...]
    rule: Rule
    scale: str | float
    digests: tuple[str, ...] = field(default=())

    @property
    def single(self) -> SparseTaskVector | None:
        """The task, where there is exactly one."""
        return self.active[0].task if len(self.active) == 1 else None

    def terms(self, name: str) -> list[tuple[str, float, float]]:
        """(digest, coefficient, factor) of the tasks that keep entries in a tensor."""
        pairs = zip(self.digests, self.active, strict=True)
        return [
            (digest, item.coefficient, item.factors.get(name, 1.0))
            for digest, item in pairs
            if name in item.task.tensors and item.task.tensors[name].nnz
        ]


def mix(active: Sequence[Active], *, rule: Rule, scale: str | float, digests: Mapping[str, str] | None = None) -> Mix:
    """Put tasks into canonical order.

    Args:
        active: Tasks.
        rule: The rule.
        scale: Scale policy as it was asked for.
        digests: Digest by task name, as far as it is known.

    Raises:
        UsageError: Two tasks have one name, or are the same task.
    """
    known = digests or {}
    pairs = ((known.get(item.task.name) or item.task.digest(), item) for item in active)
    ordered = sorted(pairs, key=lambda pair: pair[0])
    _check_distinct([item.task.name for _, item in ordered], "name")
    _check_distinct([digest for digest, _ in ordered], "content")
    return Mix(tuple(item for _, item in ordered), rule, scale, tuple(digest for digest, _ in ordered))


def _check_distinct(values: list[str], what: str) -> None:
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise UsageError(f"two tasks have the {what} {twice[:40]!r}; rename one when packing, or leave it out")
