"""Fine-tunes of a suite's base, made from its tasks' training data."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from sparsetv import __version__
from sparsetv.bench.suite import Suite, Task
from sparsetv.bench.training import Recipe, seeded, shuffled, train
from sparsetv.checkpoint.reading import Checkpoint, open_checkpoint
from sparsetv.demo.folder import ensure
from sparsetv.errors import UsageError
from sparsetv.evaluation.classify import Score, score
from sparsetv.examples.reading import Example, read_examples
from sparsetv.examples.sampling import sample
from sparsetv.jobs.evaluate import load
from sparsetv.jobs.models import find_processor
from sparsetv.models import quiet
from sparsetv.objective.device import find_device, precisely
from sparsetv.progress import Progress

STAMP = "training.json"
"""Says beside a fine-tune how it was made."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a fine-tune is made.

    Attributes:
        recipe: Of the training.
        batch_size: Examples per step.
        shots: Examples per class, chosen by the recipe's seed; None for all.
        device: Where it is trained.
    """

    recipe: Recipe = field(default_factory=Recipe)
    batch_size: int = 32
    shots: int | None = None
    device: str = "auto"


def finetune(
    suite: Suite, task: Task, target: Path, plan: Plan, *, progress: Progress | None = None
) -> tuple[bool, Score | None]:
    """Make a fine-tune, unless it is there, complete, and was made the same way.

    The directory holds weights, `config.json`, the tokenizer or image processor, and how it was made.

    Args:
        suite: Gives the base and the length of texts.
        task: Gives the data; a classification of texts or images.
        target: The directory.
        plan: How to train.
        progress: Reports steps.

    Returns:
        Whether it was made now, and its score on the test data, if the task has any.

    Raises:
        UsageError: The task is no classification, or names no training data.
        OutputError: The directory holds something else, or cannot be written.
    """
    if task.kind != "classify":
        raise UsageError(f"{task.name}: only classifiers are fine-tuned here, not {task.kind}")
    if not task.train:
        raise UsageError(f"{task.name}: the suite names no training data")
    base = open_checkpoint(suite.base)
    examples = read_examples(task.train, columns=task.columns)
    how = _how(base, examples, suite, plan)

    def make(folder: Path) -> None:
        model, processor = start(base, examples, seed=plan.recipe.seed)
        model.to(find_device(plan.device))
        chosen = sample(examples, shots=plan.shots, seed=plan.recipe.seed)
        epoch = shuffled(
            model,
            processor,
            chosen,
            batch_size=plan.batch_size,
            max_length=suite.max_length,
            seed=plan.recipe.seed,
        )
        train(model, epoch, plan.recipe, progress=progress)
        _save(model, processor, folder)

    made = ensure(target, how, make=make, stamp=STAMP)
    return made, _score(target, suite, task, plan) if task.test else None


def start(base: Checkpoint, examples: Sequence[Example], *, seed: int) -> tuple[nn.Module, Any]:
    """(classifier with a base's body and a head drawn by a seed, its tokenizer or image processor).

    Args:
        base: The base.
        examples: What to tell apart: their labels are the classes, names in alphabetical order.
        seed: Of the head.

    Raises:
        ProbeError: The base has no tokenizer or image processor.
    """
    images = examples[0].kind == "image"
    loader: Any = (
        transformers.AutoModelForImageClassification if images else transformers.AutoModelForSequenceClassification
    )
    with quiet(), seeded(torch.device("cpu"), seed):
        model = loader.from_pretrained(
            base.location.directory, dtype=torch.float32, trust_remote_code=False, **_classes(examples)
        )
    model.eval()
    return model, find_processor(base.location.directory, images=images)


def _classes(examples: Sequence[Example]) -> dict[str, Any]:
    """The classes of a classifier, as its configuration names them."""
    labels = {example.label for example in examples}
    names = sorted(label for label in labels if isinstance(label, str))
    if not names:
        return {"num_labels": 1 + max(label for label in labels if isinstance(label, int))}
    if len(names) < len(labels):
        raise UsageError("some labels are numbers and some are names; use one of both throughout")
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def _save(model: Any, processor: Any, folder: Path) -> None:
    with quiet():
        model.cpu().save_pretrained(folder)
        processor.save_pretrained(folder)


def _score(target: Path, suite: Suite, task: Task, plan: Plan) -> Score:
    examples = read_examples(task.test, columns=task.columns)
    model, processor = load(target, None, images=examples[0].kind == "image")
    device = find_device(plan.device)
    with precisely(device, plan.recipe.precision):
        return score(model.to(device), processor, examples, max_length=suite.max_length)


def _how(base: Checkpoint, examples: Sequence[Example], suite: Suite, plan: Plan) -> dict[str, object]:
    """What determines the weights: the same values give the same fine-tune, on one machine."""
    said = [[example.text, example.pair, example.label, str(example.image or "")] for example in examples]
    made = asdict(plan)
    del made["device"]
    return {
        "sparsetv": __version__,
        "base_sha256": {name: _digest(shard.path) for name, shard in base.shards.items()},
        "examples_sha256": hashlib.sha256(json.dumps(said).encode()).hexdigest(),
        "max_length": suite.max_length,
        "plan": made,
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
