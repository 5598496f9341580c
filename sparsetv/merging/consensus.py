"""Consensus merging: of a merged vector, what more than one task needs."""

from collections.abc import Sequence

import torch

from sparsetv.errors import UsageError
from sparsetv.merging.vectors import Tensors


def consensus(
    merged: Tensors, masks: Sequence[Tensors], *, at_least: int = 2, factor: float = 1.0
) -> dict[str, torch.Tensor]:
    """Drop entries that few tasks' masks keep: those of no task (catastrophic) and of one alone (selfish).

    Args:
        merged: tau_MT. The sum of the task vectors gives Consensus TA, what `ties` gives Consensus TIES.
        masks: TALL-masks of the tasks on `merged`, bool.
        at_least: How many masks must keep an entry.
        factor: The scaling coefficient of the result.

    Returns:
        Merged minus base; new tensors.

    Raises:
        UsageError: `at_least` is below 1, or there are fewer masks.

    Reference:
        Wang et al., arXiv:2405.07813, section 4.3 (Consensus Merging).

    Cost:
        One pass; memory of the result.
    """
    if not 1 <= at_least <= len(masks):
        raise UsageError(f"at_least is {at_least}; it must lie between 1 and the number of masks, {len(masks)}")
    result = {}
    for name, tensor in merged.items():
        counts = torch.zeros(tensor.shape, dtype=torch.int16, device=tensor.device)
        for mask in masks:
            counts += mask[name]
        result[name] = torch.where(counts >= at_least, tensor * factor, 0.0)
    return result
