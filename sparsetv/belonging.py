"""Whether a task belongs to a base: by structure first, by content second."""

from collections.abc import Mapping, Sequence

from sparsetv.errors import BaseMismatchError, UsageError
from sparsetv.fingerprint import Fingerprint, TensorIdentity, digest, first_difference
from sparsetv.task_vector import SparseTaskVector

Structure = Mapping[str, tuple[str, tuple[int, ...]]]
"""Dtype and shape by tensor name."""

VERIFY = ("meta", "touched", "full")
"""How a base is compared with the one that a task was packed against: names, dtypes and shapes of the tensors that the
task touches; their content, too; or the content of all tensors."""


def check_verify(verify: str) -> str:
    """`verify`, where it is a name of `VERIFY`.

    Raises:
        UsageError: It is none.
    """
    if verify not in VERIFY:
        raise UsageError(f"unknown verify {verify!r}; known are {', '.join(VERIFY)}")
    return verify


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


def check_content(
    task: SparseTaskVector, identities: Mapping[str, TensorIdentity], *, source: str, verify: str = "touched"
) -> None:
    """Compare hashes of tensors with those of the base that a task was packed against.

    Args:
        task: The task.
        identities: Identities of the tensors that are compared: for `touched` at least those that the task touches;
            for `full` all tensors of the base, or where some are not at hand, those that are, each of which is then
            compared by the first four bytes of its hash.
        source: What to call the base in messages.
        verify: A name of `VERIFY`.

    Raises:
        BaseMismatchError: They differ; the message has both digests and the first tensor that differs.
    """
    if verify == "meta":
        return
    whole = verify == "full"
    compared = identities if whole else {name: identities[name] for name in touched(task)}
    expected, found = task.base.digest if whole else task.base.touched, digest(compared.values())
    different = first_difference(task.base, compared)
    if found == expected or (whole and different is None and compared.keys() < set(task.base.names)):
        return
    raise BaseMismatchError(
        f"{task.name} was packed against base {expected[:12]}… but {source} is {found[:12]}… "
        f"(first difference: {different or 'none of the recorded hash tags'}); {_advice(task)}"
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
