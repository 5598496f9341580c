"""DARE: drop entries of each task vector at random, rescale the rest, then merge."""

from collections.abc import Sequence

import numpy as np
import torch

from sparsetv import rules
from sparsetv.draws import LARGEST, numbers
from sparsetv.errors import DensityError, UsageError
from sparsetv.merging.vectors import Tensors, combine, times


def dare(
    vectors: Sequence[Tensors], *, density: float = 0.1, factor: float = 0.4, seed: int = 0, elect: bool = False
) -> dict[str, torch.Tensor]:
    """Drop and rescale, then add up.

    Args:
        vectors: Task vectors, fine-tuned minus base.
        density: Probability that an entry stays, in (0, 1]; what stays is divided by it.
        factor: What the result is multiplied with.
        seed: Below 2^64. Task i has the numbers that `sparsetv.draws` gives for `seed + i * 2^64`, one per entry
            (names ascending, row-major), so that what is dropped is the same on every machine.
        elect: Merge as TIES does, by an elected sign and the mean of those that agree, instead of adding up.

    Returns:
        Merged minus base; new tensors.

    Raises:
        DensityError: `density` is outside (0, 1].
        UsageError: The seed is negative or too large.
        UsageError, NamesError, ShapeError: The vectors do not fit together.

    Reference:
        Yu et al., Language models are super Mario, arXiv:2311.03099, section 3.2: drop rate p is 1 - density.

    Cost:
        8 random bytes per entry and task in time; memory of the result and a few pieces.
    """
    if not 0 < density <= 1:
        raise DensityError(f"density is the fraction kept and must lie in (0, 1]; found {density}")
    if not 0 <= seed < 1 << 64:
        raise UsageError(f"seed {seed} lies outside 0 to 2^64 - 1")
    least = round((1 - density) * LARGEST)

    def drop(task: int, piece: torch.Tensor, start: int) -> torch.Tensor:
        drawn = np.concatenate(list(numbers(seed + (task << 64), start, len(piece))))
        return torch.where(torch.from_numpy(drawn >= least).to(piece.device), piece / density, 0.0)

    return times(combine(vectors, drop, rules.ties if elect else rules.add), factor)
