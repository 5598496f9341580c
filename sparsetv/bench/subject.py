"""A fine-tune as a live model whose body can be set to anything, and its score on its task's data."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from sparsetv.bench.scoring import Answers, Questions, by_names, read_answers, read_questions
from sparsetv.bench.suite import Suite, Task
from sparsetv.bench.training import Epoch, shuffled
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.difference import TaskVector, task_vector
from sparsetv.dtypes import to_float32
from sparsetv.errors import UsageError
from sparsetv.examples.encoding import Batch, encode
from sparsetv.examples.sampling import sample
from sparsetv.jobs.models import find_processor, whole_model
from sparsetv.merging.vectors import Tensors
from sparsetv.objective.body import Body, delta_of
from sparsetv.objective.device import find_device
from sparsetv.objective.loss import Objective
from sparsetv.packing.carried import carry
from sparsetv.places.names import find_places


class Subject:
    """One fine-tune.

    Args:
        suite: What it belongs to.
        task: Its task.
        device: Where its model runs.
        limit: Most test examples that are used; None for all.

    Raises:
        ProbeError: Its model cannot be built.
    """

    def __init__(self, suite: Suite, task: Task, *, device: str = "auto", limit: int | None = None) -> None:
        self.task, self._suite, self._limit = task, suite, limit
        self.vector: TaskVector = task_vector(open_checkpoint(suite.base), open_checkpoint(task.finetuned))
        self.names = self.vector.comparable()
        self.carried = carry(self.vector, self.names, name=task.name)
        self.device = find_device(device)
        encoder = whole_model(self.carried, self.vector.finetuned).float().to(self.device)
        base = self.vector.base
        shapes = {key: base.shape(key) for key in base.names}
        self._places = find_places(encoder, shapes, names=self.names)
        zero_shot = task.kind == "zero-shot"
        self.model = by_names(task, encoder, self.vector.base.location.directory) if zero_shot else encoder

    def deltas(self, names: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
        """The task vector, float32, on the CPU, by base name; of all shared tensors where no names are given."""
        return {name: delta_of(self.vector, name, torch.device("cpu")) for name in names or self.names}

    def score(self, deltas: Tensors | None, *, part: str = "test") -> float:
        """The task's metric with the body at base plus deltas, 0 where none is given; of the fine-tune for None.

        Args:
            deltas: Merged minus base by base name, float32.
            part: `test`, or `validation`: a few training examples of each class.
        """
        self.set(deltas)
        return self._asked(part).score(self.model, precision=self._suite.precision)

    def row(self, deltas: Tensors | None) -> dict[str, Any]:
        """What results say of a score on the test data."""
        value = self.score(deltas)
        examples = len(self._asked("test").examples)
        return {"value": round(value, 6), "metric": self.task.metric, "examples": examples}

    def set(self, deltas: Tensors | None) -> None:
        """Set the body; see `score`."""
        with torch.no_grad():
            for name, place in self._places.items():
                if deltas is None:
                    place.view.copy_(self._finetuned(name))
                else:
                    base = self._base(name)
                    place.view.copy_(base + deltas[name].cpu() if name in deltas else base)

    @property
    def head(self) -> tuple[str, ...]:
        """Names of the live model's parameters that the base does not have."""
        body = {place.parameter for place in self._places.values()}
        return tuple(name for name, _ in self.model.named_parameters() if name not in body)

    def moved(self) -> dict[str, torch.Tensor]:
        """Where the body stands: minus the base, float32, on the CPU."""
        return {name: place.view.detach().cpu() - self._base(name) for name, place in self._places.items()}

    def body(self, batches: Sequence[Batch], names: Sequence[str]) -> Body:
        """The model with some of its tensors free to move and be differentiated; they are the base's again."""
        objective = Objective(self.model, batches, precision=self._suite.precision)
        self.set({})
        return Body(self.vector.base, names, objective)

    def batches(self, part: str, *, shots: int | None = None, most: int | None = None, size: int = 16) -> list[Batch]:
        """Examples as batches, in random order.

        Args:
            part: `train` or `test`.
            shots: Examples per class; None for all.
            most: Examples in all, the first of that order; None for all. No others are encoded.
            size: Examples per batch.

        Raises:
            UsageError: The task has no such data, or is no classification.
        """
        if self.task.kind == "zero-shot":
            raise UsageError(f"{self.task.name}: what is scored by the names of classes learns from no examples here")
        chosen = sample(self.questions(part).examples, shots=shots, seed=self._suite.seed)[:most]
        return encode(self.model, self._processor(chosen[0].kind), chosen, batch_size=size, max_length=self._length)

    def shuffled(self, size: int) -> Epoch:
        """All training examples in batches, in another order each epoch."""
        chosen, seed = self.questions("train").examples, self._suite.seed
        processor = self._processor(chosen[0].kind)
        return shuffled(self.model, processor, chosen, batch_size=size, max_length=self._length, seed=seed)

    def questions(self, part: str) -> Questions:
        """The examples of a part: `train`, `validation` or `test`.

        Raises:
            UsageError: The task is no classification, or the suite names no such data.
        """
        if self.task.kind == "choices":
            raise UsageError(f"{self.task.name}: only classifiers learn from examples here, not `choices`")
        found: Questions = getattr(self, f"_{part}")  # read when it is first asked for
        return found

    def prepare(self) -> None:
        """Read the training data and encode what coefficients are tuned on, if there is any, so that no clock runs."""
        if self.task.train and self.task.kind != "choices":
            self.score({}, part="validation")

    @cached_property
    def ceiling(self) -> float:
        """Score of the fine-tune."""
        return self.score(None)

    @cached_property
    def floor(self) -> float:
        """Score of the base under the fine-tune's head."""
        return self.score({})

    @property
    def _length(self) -> int:
        return self._suite.max_length

    def _asked(self, part: str) -> Questions | Answers:
        if self.task.kind == "choices" and part == "test":
            return self._choices
        return self.questions(part)

    @cached_property
    def _choices(self) -> Answers:
        found = read_answers(self._source("test"), self.task, self._processor, max_length=self._length)
        return found.first(self._limit)

    @cached_property
    def _train(self) -> Questions:
        return self._read("train")

    @cached_property
    def _test(self) -> Questions:
        return self._read("test").first(self._limit)

    @cached_property
    def _validation(self) -> Questions:
        """Training examples, drawn by another seed than those that methods learn from; the draws may share some."""
        return self._train.sampled(VALIDATION_SHOTS, seed=self._suite.seed + 1)

    def _read(self, part: str) -> Questions:
        return read_questions(self._source(part), self.task, self.model, self._processor, max_length=self._length)

    def _source(self, part: str) -> str:
        source = self.task.train if part == "train" else self.task.test
        if not source:
            raise UsageError(f"{self.task.name}: the suite names no {part} data")
        return source

    def _processor(self, kind: str) -> object:
        sides = (self.vector.finetuned.location.directory, self.vector.base.location.directory)
        return find_processor(*sides, images=kind == "image")

    def _base(self, name: str) -> torch.Tensor:
        base = self.vector.base
        return torch.from_numpy(to_float32(base.bits(name), base.dtype(name)).copy()).reshape(base.shape(name))

    def _finetuned(self, name: str) -> torch.Tensor:
        dtype = self.vector.finetuned.dtype(self.vector.finetuned_name(name))
        values = to_float32(self.vector.finetuned_bits(name), dtype)
        return torch.from_numpy(values.copy()).reshape(self.vector.base.shape(name))


VALIDATION_SHOTS = 32
"""Training examples per class that coefficients are tuned on."""


def checkpoint_files(source: str) -> tuple[Path, ...]:
    """Weight files of a checkpoint."""
    return open_checkpoint(source).location.shards
