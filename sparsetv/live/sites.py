"""Where each tensor of a base lives in memory, and its bits."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sparsetv.errors import CheckpointError
from sparsetv.fingerprint import TensorIdentity
from sparsetv.live.bits import BITS, NAMES

_CHUNK = 1 << 22


@dataclass(frozen=True, slots=True)
class Site:
    """One tensor of the base in memory.

    Attributes:
        name, shape: As the base's checkpoint has them.
        dtype: F32, BF16 or F16, as the live tensor has it.
        bits: Shape (n,), int16 or int32: bit patterns of the whole live tensor that it lies in; a view of its storage.
        offset: Flat position of the tensor's first entry in the live tensor.
        strides: Entries between neighbours in the live tensor, one per dimension; None where positions are the same.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bits: torch.Tensor
    offset: int = 0
    strides: tuple[int, ...] | None = None

    @property
    def place(self) -> tuple[int, int, tuple[int, ...] | None]:
        """Equal for two names of one and the same memory (tied tensors)."""
        return self.bits.data_ptr(), self.offset, self.strides

    def flat(self, positions: torch.Tensor) -> torch.Tensor:
        """Positions in the tensor as positions in the live tensor, int64, same shape."""
        if self.strides is None:
            return positions
        found = torch.full_like(positions, self.offset)
        rest = positions
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            found += rest % size * stride
            rest = rest // size
        return found

    def identity(self) -> TensorIdentity:
        """Hash of the tensor as a checkpoint would store it; copies a chunk at a time to the CPU."""
        hasher, count = hashlib.sha256(), math.prod(self.shape)
        for start in range(0, count, _CHUNK):
            stop = min(start + _CHUNK, count)
            if self.strides is None:
                chunk = self.bits[start:stop]
            else:
                chunk = self.bits.index_select(0, self.flat(torch.arange(start, stop, device=self.bits.device)))
            hasher.update(np.ascontiguousarray(chunk.cpu().numpy()).data)
        return TensorIdentity(self.name, self.dtype, self.shape, hasher.digest())


def site_of(
    name: str, tensor: torch.Tensor, *, shape: Sequence[int] | None = None, offset: int = 0,
    strides: tuple[int, ...] | None = None,
) -> Site:  # fmt: skip
    """A tensor in memory, or the part of it that is one tensor of the base.

    Raises:
        CheckpointError: It is not contiguous, or no F32, BF16 or F16 tensor with memory of its own.
    """
    if tensor.dtype not in NAMES:
        raise CheckpointError(f"{name}: {tensor.dtype} in memory; tasks change float32, bfloat16 and float16 only")
    if not tensor.is_contiguous() or tensor.is_meta:
        state = "has no memory yet" if tensor.is_meta else "is not contiguous in memory"
        raise CheckpointError(f"{name}: {state}; load the whole model onto its devices first")
    dtype = NAMES[tensor.dtype]
    bits = tensor.detach().view(-1).view(BITS[dtype])
    return Site(name, tuple(tensor.shape if shape is None else shape), dtype, bits, offset, strides)


def sites_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, Site]:
    """All tensors of a base that tasks can change, by name; others are left out."""
    return {name: site_of(name, tensor) for name, tensor in tensors.items() if tensor.dtype in NAMES}
