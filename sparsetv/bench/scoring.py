"""Examples of a task ready to be put to its model, again and again, and the metric over the answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from sparsetv.bench.suite import Task
from sparsetv.evaluation.classify import Score
from sparsetv.examples.encoding import Batch, encode
from sparsetv.examples.reading import Example, read_examples
from sparsetv.examples.sampling import sample
from sparsetv.objective.device import precisely

_BATCH = 64

Processor = Callable[[str], Any]
"""The tokenizer or image processor for a kind of example."""


@dataclass(frozen=True, slots=True, eq=False)
class Questions:
    """Examples, and how a model answers them.

    Attributes:
        examples: In order.
        metric: `accuracy`, or `f1` of class 1.
        encoder: Makes batches of examples.
        made: The batches, once they are made.
    """

    examples: Sequence[Example]
    metric: str
    encoder: Callable[[Sequence[Example]], list[Batch]]
    made: list[Batch] = field(default_factory=list)

    def first(self, count: int | None) -> "Questions":
        """The first so many."""
        return replace(self, examples=self.examples[:count], made=[])

    def sampled(self, shots: int, *, seed: int) -> "Questions":
        """So many of each class, chosen at random."""
        return replace(self, examples=sample(self.examples, shots=shots, seed=seed), made=[])

    def score(self, model: nn.Module, *, precision: str) -> float:
        """The metric of a classifier's answers."""
        if not self.made:
            ordered = sorted(self.examples, key=lambda example: len(example.text) + len(example.pair or ""))
            self.made.extend(self.encoder(ordered))
        device, total = next(model.parameters()).device, Score()
        with torch.inference_mode(), precisely(device, precision):
            for batch in self.made:
                inputs = {key: tensor.to(device) for key, tensor in batch.items() if key != "labels"}
                total = total.plus(model(**inputs).logits.argmax(dim=-1).cpu(), batch["labels"])
        return total.of(self.metric)


def read_questions(source: str, task: Task, model: nn.Module, processor: Processor, *, max_length: int) -> Questions:
    """Read a task's examples.

    Args:
        source: JSON lines or a data set of the hub.
        task: Gives metric and kind.
        model: The task's model.
        processor: Its tokenizer or image processor.
        max_length: Longer texts are cut to so many tokens.
    """
    examples = read_examples(source, columns=task.columns)

    def encoder(chosen: Sequence[Example]) -> list[Batch]:
        return encode(model, processor(chosen[0].kind), chosen, batch_size=_BATCH, max_length=max_length)

    return Questions(examples, task.metric, encoder)
