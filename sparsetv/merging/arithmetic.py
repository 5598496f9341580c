"""Task arithmetic: a multiple of the sum of all task vectors."""

from collections.abc import Sequence

import torch

from sparsetv.merging.vectors import Tensors, times, total


def arithmetic(vectors: Sequence[Tensors], *, factor: float = 0.4) -> dict[str, torch.Tensor]:
    """Add up task vectors and scale the sum.

    Args:
        vectors: Task vectors, fine-tuned minus base.
        factor: The scaling coefficient; 0.4 is what is recommended without validation data.

    Returns:
        Merged minus base; new tensors.

    Raises:
        UsageError, NamesError, ShapeError: The vectors do not fit together.

    Reference:
        Ilharco et al., Editing models with task arithmetic, arXiv:2212.04089, section 2 (addition); the default is
        that of section 4.2.
    """
    return times(total(vectors), factor)
