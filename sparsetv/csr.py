"""One tensor's kept deltas: the CSR model, held as flat positions so that nothing is stored twice."""

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsetv.arrays import Positions, Values

if TYPE_CHECKING:
    import scipy.sparse
    import torch


def rows_and_columns(shape: tuple[int, ...]) -> tuple[int, int]:
    """The matrix that CSR sees: (shape[0], the rest); a vector is one row, a scalar one entry (SPEC 4.1)."""
    if len(shape) < 2:
        return 1, math.prod(shape)
    return shape[0], math.prod(shape[1:])


@dataclass(frozen=True, slots=True)
class Corrections:
    """Where `round(base + value)` misses the fine-tuned weight, and by how many representable numbers.

    Attributes:
        index: Shape (n,), int64, ascending: which of the tensor's kept entries.
        amount: Shape (n,), uint32: to be added to the ordinal of the rounded sum, mod 2^32; never 0.
    """

    index: NDArray[np.int64]
    amount: NDArray[np.uint32]

    @classmethod
    def none(cls) -> "Corrections":
        """No correction at all."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.uint32))


@dataclass(frozen=True, slots=True)
class SparseTensor:
    """Kept deltas of one tensor of the base.

    Attributes:
        dtype: Dtype of the tensor in the base: F32, BF16 or F16.
        shape: Shape in the base.
        positions: Shape (nnz,), int64: flat row-major positions, strictly increasing.
        values: Shape (nnz,), float32: fine-tuned minus base at those positions.
        corrections: Where the fine-tuned weight needs more than the value to come out bit for bit.
    """

    dtype: str
    shape: tuple[int, ...]
    positions: Positions
    values: Values
    corrections: Corrections = field(default_factory=Corrections.none)

    @property
    def nnz(self) -> int:
        """Number of kept entries."""
        return len(self.positions)

    @property
    def numel(self) -> int:
        """Number of entries of the dense tensor."""
        return math.prod(self.shape)

    @property
    def crow_indices(self) -> NDArray[np.int64]:
        """Shape (rows + 1,), int64: where each row starts among the kept entries; rebuilt, not stored."""
        rows, columns = rows_and_columns(self.shape)
        return np.searchsorted(self.positions, np.arange(rows + 1, dtype=np.int64) * columns)

    @property
    def col_indices(self) -> NDArray[np.int64]:
        """Shape (nnz,), int64: column of each kept entry."""
        columns = rows_and_columns(self.shape)[1]
        return self.positions % columns if columns else self.positions

    def scaled(self, factor: float) -> "SparseTensor":
        """The tensor with its values times a factor, in float32; corrections hold at factor 1 only."""
        if factor == 1:
            return self
        with np.errstate(over="ignore"):
            values = self.values * np.float32(factor)
        return replace(self, values=values, corrections=Corrections.none())

    def to_scipy(self) -> "scipy.sparse.csr_array[Any, Any]":
        """The deltas as a scipy CSR array of shape (rows, columns), float32; copies."""
        from scipy.sparse import csr_array  # noqa: PLC0415  scipy costs 0.1 s that inspect need not pay

        matrix = csr_array(
            (self.values.copy(), self.col_indices, self.crow_indices), shape=rows_and_columns(self.shape)
        )
        matrix.check_format(full_check=True)
        return matrix

    def to_torch(self) -> "torch.Tensor":
        """The deltas as a torch sparse CSR tensor of shape (rows, columns), float32; copies."""
        import torch  # noqa: PLC0415

        return torch.sparse_csr_tensor(
            torch.from_numpy(self.crow_indices),
            torch.from_numpy(self.col_indices),
            torch.from_numpy(self.values.copy()),
            size=rows_and_columns(self.shape),
            check_invariants=True,
        )

    def to_dense(self) -> Values:
        """The deltas as a dense float32 array of the base's shape, zero where nothing is kept."""
        dense = np.zeros(self.numel, np.float32)
        dense[self.positions] = self.values
        return dense.reshape(self.shape)
