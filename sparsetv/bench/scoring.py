"""Examples of a task ready to be put to its model, again and again, and the metric over the answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from sparsetv.bench.suite import Task
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
        given, wanted = self.answers(model, precision=precision)
        return f1(given, wanted) if self.metric == "f1" else float((given == wanted).double().mean())

    def answers(self, model: nn.Module, *, precision: str) -> tuple[torch.Tensor, torch.Tensor]:
        """(class of the largest logit, class asked for), both int64 (n,), in the order of the batches."""
        if not self.made:
            ordered = sorted(self.examples, key=lambda example: len(example.text) + len(example.pair or ""))
            self.made.extend(self.encoder(ordered))
        device = next(model.parameters()).device
        given = []
        with torch.inference_mode(), precisely(device, precision):
            for batch in self.made:
                inputs = {key: tensor.to(device) for key, tensor in batch.items() if key != "labels"}
                given.append(model(**inputs).logits.argmax(dim=-1).cpu())
        return torch.cat(given), torch.cat([batch["labels"] for batch in self.made])


def f1(given: torch.Tensor, wanted: torch.Tensor) -> float:
    """Harmonic mean of precision and recall of class 1; 0 where neither says it."""
    hits = int(((given == 1) & (wanted == 1)).sum())
    said = int((given == 1).sum()) + int((wanted == 1).sum())
    return 2 * hits / said if said else 0.0


def read_questions(source: str, task: Task, model: nn.Module, processor: Processor, *, max_length: int) -> Questions:
    """Read a task's examples.

    Args:
        source: JSON lines or a data set of the hub.
        task: Gives metric and kind.
        model: The task's model.
        processor: Its tokenizer or image processor.
        max_length: Longer texts are cut to so many tokens.
    """
    examples = read_examples(source)

    def encoder(chosen: Sequence[Example]) -> list[Batch]:
        return encode(model, processor(chosen[0].kind), chosen, batch_size=_BATCH, max_length=max_length)

    return Questions(examples, task.metric, encoder)
