"""The pretext task: tell which of a square's eight symmetries was applied to an image.

Reference:
    Gidaris et al., Unsupervised Representation Learning by Predicting Image Rotations, arXiv:1803.07728, with the
    four mirrored rotations added.
"""

import torch
from torch import Tensor

SYMMETRIES = (
    "as is",
    "quarter turn",
    "half turn",
    "three-quarter turn",
    "mirrored",
    "quarter turn, mirrored",
    "half turn, mirrored",
    "three-quarter turn, mirrored",
)
"""What each label of the pretext task means."""


def apply_random(images: Tensor) -> tuple[Tensor, Tensor]:
    """Apply to every image a symmetry drawn from torch's global generator, each with equal chance.

    Args:
        images: (n, 1, side, side), any dtype.

    Returns:
        Images like the input, and which of `SYMMETRIES` was applied to each, int64 (n,).
    """
    turned = [torch.rot90(images, quarters, dims=(-2, -1)) for quarters in range(4)]
    every = torch.stack(turned + [image.flip(-1) for image in turned])
    choice = torch.randint(len(SYMMETRIES), (len(images),))
    return every[choice, torch.arange(len(images))], choice
