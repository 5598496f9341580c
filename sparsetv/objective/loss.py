"""What is asked of a model: batches, and a loss over each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

Inputs = Mapping[str, torch.Tensor]
"""Inputs of one batch by name, and `labels` where there are any."""

Loss = Callable[[nn.Module, Inputs], torch.Tensor]
"""Mean loss of a model over one batch: a tensor of one number that gradients flow through."""


def task_loss(model: nn.Module, batch: Inputs) -> torch.Tensor:
    """Cross-entropy of a classifier, or of a causal model's next tokens; mean over what is counted.

    Args:
        model: A transformers classifier or causal language model.
        batch: Inputs, and `labels`: shape (n,) of classes, or (n, length) of tokens, -100 where nothing is counted.
    """
    logits = model(**{name: tensor for name, tensor in batch.items() if name != "labels"}).logits
    labels = batch["labels"]
    if labels.dim() == 2:
        logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    return functional.cross_entropy(logits.float(), labels)


@dataclass(frozen=True, slots=True)
class Objective:
    """A model, batches, and a loss.

    Attributes:
        model: The base under the fine-tune's head: its tensors in scope are moved while it is tuned, and are the
            base's again afterwards. Parameters in float32.
        batches: Inputs; moved to the model's device when they are used.
        loss: Mean loss over one batch.
        checkpointing: Recompute activations in the backward pass: less memory, a third more time.
        precision: `fp32`, or `bf16` for matrix products in bfloat16.
    """

    model: nn.Module
    batches: Sequence[Inputs]
    loss: Loss = task_loss
    checkpointing: bool = False
    precision: str = "fp32"
