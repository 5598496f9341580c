"""Whether a task belongs to a base: by structure first, by content second."""

from collections.abc import Mapping

from sparsetv.errors import BaseMismatchError
from sparsetv.fingerprint import TensorIdentity, digest, first_difference
from sparsetv.task_vector import SparseTaskVector

Structure = Mapping[str, tuple[str, tuple[int, ...]]]
"""Dtype and shape by tensor name."""


def check_structure(task: SparseTaskVector, base: Structure, *, source: str) -> None:
    """Names, dtypes and shapes of the tensors that a task touches.

    Raises:
        BaseMismatchError: The base lacks one of them, or it is another one.
    """
    for name, tensor in task.tensors.items():
        if name not in base:
            raise BaseMismatchError(f"{task.name} needs tensor {name}, which base {source} lacks; {_advice(task)}")
        dtype, shape = base[name]
        if (dtype, shape) != (tensor.dtype, tensor.shape):
            raise BaseMismatchError(
                f"{name} is {tensor.dtype} {tensor.shape} for {task.name}, but {dtype} {shape} in base {source}; "
                f"{_advice(task)}"
            )


def touched(task: SparseTaskVector) -> list[str]:
    """Names of the tensors in which a task keeps an entry."""
    return [name for name, tensor in task.tensors.items() if tensor.nnz]


def check_content(task: SparseTaskVector, identities: Mapping[str, TensorIdentity], *, source: str) -> None:
    """Compare hashes of the tensors that a task touches.

    Raises:
        BaseMismatchError: They are not those of the base that the task was packed against.
    """
    names = touched(task)
    found = digest(identities[name] for name in names)
    if found == task.base.touched:
        return
    different = first_difference(task.base, {name: identities[name] for name in names})
    raise BaseMismatchError(
        f"{task.name} was packed against base {task.base.touched[:12]}… but {source} is {found[:12]}… "
        f"(first difference: {different}); {_advice(task)}"
    )


def _advice(task: SparseTaskVector) -> str:
    origin = task.base.repo
    where = f" ({origin}@{task.base.commit})" if origin else ""
    return f"pass the base it was packed from{where}"
