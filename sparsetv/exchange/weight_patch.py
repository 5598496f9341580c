"""vLLM's sparse weight patch in checkpoint coordinates, as a file: the weights themselves, not deltas."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from sparsetv.arrays import Bits
from sparsetv.csr import SparseTensor
from sparsetv.dtypes import TORCH_NAMES
from sparsetv.exchange.files import Array, write_arrays
from sparsetv.exchange.outcome import LeftOut, keeping, no_place
from sparsetv.task_vector import SparseTaskVector
from sparsetv.wire import canonical

KIND = "sparsetv-vllm-patch"
_WIDE = 1 << 31


def write_patch(task: SparseTaskVector, path: Path, *, stitched: Callable[[str], Bits]) -> tuple[LeftOut, ...]:
    """Write what vLLM's `CheckpointWeightPatch` holds: per tensor name, shape, dtype, flat indices, absolute values.

    vLLM has patches in memory only, and no file. In this one the arguments are `NAME.indices` (flat and row-major into
    the whole checkpoint tensor, int32, int64 where that is too narrow) and `NAME.values` (of the base's dtype), and
    the metadata's `patches` is a JSON object with `shape` and `dtype` (torch's name) per tensor name. Names are those
    of the base's checkpoint. Indices increase; no value is NaN, which vLLM takes for "unchanged". vLLM itself was not
    run with it.

    Args:
        task: The task.
        path: File to write.
        stitched: Gives the stitched bits of a tensor's kept entries, shape (nnz,).

    Reference:
        vLLM, vllm/model_executor/model_loader/checkpoint_weight_patch.py; pull request 50723.
    """
    tensors = keeping(task)
    patches = {name: {"shape": list(t.shape), "dtype": TORCH_NAMES[t.dtype]} for name, t in tensors.items()}
    arrays = [array for name, tensor in tensors.items() for array in _arrays(name, tensor, stitched)]
    metadata = {"patches": canonical.dumps(patches).decode(), "task": task.name}
    write_arrays(path, arrays, kind=KIND, metadata=metadata)
    return no_place(task)


def _arrays(name: str, tensor: SparseTensor, stitched: Callable[[str], Bits]) -> Iterator[Array]:
    wide = tensor.numel >= _WIDE
    index = np.dtype("<i8" if wide else "<i4")
    places = (tensor.nnz,)
    yield Array(f"{name}.indices", "I64" if wide else "I32", places, lambda: tensor.positions.astype(index).view("u1"))
    yield Array(f"{name}.values", tensor.dtype, places, lambda: np.ascontiguousarray(stitched(name)).view(np.uint8))
