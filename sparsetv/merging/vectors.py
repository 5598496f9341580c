"""Whole task vectors by tensor: checks, sums, multiples, and the simple average."""

from collections.abc import Callable, Mapping, Sequence

import torch

from sparsetv.errors import NamesError, ShapeError, UsageError
from sparsetv.rules import Combined, Full, Term

Tensors = Mapping[str, torch.Tensor]
"""Fine-tuned (or merged) minus base by the base's tensor names, float32, on one device."""

PIECE = 1 << 20
"""Entries that are worked on at once where a method looks at all tasks entry by entry."""

Prepare = Callable[[int, torch.Tensor, int], torch.Tensor]
"""(task, a flat piece of its vector, index of the piece's first entry) -> what takes part; a new tensor, same shape."""


def check_vectors(vectors: Sequence[Tensors]) -> tuple[str, ...]:
    """Names of the tensors, ascending, which is the order that entries are counted in.

    Raises:
        UsageError: There is no task.
        NamesError: A task has other tensors than the first.
        ShapeError: A tensor is not float32, or differs in shape or device from the first task's.
    """
    if not vectors:
        raise UsageError("there is nothing to merge: no task vectors")
    first = vectors[0]
    for number, vector in enumerate(vectors):
        for name in sorted(set(first) ^ set(vector)):
            raise NamesError(f"{name}: only one of task 0 and task {number} has it; merge task vectors of one scope")
        for name, tensor in vector.items():
            wanted = (torch.float32, first[name].shape, first[name].device)
            if (tensor.dtype, tensor.shape, tensor.device) != wanted:
                raise ShapeError(
                    f"{name}, task {number}: expected {wanted[0]}, {tuple(wanted[1])}, {wanted[2]} as in task 0; "
                    f"found {tensor.dtype}, {tuple(tensor.shape)}, {tensor.device}"
                )
    return tuple(sorted(first))


def total(vectors: Sequence[Tensors]) -> dict[str, torch.Tensor]:
    """Sum of task vectors, float32, tasks added in the order given; new tensors.

    Raises:
        UsageError, NamesError, ShapeError: The vectors do not fit together.

    Cost:
        Memory of the result.
    """
    sums = {}
    for name in check_vectors(vectors):
        sums[name] = vectors[0][name].clone()
        for vector in vectors[1:]:
            sums[name] += vector[name]
    return sums


def times(vector: Tensors, factor: float) -> dict[str, torch.Tensor]:
    """A multiple of a vector; new tensors."""
    return {name: tensor * factor for name, tensor in vector.items()}


def mean(vectors: Sequence[Tensors]) -> dict[str, torch.Tensor]:
    """Simple average of the fine-tunes: the sum, divided by the number of tasks; new tensors.

    Raises:
        UsageError, NamesError, ShapeError: The vectors do not fit together.

    Reference:
        Wortsman et al., Model soups, arXiv:2203.05482, section 2 (uniform soup).
    """
    sums = total(vectors)
    for tensor in sums.values():
        tensor.div_(len(vectors))
    return sums


def combine(
    vectors: Sequence[Tensors], prepare: Prepare, rule: Callable[[Sequence[Term], int, Full], Combined]
) -> dict[str, torch.Tensor]:
    """Combine all tasks entry by entry, a piece at a time, so that no prepared copy of a task is ever held.

    Args:
        vectors: Task vectors.
        prepare: What of a task's vector takes part. Entries count through all tensors, names ascending, row-major.
        rule: One of `sparsetv.rules`, whose terms are the tasks in the order given.

    Returns:
        New tensors.

    Raises:
        UsageError, NamesError, ShapeError: The vectors do not fit together.

    Cost:
        Memory of the result, and a few pieces per task.
    """
    merged: dict[str, torch.Tensor] = {}
    offset = 0
    for name in check_vectors(vectors):
        flats = [vector[name].reshape(-1) for vector in vectors]
        out = torch.empty_like(flats[0])
        full = _filler(out.device)
        for start in range(0, out.numel(), PIECE):
            pieces = [flat[start : start + PIECE] for flat in flats]
            terms = [Term(slice(None), prepare(i, piece, offset + start)) for i, piece in enumerate(pieces)]
            out[start : start + PIECE] = rule(terms, pieces[0].numel(), full)[0]
        merged[name] = out.reshape(vectors[0][name].shape)
        offset += out.numel()
    return merged


def _filler(device: torch.device) -> Full:
    return lambda size, value: torch.full((size,), value, dtype=torch.float32, device=device)
