"""What a merge method is: from fine-tunes to what the base's tensors become."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparsetv.bench.lab import Lab
from sparsetv.merging.vectors import Tensors


@dataclass(frozen=True, slots=True)
class Merged:
    """What a method gives.

    Attributes:
        deltas: Merged minus base per task; the same for every task, unless the method keeps something per task.
        settings: What it chose or was given.
        stored_bytes: Size of what it needs to keep beside base and heads to give every task; None where that is one
            whole checkpoint.
    """

    deltas: Mapping[str, Tensors]
    settings: Mapping[str, Any] = field(default_factory=dict)
    stored_bytes: int | None = None


Maker = Callable[[Lab, Sequence[str]], Merged]
"""Merges the fine-tunes of some tasks."""


@dataclass(frozen=True, slots=True)
class Method:
    """A merge method.

    Attributes:
        label: What tables call it.
        data: Which data it uses.
        make: Merges.
        group: `dataless`, `data`, `ours` or `compression`.
        published: What a suite's `paper.merge` and `paper.groups` call it; empty where the paper has none such.
    """

    label: str
    data: str
    make: Maker
    group: str
    published: str = ""
