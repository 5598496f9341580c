"""One safetensors file with the three arrays of CSR per tensor, described in binsparse's words."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsetv.arrays import Bytes
from sparsetv.csr import SparseTensor, rows_and_columns
from sparsetv.exchange.files import Array, write_arrays
from sparsetv.exchange.outcome import LeftOut, corrections, keeping, no_place
from sparsetv.task_vector import SparseTaskVector
from sparsetv.wire import canonical

KIND = "sparsetv-csr"
_WIDE = 1 << 31


def write_csr(task: SparseTaskVector, path: Path) -> tuple[LeftOut, ...]:
    """Write `NAME.crow_indices`, `NAME.col_indices` (both int32, int64 where that is too narrow) and `NAME.values`.

    The metadata's `binsparse` is a JSON object with a descriptor per tensor: its keys are those of binsparse for CSR
    (`pointers_to_1` are crow_indices, `indices_1` col_indices), and `tensor_shape` is the whole shape.

    Reference:
        GraphBLAS, Binsparse storage format, version 0.1.
    """
    tensors = keeping(task)
    described = {name: _describe(tensor) for name, tensor in tensors.items()}
    arrays = [array for name, tensor in tensors.items() for array in _arrays(name, tensor)]
    metadata = {"binsparse": canonical.dumps(described).decode(), "task": task.name}
    write_arrays(path, arrays, kind=KIND, metadata=metadata)
    return (*no_place(task), *corrections(tensors.values()))


def _arrays(name: str, tensor: SparseTensor) -> Iterator[Array]:
    dtype, rows = _index_dtype(tensor), rows_and_columns(tensor.shape)[0]
    yield Array(f"{name}.crow_indices", dtype, (rows + 1,), lambda: _index_bytes(tensor.crow_indices, dtype))
    yield Array(f"{name}.col_indices", dtype, (tensor.nnz,), lambda: _index_bytes(tensor.col_indices, dtype))
    yield Array(f"{name}.values", "F32", (tensor.nnz,), lambda: tensor.values.astype("<f4").view(np.uint8))


def _index_dtype(tensor: SparseTensor) -> str:
    return "I32" if max(tensor.nnz, *rows_and_columns(tensor.shape)) < _WIDE else "I64"


def _index_bytes(index: NDArray[np.int64], dtype: str) -> Bytes:
    return index.astype({"I32": "<i4", "I64": "<i8"}[dtype]).view(np.uint8)


def _describe(tensor: SparseTensor) -> dict[str, Any]:
    index = {"I32": "int32", "I64": "int64"}[_index_dtype(tensor)]
    return {
        "version": "0.1",
        "format": "CSR",
        "shape": list(rows_and_columns(tensor.shape)),
        "number_of_stored_values": tensor.nnz,
        "data_types": {"pointers_to_1": index, "indices_1": index, "values": "float32"},
        "tensor_shape": list(tensor.shape),
    }
