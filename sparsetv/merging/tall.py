"""TALL-masks: what each task needs of a merged vector, and the masks as a way to store all tasks."""

from collections.abc import Sequence

import numpy as np
import torch
import zstandard
from safetensors.torch import save

from sparsetv.errors import UsageError
from sparsetv.merging.vectors import Tensors, check_vectors, total

LEVEL = 19
"""Of zstandard; masks are near to noise, so that levels hardly differ in size."""


def tall_masks(
    vectors: Sequence[Tensors], *, factor: float | Sequence[float], merged: Tensors | None = None
) -> list[dict[str, torch.Tensor]]:
    """Keep entries with `|tau_i| > lambda * |tau_MT - tau_i|`.

    Args:
        vectors: Task vectors, fine-tuned minus base.
        factor: lambda, for all tasks or one per task. The paper chooses it per task from {0.2, ..., 0.6} by
            validation score.
        merged: tau_MT, the merged vector that masks shall select from; the sum of all tasks if None.

    Returns:
        Per task, True where an entry is kept; shapes and device of the vectors.

    Raises:
        UsageError: As many factors as tasks are needed.
        UsageError, NamesError, ShapeError: The vectors do not fit together.

    Reference:
        Wang et al., Localizing task information, arXiv:2405.07813, equation 5.

    Cost:
        One pass; memory of the masks at a byte per entry and task, and of the sum where `merged` is None.
    """
    factors = [factor] * len(vectors) if isinstance(factor, int | float) else list(factor)
    if len(factors) != len(vectors):
        raise UsageError(f"{len(factors)} factors for {len(vectors)} tasks; give one number, or one per task")
    merged = total(vectors) if merged is None else merged
    names = check_vectors([*vectors, merged])
    return [
        {name: vector[name].abs() > own * (merged[name] - vector[name]).abs() for name in names}
        for vector, own in zip(vectors, factors, strict=True)
    ]


def compressed(merged: Tensors, mask: Tensors) -> dict[str, torch.Tensor]:
    """One task as its mask gives it back from the merged vector: `mask * tau_MT`; new tensors.

    Reference:
        Wang et al., arXiv:2405.07813, section 4 (compression of checkpoints).
    """
    return {name: torch.where(mask[name], tensor, 0.0) for name, tensor in merged.items()}


def stored_bytes(masks: Sequence[Tensors], merged: Tensors) -> int:
    """Bytes that all tasks take: the merged vector as a safetensors file, and each task's mask packed and compressed.

    Masks are bits, tensors in ascending order of names, row-major, in one zstandard frame per task; sizes are of what
    was really written.

    Args:
        masks: One per task, bool.
        merged: The vector that all tasks share, float32.

    Cost:
        A second copy of `merged` for a moment.
    """
    size = len(save({name: tensor.contiguous() for name, tensor in merged.items()}))
    packer = zstandard.ZstdCompressor(level=LEVEL)
    for mask in masks:
        bits = np.concatenate([mask[name].reshape(-1).cpu().numpy() for name in sorted(mask)] or [np.zeros(0, bool)])
        size += len(packer.compress(np.packbits(bits).tobytes()))
    return size
