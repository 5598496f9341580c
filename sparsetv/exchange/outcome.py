"""What an export wrote, and what the form has no place for."""

from collections.abc import Iterable
from dataclasses import dataclass

from sparsetv.belonging import touched
from sparsetv.csr import SparseTensor
from sparsetv.task_vector import SparseTaskVector


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something of a task that a form cannot carry.

    Attributes:
        what: A tensor, `files`, or `corrections`.
        entries: How many kept entries, files or corrections.
        reason: Why, and what follows from it.
    """

    what: str
    entries: int
    reason: str


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        form: Name of the form.
        path: The file or directory.
        tensors, entries: How many tensors with kept entries, and kept entries, it holds.
        left_out: What it does not hold.
    """

    form: str
    path: str
    tensors: int
    entries: int
    left_out: tuple[LeftOut, ...]


def keeping(task: SparseTaskVector) -> dict[str, SparseTensor]:
    """Tensors with at least one kept entry, names ascending."""
    return {name: task.tensors[name] for name in touched(task)}


def no_place(task: SparseTaskVector) -> tuple[LeftOut, ...]:
    """Carried tensors and files, for forms that hold kept entries alone."""
    return (*_extras(task), *files(task))


def files(task: SparseTaskVector) -> tuple[LeftOut, ...]:
    """Carried files, which no other form has a place for."""
    reason = "configuration and tokenizer are no weights; take them from the fine-tune"
    return (LeftOut("files", len(task.files), reason),) if task.files else ()


def corrections(tensors: Iterable[SparseTensor]) -> tuple[LeftOut, ...]:
    """Corrections, for forms that hold deltas."""
    count = sum(len(tensor.corrections.index) for tensor in tensors)
    reason = "base + delta misses the fine-tuned weight there, mostly by one representable number"
    return (LeftOut("corrections", count, reason),) if count else ()


def _extras(task: SparseTaskVector) -> Iterable[LeftOut]:
    for name, extra in task.extras.items():
        yield LeftOut(name, 0, f"a carried tensor ({extra.kind}) that the base lacks")
