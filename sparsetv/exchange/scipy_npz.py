"""A directory of scipy's own files: one `.npz` per tensor, read back by `scipy.sparse.load_npz`."""

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

from sparsetv import atomic
from sparsetv.exchange.outcome import LeftOut, corrections, keeping, no_place
from sparsetv.task_vector import SparseTaskVector

if TYPE_CHECKING:
    from sparsetv.csr import SparseTensor

INDEX = "index.json"


def write_scipy(task: SparseTaskVector, directory: Path) -> tuple[LeftOut, ...]:
    """Write `00000.npz`, … (CSR, float32, no pickle) and `index.json`, which says which tensor each is.

    A matrix has the tensor's first dimension as rows and the rest as columns; `index.json` has the whole shape.

    Args:
        task: The task.
        directory: An empty directory.
    """
    tensors = keeping(task)
    index = []
    for number, (name, tensor) in enumerate(tensors.items()):
        file = f"{number:05}.npz"
        atomic.write_new_file(directory / file, [_npz(tensor)])
        index.append({"name": name, "file": file, "shape": list(tensor.shape), "base_dtype": tensor.dtype})
    text = json.dumps({"format": "sparsetv-scipy", "task": task.name, "tensors": index}, indent=2) + "\n"
    atomic.write_new_file(directory / INDEX, [text.encode()])
    return (*no_place(task), *corrections(tensors.values()))


def _npz(tensor: "SparseTensor") -> bytes:
    from scipy.sparse import save_npz  # noqa: PLC0415  scipy costs 0.1 s that other forms need not pay

    buffer = io.BytesIO()
    save_npz(buffer, tensor.to_scipy(), compressed=True)
    return buffer.getvalue()
