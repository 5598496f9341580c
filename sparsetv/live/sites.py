"""The tensors of a base in live memory, as bit patterns at flat positions."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from sparsetv.errors import CheckpointError
from sparsetv.fingerprint import TensorIdentity
from sparsetv.live.bits import BITS, NAMES
from sparsetv.places.markers import row_major
from sparsetv.places.place import Place

_CHUNK = 1 << 22


@dataclass(frozen=True, slots=True)
class Site:
    """One tensor of the base in memory.

    Attributes:
        name: As the base's checkpoint has it.
        dtype: F32, BF16 or F16, as the live tensor has it.
        bits: Shape (n,), int16 or int32: bit patterns of the whole live tensor that it lies in; a view of its storage.
        place: Where in the live tensor its entries lie.
    """

    name: str
    dtype: str
    bits: torch.Tensor
    place: Place

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in the checkpoint."""
        return self.place.shape

    @property
    def tensor(self) -> torch.Tensor:
        """The tensor in the checkpoint's shape, a view of live memory."""
        return self.place.view

    @property
    def memory(self) -> tuple[int, int, tuple[int, ...]]:
        """Equal for two names of one and the same memory (tied tensors)."""
        return self.bits.data_ptr(), self.place.offset, self.place.strides

    def identity(self) -> TensorIdentity:
        """Hash of the tensor as a checkpoint stores it; copies a chunk at a time to the CPU."""
        hasher, count = hashlib.sha256(), math.prod(self.shape)
        for start in range(0, count, _CHUNK):
            stop = min(start + _CHUNK, count)
            chunk = self.bits[start:stop]
            if not self.place.identity:
                chunk = self.bits.index_select(0, self.place.flat(torch.arange(start, stop, device=self.bits.device)))
            hasher.update(np.ascontiguousarray(chunk.cpu().numpy()).data)
        return TensorIdentity(self.name, self.dtype, self.shape, hasher.digest())


def site_of(name: str, place: Place) -> Site:
    """A tensor of the base at its place.

    Raises:
        CheckpointError: The live tensor is not contiguous, has no memory, or is not F32, BF16 or F16.
    """
    tensor = place.tensor
    if tensor.dtype not in NAMES:
        raise CheckpointError(f"{name}: {tensor.dtype} in memory; tasks change float32, bfloat16 and float16 only")
    if not tensor.is_contiguous() or tensor.is_meta:
        state = "has no memory yet" if tensor.is_meta else "is not contiguous in memory"
        raise CheckpointError(f"{name}: {state}; load the whole model onto its devices first")
    dtype = NAMES[tensor.dtype]
    return Site(name, dtype, tensor.detach().view(-1).view(BITS[dtype]), place)


def sites_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, Site]:
    """All tensors of a base that tasks can change, by name; others are left out."""
    return {
        name: site_of(name, Place(name, tensor, tuple(tensor.shape), *_whole(tuple(tensor.shape))))
        for name, tensor in tensors.items()
        if tensor.dtype in NAMES
    }


def _whole(shape: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    layout = row_major(shape)
    return layout.offset, layout.strides
