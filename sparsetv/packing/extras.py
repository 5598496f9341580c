"""What does not match is carried, not dropped: heads, added rows, tensors that the base lacks."""

from collections.abc import Iterable

import numpy as np

from sparsetv.checkpoint.reading import Checkpoint
from sparsetv.difference import TaskVector
from sparsetv.dtypes import SIZES, WEIGHT_DTYPES
from sparsetv.errors import CheckpointError, NamesError, ShapeError
from sparsetv.task_vector import Extra


def check_scope(vector: TaskVector, names: Iterable[str], wanted: Iterable[str]) -> None:
    """Refuse tensors of the scope that cannot be compared.

    Args:
        vector: Base and fine-tune.
        names: Base names of the scope that can be compared.
        wanted: All base names that the scope covers.

    Raises:
        NamesError: The fine-tune lacks a tensor of the scope.
        ShapeError: A tensor of the scope has another shape in the fine-tune.
        CheckpointError: A tensor of the scope is quantized or of a dtype that deltas cannot be taken in.
    """
    pairing = vector.pairing
    for name in sorted(set(wanted) - set(names)):
        if name in pairing.missing:
            raise NamesError(
                f"{vector.finetuned.source} lacks {name}, which the scope covers; expected it as "
                f"{pairing.prefix[1] + name.removeprefix(pairing.prefix[0])}; add "
                f"`--scope '!{name}'` to your --scope to leave it out, or "
                "check that both are the same architecture"
            )
        if name in pairing.reshaped:
            other = vector.finetuned.shape(pairing.reshaped[name])
            raise ShapeError(
                f"{name}: base has shape {vector.base.shape(name)}, fine-tune {other}; exclude it with "
                f"`--scope '!{name}'` to carry it whole"
            )
        if not _same_bits(vector, name, vector.finetuned_name(name)):
            _check_dtype(vector, name)


def _check_dtype(vector: TaskVector, name: str) -> None:
    dtypes = {vector.base.dtype(name), vector.finetuned.dtype(vector.finetuned_name(name))}
    odd = sorted(dtypes - set(WEIGHT_DTYPES))
    if odd and any(dtype.startswith("F8") or dtype in {"I8", "U8", "F64"} for dtype in odd):
        raise CheckpointError(
            f"{name}: dtype {odd[0]} cannot hold exact deltas; pass base and fine-tune as F32, BF16 or F16 "
            "(for a quantized model, the checkpoint that was quantized)"
        )


def collect(vector: TaskVector) -> dict[str, Extra]:
    """Everything of the fine-tune that the base has no place for, by the fine-tune's name.

    A tensor that the base lacks but that is bit-identical to one they share (a tied head saved on its own) becomes an
    alias of it. A tensor of another shape is carried whole, added rows alone where only rows were added, and so is a
    changed tensor of integers or booleans.
    """
    finetuned, pairing, comparable = vector.finetuned, vector.pairing, set(vector.comparable())
    twins = _Twins(finetuned, [*pairing.shared.values(), *pairing.grown.values()])
    extras = {name: twins.find(name) or _whole(finetuned, name) for name in pairing.added}
    for name in pairing.reshaped.values():
        extras[name] = _whole(finetuned, name)
    for base_name, name in pairing.grown.items():
        extras[name] = _rows(vector, base_name, name)
    for base_name, name in pairing.shared.items():
        if base_name not in comparable and not _same_bits(vector, base_name, name):
            extras[name] = _whole(finetuned, name)
    return dict(sorted(extras.items()))


def _whole(finetuned: Checkpoint, name: str) -> Extra:
    return Extra("tensor", finetuned.dtype(name), finetuned.shape(name), finetuned.raw(name))


def _rows(vector: TaskVector, base_name: str, name: str) -> Extra:
    finetuned = vector.finetuned
    dtype, shape, known = finetuned.dtype(name), finetuned.shape(name), vector.base.shape(base_name)
    if dtype not in WEIGHT_DTYPES or vector.base.dtype(base_name) not in WEIGHT_DTYPES:
        return _whole(finetuned, name)
    start = vector.base.numel(base_name) * SIZES[dtype]
    return Extra("rows", dtype, (shape[0] - known[0], *shape[1:]), finetuned.raw(name)[start:], base_name)


def _same_bits(vector: TaskVector, base_name: str, name: str) -> bool:
    same_dtype = vector.base.dtype(base_name) == vector.finetuned.dtype(name)
    return same_dtype and np.array_equal(vector.base.raw(base_name), vector.finetuned.raw(name))


class _Twins:
    """Finds a shared tensor with the same bits, by dtype and shape first."""

    def __init__(self, finetuned: Checkpoint, names: list[str]) -> None:
        self._finetuned = finetuned
        self._names = names

    def find(self, name: str) -> Extra | None:
        finetuned = self._finetuned
        dtype, shape = finetuned.dtype(name), finetuned.shape(name)
        if len(shape) < 2:
            return None
        for other in self._names:
            same = finetuned.dtype(other) == dtype and finetuned.shape(other) == shape
            if same and np.array_equal(finetuned.raw(other), finetuned.raw(name)):
                return Extra("alias", dtype, shape, np.zeros(0, np.uint8), other)
        return None
