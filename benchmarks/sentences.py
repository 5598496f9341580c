"""What the benchmarks on real fine-tunes share: the command line, live models, packed files, averages."""

import argparse
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.data import Sentences
from sparsetv.bench.subject import Subject
from sparsetv.bench.suite import read_suite
from sparsetv.jobs.learning import Learn
from sparsetv.jobs.options import PackOptions, RefitOptions
from sparsetv.jobs.pack import pack_files
from sparsetv.task_vector import SparseTaskVector
from sparsetv.taskfile import read_task, write_task

MAX_LENGTH = 64
SUITE = Path(__file__).parent / "suites" / "sentences.toml"


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


def subject(data: Sentences, name: str, *, limit: int | None = None) -> Subject:
    """One fine-tune's live model.

    Args:
        data: Where things are.
        name: Its name.
        limit: Most test examples that are used; None for all.
    """
    suite = read_suite(SUITE, models=data.models, data=data.tasks)
    return Subject(suite, suite.task(name), device="cpu", limit=limit)


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
