"""TALL-mask sets: one multi-task vector, and a mask per task that selects from it."""

from pathlib import Path

import numpy as np

from sparsetv.arrays import Positions
from sparsetv.checkpoint.reading import Checkpoint, open_checkpoint
from sparsetv.dtypes import WEIGHT_DTYPES, to_float32
from sparsetv.errors import CheckpointError, FormatError, NotFoundError, UsageError
from sparsetv.exchange.entries import Collector, Found, chunks

VECTOR, MASKS = "multitask.safetensors", "masks.safetensors"


def read_tall(source: Path | str, base: Checkpoint, *, task: str | None) -> Found:
    """Read one task of a TALL-mask set: the multi-task vector where the task's mask is true.

    The set is a directory. `multitask.safetensors` has the vector, fine-tuned minus base summed over all tasks, by the
    base's names (F32, BF16 or F16). `masks.safetensors` has a one-dimensional tensor per task over all entries of the
    vector, tensors in ascending order of names, row-major: BOOL, or U8 with the bits as `numpy.packbits` packs them,
    which is how the authors release masks. Their pickles go through `sparsetv convert` first.

    Args:
        source: The directory.
        base: The base.
        task: Name of the task's mask; the only one where it is None.

    Raises:
        NotFoundError, CheckpointError, FormatError: It is no such set.
        UsageError: It has no mask of that name, or several and no name is given.
        NamesError, ShapeError: A tensor does not fit the base.
        NonFiniteError: A delta is NaN or infinite.
        LimitError: More is kept than the memory limit has room for.

    Reference:
        Wang et al., TALL-masks, arXiv:2405.07813, section 4; deltas are used at scale 1.
    """
    room = Path(source)
    missing = next((room / name for name in (VECTOR, MASKS) if not (room / name).is_file()), None)
    if missing is not None:
        raise NotFoundError(f"{missing}: no such file; a TALL-mask set is a directory with {VECTOR} and {MASKS}")
    vector, masks = open_checkpoint(room / VECTOR), open_checkpoint(room / MASKS)
    mask = _Mask(masks, _chosen(masks, task), sum(vector.numel(name) for name in vector.names))
    collector = Collector(base, what=str(source))
    start = 0
    for name in vector.names:
        collector.check(name, vector.shape(name))
        _collect(collector, vector, name, mask, start)
        start += vector.numel(name)
    return Found(collector.tensors())


def _chosen(masks: Checkpoint, task: str | None) -> str:
    if task is None and len(masks.names) == 1:
        return masks.names[0]
    if task is None or task not in masks:
        shown = ", ".join(masks.names[:8])
        raise UsageError(f"{masks.source}: name one of its {len(masks.names)} masks with --task: {shown}")
    return task


def _collect(collector: Collector, vector: Checkpoint, name: str, mask: "_Mask", offset: int) -> None:
    dtype = vector.dtype(name)
    if dtype not in WEIGHT_DTYPES:
        raise CheckpointError(f"{collector.what}: {name} is {dtype}; deltas are {', '.join(WEIGHT_DTYPES)}")
    positions, count = [np.zeros(0, np.int64)], 0
    for start, stop in chunks(vector.numel(name)):
        positions.append(mask.within(offset + start, offset + stop) + start)
        count += len(positions[-1])
        collector.allow(count)
    kept = np.concatenate(positions)
    collector.add(name, kept, to_float32(vector.bits(name)[kept], dtype))


class _Mask:
    """One task's mask over the whole vector, read run by run."""

    def __init__(self, masks: Checkpoint, name: str, count: int) -> None:
        dtype, shape, where = masks.dtype(name), masks.shape(name), f"{masks.source}: {name}"
        sizes = {"BOOL": count, "U8": (count + 7) // 8}
        if shape != (sizes.get(dtype, -1),):
            raise FormatError(
                f"{where}: {dtype} {shape} is neither BOOL ({sizes['BOOL']},) nor packed U8 ({sizes['U8']},), one bit "
                "for each entry of the vector"
            )
        self._data = masks.raw(name)
        self._packed = dtype == "U8"
        if self._packed and count % 8 and int(self._data[-1]) & (0xFF >> count % 8):
            raise FormatError(f"{where}: a bit behind the last entry is set; is it this vector's mask?")
        if not self._packed and len(self._data) and int(self._data.max()) > 1:
            raise FormatError(f"{where}: a boolean that is neither 0 nor 1")

    def within(self, start: int, stop: int) -> Positions:
        """Where the mask is true from `start` to `stop`, counted from `start`."""
        if not self._packed:
            return np.flatnonzero(self._data[start:stop])
        first = start // 8
        flags = np.unpackbits(self._data[first : (stop + 7) // 8])
        return np.flatnonzero(flags[start - 8 * first : stop - 8 * first])
