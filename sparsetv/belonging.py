"""Whether a task belongs to a base: by structure first, by content second."""

from collections.abc import Mapping, Sequence

from sparsetv.errors import BaseMismatchError
from sparsetv.fingerprint import Fingerprint, TensorIdentity, digest, first_difference
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


def check_one_base(tasks: Sequence[SparseTaskVector]) -> None:
    """Compare what task files say of their bases.

    Raises:
        BaseMismatchError: Two tasks were packed against different bases; the message names a tensor that differs.
    """
    for task in tasks[1:]:
        first = tasks[0]
        if task.base.digest != first.base.digest:
            raise BaseMismatchError(
                f"{first.name} was packed against base {first.base.digest[:12]}… but {task.name} against "
                f"{task.base.digest[:12]}… (first difference: {_between(first.base, task.base)}); "
                "name tasks of one base"
            )


def _between(first: Fingerprint, second: Fingerprint) -> str:
    mine, theirs = (
        dict(zip(base.names, zip(base.dtypes, base.shapes, base.tags, strict=True), strict=True))
        for base in (first, second)
    )
    different = (name for name in sorted(mine.keys() | theirs.keys()) if mine.get(name) != theirs.get(name))
    return next(different, "none of the recorded hash tags")


def _advice(task: SparseTaskVector) -> str:
    origin = task.base.repo
    where = f" ({origin}@{task.base.commit})" if origin else ""
    return f"pass the base it was packed from{where}"
