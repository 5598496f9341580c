"""How tasks combine, as a user chooses it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StitchOptions:
    """How tasks combine.

    Attributes:
        rule: `mean`, `sum`, `ties` or `consensus`.
        scale: `auto`, `none`, `l2`, `graft`, `match` or a number.
        weights: Weight per task name; 1 where absent, negative to negate a task.
        min_tasks: How many tasks must keep an entry for `consensus` to keep it.
    """

    rule: str = "mean"
    scale: str | float = "auto"
    weights: Mapping[str, float] = field(default_factory=dict)
    min_tasks: int = 2
