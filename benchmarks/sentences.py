"""A real fine-tune as a live model whose body can be set to anything, and its score on its test set."""

import argparse
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import torch
from transformers import AutoTokenizer

from benchmarks.data import Sentences
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.difference import TaskVector, task_vector
from sparsetv.dtypes import to_float32
from sparsetv.examples.encoding import Batch, encode
from sparsetv.examples.reading import read_examples
from sparsetv.jobs.learning import Learn
from sparsetv.jobs.models import whole_model
from sparsetv.jobs.options import PackOptions, RefitOptions
from sparsetv.jobs.pack import pack_files
from sparsetv.objective.body import delta_of
from sparsetv.packing.carried import carry
from sparsetv.places.names import find_places
from sparsetv.task_vector import SparseTaskVector
from sparsetv.taskfile import read_task, write_task

MAX_LENGTH = 64


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The command line of a benchmark on real fine-tunes: MODELS TASKS [--room DIR]."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("tasks", type=Path)
    parser.add_argument("--room", type=Path, help="where files and scores are kept, so that a stopped run goes on")
    return parser


@contextmanager
def room_of(args: argparse.Namespace) -> Iterator[Path]:
    """The room that was asked for, or one for the length of the run."""
    with tempfile.TemporaryDirectory() as temporary:
        room = args.room or Path(temporary)
        room.mkdir(parents=True, exist_ok=True)
        yield room


class Subject:
    """One fine-tune.

    Args:
        data: Where things are.
        name: Its name.
        limit: Most test examples that are used; None for all.
    """

    def __init__(self, data: Sentences, name: str, *, limit: int | None = None) -> None:
        self.name, self._data, self._limit = name, data, limit
        self.vector: TaskVector = task_vector(open_checkpoint(data.base()), open_checkpoint(data.finetuned(name)))
        names = self.vector.comparable()
        self.deltas = {key: delta_of(self.vector, key, torch.device("cpu")) for key in names}
        self.carried = carry(self.vector, names, name=name)
        self.model = whole_model(self.carried, self.vector.finetuned)
        shapes = {key: self.vector.base.shape(key) for key in self.vector.base.names}
        self._places = find_places(self.model, shapes, names=names)
        self._base = {key: self._read(key) for key in names}
        self._own = {key: place.view.clone() for key, place in self._places.items()}

    def _read(self, key: str) -> torch.Tensor:
        base = self.vector.base
        return torch.from_numpy(to_float32(base.bits(key), base.dtype(key)).copy()).reshape(base.shape(key))

    @cached_property
    def batches(self) -> list[Batch]:
        """The test set, by length."""
        examples = read_examples(self._data.test(self.name))[: self._limit]
        ordered = sorted(examples, key=lambda example: len(example.text))
        tokenizer = AutoTokenizer.from_pretrained(self._data.base())
        return encode(self.model, tokenizer, ordered, batch_size=64, max_length=MAX_LENGTH)

    def accuracy(self, deltas: Mapping[str, torch.Tensor] | None) -> float:
        """Accuracy with the body at base plus deltas (0 where none is given); of the fine-tune itself for None."""
        with torch.no_grad():
            for key, place in self._places.items():
                if deltas is None:
                    place.view.copy_(self._own[key])
                else:
                    place.view.copy_(self._base[key] + deltas[key] if key in deltas else self._base[key])
        correct = total = 0
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            for batch in self.batches:
                inputs = {key: tensor for key, tensor in batch.items() if key != "labels"}
                correct += int((self.model(**inputs).logits.argmax(dim=-1) == batch["labels"]).sum())
                total += len(batch["labels"])
        return correct / total

    @cached_property
    def ceiling(self) -> float:
        """Accuracy of the fine-tune."""
        return self.accuracy(None)

    @cached_property
    def floor(self) -> float:
        """Accuracy of the base under the fine-tune's head."""
        return self.accuracy({})


def mean(numbers: Iterable[float]) -> float:
    """Mean, rounded to 4 digits."""
    listed = list(numbers)
    return round(sum(listed) / len(listed), 4)


def summarise(scores: Iterable[tuple[float, float, float]]) -> dict[str, float]:
    """Accuracy over the fine-tuned accuracy, and share of the gap from base to fine-tuned, averaged over fine-tunes.

    Args:
        scores: (accuracy, that of the base under the fine-tune's head, that of the fine-tune) per fine-tune.
    """
    listed = list(scores)
    return {
        "normalised": mean(score / ceiling for score, _, ceiling in listed),
        "gap_closed": mean((score - floor) / (ceiling - floor) for score, floor, ceiling in listed),
    }


def packed(data: Sentences, room: Path, name: str, kind: str) -> SparseTaskVector:
    """A packed file, made where the room lacks it.

    `kind` is a density and `exact`, `refit`, `tensor-refit`, `refit-data` or `sign-refit`, as in `0.3% refit`.

    `refit` trains values on random inputs, `tensor-refit` those of a mask of equal density in each tensor, `refit-data`
    on 64 examples per class of the training set, without labels.
    """
    density, values = kind.split("% ")
    file = room / f"{name}-{density}-{values}.stv"
    if not file.exists():
        train = data.test(name).parent / "train.jsonl"
        refit = None if "refit" not in values else RefitOptions(data=train if values == "refit-data" else "random")
        options = PackOptions(
            density=float(density) / 100,
            values="sign" if values.startswith("sign") else "exact",
            probe=True,
            refit=refit,
            allocation="tensor" if values == "tensor-refit" else "global",
            learn=Learn(precision="bf16", max_length=MAX_LENGTH),
        )
        write_task(file, pack_files(data.base(), data.finetuned(name), name=name, options=options))
    return read_task(file)


def dense(task: SparseTaskVector, scale: float) -> dict[str, torch.Tensor]:
    """A task's kept deltas at a scale, by base name."""
    return {key: torch.from_numpy(tensor.to_dense()) * scale for key, tensor in task.tensors.items()}
