"""What every decoded task promises, whatever its file said."""

from dataclasses import fields

import numpy as np

from fuzz.target import require
from sparsetv.container.limits import Limits
from sparsetv.container.reader import decode, open_bytes
from sparsetv.container.writer import encode
from sparsetv.csr import SparseTensor
from sparsetv.task_vector import SparseTaskVector

LIMITS = Limits(decoded_bytes=1 << 26)
"""Far below the default, so that what comes near it takes no second either."""


def check_content(task: SparseTaskVector) -> None:
    """Raise AssertionError where a decoded task is not sound."""
    for name, tensor in task.tensors.items():
        _check_tensor(name, tensor)
    for extra in task.extras.values():
        require(extra.kind in {"tensor", "rows", "alias"}, f"extra of kind {extra.kind}")


def _check_tensor(name: str, tensor: SparseTensor) -> None:
    positions, corrections = tensor.positions, tensor.corrections
    require(positions.dtype == np.int64, f"{name}: positions are {positions.dtype}")
    require(tensor.values.dtype == np.float32, f"{name}: values are {tensor.values.dtype}")
    require(len(positions) == len(tensor.values) == tensor.nnz, f"{name}: lengths differ")
    require((np.diff(positions) > 0).all(), f"{name}: positions do not increase")
    inside = tensor.nnz == 0 or 0 <= positions[0] <= positions[-1] < tensor.numel
    require(inside, f"{name}: positions lie outside")
    require(np.isfinite(tensor.values).all(), f"{name}: a value is not finite")
    index = corrections.index
    require((np.diff(index) > 0).all(), f"{name}: corrections do not increase")
    require(not len(index) or 0 <= index[0] <= index[-1] < tensor.nnz, f"{name}: corrections lie outside")
    require(corrections.amount.all(), f"{name}: a correction of 0")


def check_encodes(task: SparseTaskVector) -> None:
    """Raise where a decoded task is not the same after it was written and read again; for one in 16, the same file."""
    written = encode(task).tobytes()
    again = decode(open_bytes(written, limits=LIMITS))
    require(again.digest() == task.digest(), "the digest changes when the task is written again")
    for field in fields(task):
        if field.name not in {"tensors", "extras", "probe"}:
            same = getattr(task, field.name) == getattr(again, field.name)
            require(same, f"{field.name} changes when the task is written again")
    if task.digest().endswith("0"):
        require(encode(again).tobytes() == written, "the same task gives two files")
