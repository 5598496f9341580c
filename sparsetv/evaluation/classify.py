"""How well a classifier of texts or images does: accuracy, and F1 where classes are uneven."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsetv.errors import UsageError
from sparsetv.examples.encoding import MAX_LENGTH, class_index, encode
from sparsetv.examples.reading import Example

METRICS = ("accuracy", "f1")
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


@dataclass(frozen=True, slots=True)
class Score:
    """What a classifier got right.

    Attributes:
        correct: Examples whose label has the largest logit.
        total: All examples.
        found: Examples of class 1 that were given class 1.
        given: Examples that were given class 1.
        there: Examples of class 1.
    """

    correct: int = 0
    total: int = 0
    found: int = 0
    given: int = 0
    there: int = 0

    def plus(self, predicted: Tensor, wanted: Tensor) -> "Score":
        """This and more examples: classes that were given and classes asked for, both int64 (n,)."""
        return Score(
            correct=self.correct + int((predicted == wanted).sum()),
            total=self.total + len(wanted),
            found=self.found + int(((predicted == 1) & (wanted == 1)).sum()),
            given=self.given + int((predicted == 1).sum()),
            there=self.there + int((wanted == 1).sum()),
        )

    @property
    def accuracy(self) -> float:
        """`correct / total`."""
        return self.correct / self.total

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall of class 1; 0 where it is neither given nor there."""
        return 2 * self.found / max(self.given + self.there, 1)

    def of(self, metric: str) -> float:
        """The value of a metric.

        Raises:
            UsageError: `metric` is neither `accuracy` nor `f1`.
        """
        if metric not in METRICS:
            raise UsageError(f"unknown metric {metric!r}; known are {', '.join(METRICS)}")
        return self.accuracy if metric == "accuracy" else self.f1


def accuracy(
    model: nn.Module,
    processor: Any,
    examples: Sequence[Example],
    *,
    max_length: int = MAX_LENGTH,
    progress: Callable[[int], None] | None = None,
) -> Accuracy:
    """The accuracy that `score` finds; arguments and errors are its own."""
    found = score(model, processor, examples, max_length=max_length, progress=progress)
    return Accuracy(found.correct, found.total)


def score(
    model: nn.Module,
    processor: Any,
    examples: Sequence[Example],
    *,
    max_length: int = MAX_LENGTH,
    progress: Callable[[int], None] | None = None,
) -> Score:
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
    total = Score()
    with torch.inference_mode():
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            (batch,) = encode(model, processor, chosen, batch_size=_BATCH, max_length=max_length)
            wanted = batch.pop("labels")
            logits = model(**{name: tensor.to(device) for name, tensor in batch.items()}).logits
            total = total.plus(logits.argmax(dim=-1).cpu(), wanted)
            if progress is not None:
                progress(len(chosen))
    return total
