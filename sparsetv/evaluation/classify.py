"""Accuracy of a classifier of texts or images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sparsetv.examples.encoding import MAX_LENGTH, class_index, encode
from sparsetv.examples.reading import Example

_BATCH = 64


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Share of examples whose label has the largest logit."""

    correct: int
    total: int

    @property
    def value(self) -> float:
        """`correct / total`."""
        return self.correct / self.total


def accuracy(
    model: nn.Module,
    processor: Any,
    examples: Sequence[Example],
    *,
    max_length: int = MAX_LENGTH,
    progress: Callable[[int], None] | None = None,
) -> Accuracy:
    """Run a classifier over examples, batched by length.

    Args:
        model: A transformers classifier of texts or images, in evaluation mode.
        processor: Its tokenizer or image processor.
        examples: What to classify.
        max_length: Longer inputs are cut to so many tokens, or fewer where the model has fewer positions.
        progress: Called with the examples of each batch when it is done.

    Raises:
        UsageError: A label that the model does not have.
    """
    for example in examples:
        class_index(model, example.label if example.label is not None else -1)
    order = sorted(examples, key=lambda example: len(example.text) + len(example.pair or ""))
    device = next(model.parameters()).device
    correct = 0
    with torch.inference_mode():
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            (batch,) = encode(model, processor, chosen, batch_size=_BATCH, max_length=max_length)
            wanted = batch.pop("labels")
            logits = model(**{name: tensor.to(device) for name, tensor in batch.items()}).logits
            correct += int((logits.argmax(dim=-1).cpu() == wanted).sum())
            if progress is not None:
                progress(len(chosen))
    return Accuracy(correct, len(examples))
