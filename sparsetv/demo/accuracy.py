"""How often a classifier is right."""

import torch
from torch import Tensor, nn

from sparsetv.errors import UsageError


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Fraction of images whose highest logit is at their label; a tie goes to the lower class.

    The model runs in evaluation mode, without gradients, and is left in the mode it was in.

    Args:
        model: A transformers image classifier: its output has `logits`, float (n, classes).
        images: float32, (n, 1, 8, 8), on the model's device.
        labels: int64, (n,).

    Returns:
        In [0, 1].

    Raises:
        UsageError: No images, or another number of labels.
    """
    if len(images) == 0 or labels.shape != (len(images),):
        raise UsageError(
            f"expected one label for each of one or more images, found {len(images)} images and labels of "
            f"shape {tuple(labels.shape)}"
        )
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            predicted = model(pixel_values=images).logits.argmax(dim=-1)
    finally:
        model.train(training)
    return int((predicted == labels).sum()) / len(images)
