"""A checkpoint of deltas: whole tensors, zero where nothing is kept; written, and read from whoever made one."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sparsetv.arrays import Bytes
from sparsetv.checkpoint.reading import Checkpoint, open_checkpoint
from sparsetv.csr import SparseTensor
from sparsetv.dtypes import WEIGHT_DTYPES, from_float32, to_float32
from sparsetv.errors import CheckpointError, FormatError
from sparsetv.exchange.entries import Collector, Found, chunks
from sparsetv.exchange.files import Array, write_arrays
from sparsetv.exchange.outcome import LeftOut, corrections, files, keeping
from sparsetv.task_vector import Extra, SparseTaskVector
from sparsetv.wire import canonical
from sparsetv.wire.fields import as_list, as_text

KIND = "sparsetv-deltas"
DTYPES = ("float32", "base")
"""What deltas are stored in: exactly, or rounded once to the dtype of the base's tensor."""


def write_dense(task: SparseTaskVector, path: Path, *, dtype: str = "float32") -> tuple[LeftOut, ...]:
    """Write the deltas of all tensors with kept entries under the base's names, and whole carried tensors as they are.

    Carried tensors have the fine-tune's names and are listed in the metadata's `carried`; `prefix` there is what turns
    a base name into a fine-tuned one. Rows added to a base tensor, and aliases, have no place.

    Args:
        task: The task.
        path: File to write.
        dtype: A name of `DTYPES`.

    Cost:
        Memory of the largest tensor.
    """
    tensors = keeping(task)
    whole = {name: extra for name, extra in task.extras.items() if extra.kind == "tensor" and name not in tensors}
    others = [LeftOut(n, 0, f"a carried tensor ({e.kind})") for n, e in task.extras.items() if n not in whole]
    arrays = [_deltas(name, tensor, tensor.dtype if dtype == "base" else "F32") for name, tensor in tensors.items()]
    arrays += [_carried(name, extra) for name, extra in whole.items()]
    metadata = {
        "carried": canonical.dumps(sorted(whole)).decode(),
        "prefix": canonical.dumps(list(task.finetuned.prefix)).decode(),
        "task": task.name,
    }
    write_arrays(path, arrays, kind=KIND, metadata=metadata)
    return (*others, *files(task), *corrections(tensors.values()))


def _deltas(name: str, tensor: SparseTensor, dtype: str) -> Array:
    def make() -> Bytes:
        return from_float32(tensor.to_dense().reshape(-1), dtype).view(np.uint8)

    return Array(name, dtype, tensor.shape, make)


def _carried(name: str, extra: Extra) -> Array:
    return Array(name, extra.dtype, extra.shape, lambda: extra.data)


def read_dense(source: Path | str, base: Checkpoint) -> Found:
    """Read a checkpoint of deltas: a file, or a directory with or without shards.

    Tensors have the base's names and shapes and are F32, BF16 or F16, which widen to float32 exactly. Zeros are not
    kept. What the metadata of an export list as carried is carried again.

    Raises:
        NotFoundError, CheckpointError, FormatError: It is no checkpoint of deltas.
        NamesError, ShapeError: A tensor does not fit the base.
        NonFiniteError: A delta is NaN or infinite.
        LimitError: More is kept than the memory limit has room for.

    Cost:
        One pass; memory of the entries that are not zero.
    """
    deltas = open_checkpoint(source)
    listed, prefix = _metadata(deltas)
    collector = Collector(base, what=str(source))
    for name in deltas.names:
        if name not in listed:
            _collect(collector, deltas, name)
    missing = sorted(listed - set(deltas.names))
    if missing:
        raise FormatError(f"{source}: lists {missing[0]} as carried and does not hold it; make it again")
    extras = {name: Extra("tensor", deltas.dtype(name), deltas.shape(name), deltas.raw(name)) for name in listed}
    return Found(collector.tensors(), extras, prefix)


def _collect(collector: Collector, deltas: Checkpoint, name: str) -> None:
    collector.check(name, deltas.shape(name))
    dtype = deltas.dtype(name)
    if dtype not in WEIGHT_DTYPES:
        raise CheckpointError(f"{collector.what}: {name} is {dtype}; deltas are {', '.join(WEIGHT_DTYPES)}")
    bits, positions, values, count = deltas.bits(name), [np.zeros(0, np.int64)], [np.zeros(0, np.float32)], 0
    for start, stop in chunks(len(bits)):
        numbers = to_float32(bits[start:stop], dtype)
        found = np.flatnonzero(numbers)
        count += len(found)
        collector.allow(count)
        positions.append(found + start)
        values.append(numbers[found])
    collector.add(name, np.concatenate(positions), np.concatenate(values))


def _metadata(deltas: Checkpoint) -> tuple[set[str], tuple[str, str]]:
    """Names of carried tensors and the prefix, where an export wrote the file."""
    described = [shard.metadata for shard in deltas.shards.values() if shard.metadata.get("kind") == KIND]
    if not described:
        return set(), ("", "")
    listed = _texts(described[0], "carried", deltas.source)
    prefix = _texts(described[0], "prefix", deltas.source)
    if len(prefix) != 2:
        raise FormatError(f"{deltas.source}: prefix is no pair; make it again")
    return set(listed), (prefix[0], prefix[1])


def _texts(metadata: Mapping[str, str], key: str, source: str) -> list[str]:
    where = f"{source}: {key}"
    value = canonical.loads(metadata.get(key, "null").encode(), what=where, depth=2)
    return [as_text(item, where=where) for item in as_list(value, where=where)]
