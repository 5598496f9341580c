"""k examples of each class, chosen by a seed."""

from collections.abc import Sequence

import numpy as np

from sparsetv.errors import UsageError
from sparsetv.examples.reading import Example

SHOTS = 64
"""Examples per class that localization uses by default (Localize-and-Stitch, appendix H)."""


def sample(examples: Sequence[Example], *, shots: int | None = SHOTS, seed: int = 0) -> list[Example]:
    """Choose examples at random without replacement, in random order.

    Args:
        examples: What to choose from.
        shots: How many of each class; of a class that has fewer, all. Examples without a label are one class. None
            for all examples.
        seed: The same seed gives the same examples on every machine.

    Raises:
        UsageError: `shots` is below 1.
    """
    if shots is not None and shots < 1:
        raise UsageError(f"shots is {shots}; give 1 example per class or more")
    order = np.random.Generator(np.random.Philox(key=seed)).random(len(examples)).argsort(kind="stable")
    left: dict[int | str | None, int] = {}
    chosen = []
    for index in order:
        example = examples[int(index)]
        taken = left.get(example.label, 0)
        if shots is None or taken < shots:
            left[example.label] = taken + 1
            chosen.append(example)
    return chosen
