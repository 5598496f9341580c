"""Where one checkpoint tensor lies in a live model."""

import math
from dataclasses import dataclass

import torch

from sparsetv.places.markers import Layout, Shape, row_major


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where one checkpoint tensor lies in a live model.

    Attributes:
        parameter: Name of the live parameter or buffer, as in `named_parameters(remove_duplicate=False)`.
        tensor: The live tensor, detached; shares its storage.
        shape: Shape of the checkpoint tensor.
        offset: Flat position of the checkpoint tensor's first entry in the live tensor.
        strides: How far apart neighbours lie in the live tensor, per dimension of `shape`, in entries; 0 where the
            dimension has size 1.
    """

    parameter: str
    tensor: torch.Tensor
    shape: Shape
    offset: int
    strides: tuple[int, ...]

    @property
    def view(self) -> torch.Tensor:
        """The checkpoint tensor in its own shape, a view of the live tensor's memory."""
        return self.within(self.tensor)

    def within(self, whole: torch.Tensor) -> torch.Tensor:
        """The checkpoint tensor's part of something laid out as the live tensor is, such as its gradient; a view."""
        flat = whole.detach().view(-1)
        return flat.as_strided(self.shape, self.strides, flat.storage_offset() + self.offset)

    @property
    def identity(self) -> bool:
        """Whether the live tensor holds the checkpoint tensor's entries in their order, and nothing else."""
        same = Layout(self.offset, self.strides) == row_major(self.shape)
        return same and self.tensor.numel() == math.prod(self.shape)

    @property
    def straight(self) -> bool:
        """Whether entries keep their order and distances in the live tensor."""
        runs = self._runs()
        return not runs or (len(runs) == 1 and runs[0][1] == 1)

    def flat(self, positions: torch.Tensor) -> torch.Tensor:
        """Positions in the live tensor of positions in the checkpoint tensor.

        Args:
            positions: Flat row-major positions in `shape`, int64, any device.

        Returns:
            int64, shape and device of `positions`; `positions` itself where they stay the same.
        """
        runs = self._runs()
        if len(runs) == 1 and runs[0][1] == 1:
            return positions + self.offset if self.offset else positions
        rest, moved = positions, torch.full_like(positions, self.offset)
        for size, stride in runs:
            moved += rest % size * stride
            rest = rest // size
        return moved

    def _runs(self) -> list[tuple[int, int]]:
        """(size, stride) from the last dimension on; dimensions that follow each other evenly are one."""
        runs: list[tuple[int, int]] = []
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if runs and size > 1 and stride == runs[-1][0] * runs[-1][1]:
                runs[-1] = (runs[-1][0] * size, runs[-1][1])
            elif size > 1:
                runs.append((size, stride))
        return runs
