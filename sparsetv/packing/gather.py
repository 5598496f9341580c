"""Values at kept positions, and the corrections that make them exact."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sparsetv.arrays import Positions
from sparsetv.container.limits import ENTRY_BYTES, Limits
from sparsetv.csr import Corrections, SparseTensor
from sparsetv.difference import TaskVector
from sparsetv.dtypes import from_float32, ordinals, to_float32
from sparsetv.errors import LimitError, NonFiniteError
from sparsetv.masks import Mask

_THREADS = 2
_BUFFERS = 64 << 20


def allow_kept(count: int) -> None:
    """Refuse to keep more entries than the memory limit has room for.

    Raises:
        LimitError: Choosing, gathering and writing so many takes more.
    """
    need, limit = _BUFFERS + ENTRY_BYTES * count, Limits().decoded_bytes
    if need > limit:
        raise LimitError(
            f"keeping {count} entries takes up to {need} bytes, limit {limit}; lower the density or raise the limit "
            "(--max-memory)"
        )


def gather(vector: TaskVector, mask: Mask) -> dict[str, SparseTensor]:
    """Kept deltas per tensor of the mask, with corrections wherever `round(base + delta)` is not the fine-tuned bits.

    Args:
        vector: Base and fine-tune.
        mask: Which entries to keep.

    Returns:
        One SparseTensor per tensor of the mask, names ascending.

    Raises:
        NonFiniteError: A kept delta is NaN or infinite.
        LimitError: The mask keeps more than the memory limit has room for.

    Cost:
        Reads the kept entries only; memory O(kept).
    """
    allow_kept(mask.nnz)
    names = sorted(mask.positions)
    with ThreadPoolExecutor(_THREADS) as pool:
        tensors = pool.map(lambda name: gather_tensor(vector, name, mask.positions[name]), names)
        return dict(zip(names, tensors, strict=True))


def gather_tensor(vector: TaskVector, name: str, positions: Positions) -> SparseTensor:
    """Kept deltas of one tensor; see `gather`."""
    dtype, shape = vector.base.dtype(name), vector.base.shape(name)
    base = to_float32(vector.base.bits(name)[positions], dtype)
    target = vector.target_bits(name, positions)
    with np.errstate(invalid="ignore", over="ignore"):
        values = to_float32(target, dtype) - base
        reached = from_float32(base + values, dtype)
    if not np.isfinite(values).all():
        position = int(positions[np.flatnonzero(~np.isfinite(values))[0]])
        raise NonFiniteError(f"{name}: fine-tuned minus base is NaN or infinite at position {position}")
    index = np.flatnonzero(reached != target)
    amount = (ordinals(target[index]).astype(np.int64) - ordinals(reached[index])).astype(np.uint32)
    return SparseTensor(dtype, shape, positions, values, Corrections(index, amount))
