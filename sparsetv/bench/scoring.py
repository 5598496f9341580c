"""Examples of a task ready to be put to its model, again and again, and the metric over the answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparsetv.bench.suite import Task
from sparsetv.errors import ProbeError, UsageError
from sparsetv.evaluation.choices import Choice, choices_accuracy, read_choices
from sparsetv.evaluation.classify import Score
from sparsetv.evaluation.zero_shot import zero_shot_classifier
from sparsetv.examples.encoding import Batch, encode
from sparsetv.examples.hub import class_names
from sparsetv.examples.reading import Example, read_examples
from sparsetv.examples.sampling import sample
from sparsetv.jobs.models import find_processor
from sparsetv.models import quiet
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


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Questions with answers to choose from, put to a causal language model.

    Attributes:
        examples: In order.
        measure: What counts, a measure of `ChoicesScore`.
        tokenizer: The model's.
        max_length: Longer prompts lose their beginning.
    """

    examples: Sequence[Choice]
    measure: str
    tokenizer: Any
    max_length: int

    def first(self, count: int | None) -> "Answers":
        """The first so many."""
        return replace(self, examples=self.examples[:count])

    def score(self, model: nn.Module, *, precision: str) -> float:
        """The measure over a model's answers."""
        with precisely(next(model.parameters()).device, precision):
            found = choices_accuracy(model, self.tokenizer, self.examples, max_length=self.max_length)
        return found.of(self.measure)


def read_questions(source: str, task: Task, model: nn.Module, processor: Processor, *, max_length: int) -> Questions:
    """Read a task's examples.

    Args:
        source: JSON lines or a data set of the hub.
        task: Gives metric and columns.
        model: The task's model.
        processor: Its tokenizer or image processor.
        max_length: Longer texts are cut to so many tokens.
    """
    examples = read_examples(source, columns=task.columns)

    def encoder(chosen: Sequence[Example]) -> list[Batch]:
        return encode(model, processor(chosen[0].kind), chosen, batch_size=_BATCH, max_length=max_length)

    return Questions(examples, task.metric, encoder)


def read_answers(source: str, task: Task, processor: Processor, *, max_length: int) -> Answers:
    """Read a task's multiple choice; arguments as of `read_questions`."""
    measure = str(task.settings.get("measure", "accuracy"))
    return Answers(read_choices(source), measure, processor("text"), max_length)


def by_names(task: Task, encoder: nn.Module, base: Path | None) -> nn.Module:
    """An image encoder as a classifier by the names of the task's classes.

    Args:
        task: Its settings give `template`, and `names` where its data set has none.
        encoder: The image encoder; used, not copied.
        base: Directory of the whole CLIP model, whose texts and tokenizer count.

    Raises:
        UsageError: There is no template, or nothing names the classes.
        ProbeError: The base is no CLIP model in a directory.
    """
    import transformers  # noqa: PLC0415  as everywhere that a model is made

    template, given = task.settings.get("template"), task.settings.get("names")
    if not template:
        raise UsageError(f"{task.name}: zero-shot scoring needs settings.template, such as 'a photo of a {{}}.'")
    if not given and Path(task.test).is_file():
        raise UsageError(f"{task.name}: {task.test} names no classes; name them in the suite: settings.names")
    names = list(given) if given else class_names(task.test, column=task.columns.get("label", "label"))
    try:
        with quiet():
            kind: Any = transformers.CLIPModel
            clip, told = kind.from_pretrained(base, output_loading_info=True, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise ProbeError(f"{task.name}: the base is no CLIP model ({error})") from None
    if told["missing_keys"]:
        raise ProbeError(f"{task.name}: the base is no CLIP model (it lacks {min(told['missing_keys'])})")
    return zero_shot_classifier(encoder, clip.eval(), find_processor(base), names, template)
