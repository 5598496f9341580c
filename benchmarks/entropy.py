"""How near coded bytes come to the empirical entropy under the models that the format states.

Positions: codec `cells` by its clause 7 (in each cell k of n entries at random, classes of rows and columns drawn from
their frequencies), and each cell's k a uniform choice among 0 … n; `gaps`: a piece's nnz of its entries at random;
`seeded` has no entropy. Values: a sign is 1 bit; bytes of each plane of `exact` are independent draws from their
frequencies in the block, indices of `levels` from those in the frame (its clause 5). Corrections and tables of
magnitudes count as they are stored. What stands in the manifest counts on neither side. zstd may find more than these
models know of, so that values can take less.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsetv.container import exact, levels
from sparsetv.container.blocks import Coded, Slice, cut, tensor_starts
from sparsetv.container.grid import Grid, choose_grid
from sparsetv.container.manifest import Stream
from sparsetv.container.writer import encode_tensors
from sparsetv.csr import SparseTensor


@dataclass(frozen=True, slots=True)
class Floor:
    """Bytes as coded, and by the models."""

    positions: int
    values: int
    positions_model: float
    values_model: float

    def ratios(self) -> dict[str, float | None]:
        """Coded over model; None where the model has nothing left to say."""
        return {
            "positions": _ratio(self.positions, self.positions_model),
            "values": _ratio(self.values, self.values_model),
            "both": _ratio(self.positions + self.values, self.positions_model + self.values_model),
        }


def floor_of(tensors: Mapping[str, SparseTensor], *, seed: int | None = None) -> Floor:
    """Coded bytes and their floor, over all blocks of a task's tensors; the seed of a mask that was drawn."""
    coded = encode_tensors(tensors, seed=seed)
    blocks = list(zip(cut(tensors.values(), tensor_starts(t.shape for t in tensors.values())), coded, strict=True))
    return Floor(
        positions=sum(len(item.positions) for item in coded),
        values=sum(len(item.values) for item in coded),
        positions_model=math.fsum(_positions(slices, item) for slices, item in blocks) / 8,
        values_model=math.fsum(_values(slices, item.block.values) for slices, item in blocks) / 8,
    )


def codecs_of(tensors: Mapping[str, SparseTensor], *, seed: int | None = None) -> dict[str, dict[str, int]]:
    """How many blocks each codec codes."""
    found: dict[str, dict[str, int]] = {"positions": {}, "values": {}}
    for item in encode_tensors(tensors, seed=seed):
        for part, stream in (("positions", item.block.positions), ("values", item.block.values)):
            found[part][stream.codec] = found[part].get(stream.codec, 0) + 1
    return found


def choices(entries: int, kept: int) -> float:
    """Bits that tell which `kept` of `entries` are kept."""
    return (math.lgamma(entries + 1) - math.lgamma(kept + 1) - math.lgamma(entries - kept + 1)) / math.log(2)


def draws(symbols: NDArray[np.integer]) -> float:
    """Bits of independent draws from their own frequencies."""
    if not len(symbols):
        return 0.0
    counts = np.bincount(symbols)
    used = counts[counts > 0].astype(np.float64)
    return float((used * np.log2(len(symbols) / used)).sum())


def _positions(slices: list[Slice], coded: Coded) -> float:
    if coded.block.positions.codec == "seeded":
        return 0.0
    if coded.block.positions.codec == "gaps":
        return math.fsum(choices(item.piece.rows * item.columns, item.piece.nnz) for item in slices)
    return math.fsum(
        _grid(choose_grid(item.positions, rows=item.piece.rows, columns=item.columns).grid, item) for item in slices
    )


def _grid(grid: Grid, item: Slice) -> float:
    cells = zip(grid.sizes(), grid.split(item.positions), strict=True)
    inside = math.fsum(choices(size, len(cell)) + math.log2(size + 1) for size, cell in cells)
    axes = (axis.classes for axis in (grid.rows, grid.columns) if axis.classes is not None)
    return inside + math.fsum(draws(classes) for classes in axes)


def _values(slices: list[Slice], stream: Stream) -> float:
    """Bits by the codec's model; by the smaller one where `exact` codes what has few magnitudes, and no corrections."""
    values = [item.values for item in slices]
    signs = float(sum(map(len, values)))
    if stream.codec == "sign":
        return signs
    tables = [levels.table_of(piece) for piece in values]
    few = [table for table in tables if table is not None]
    if stream.codec == "levels":
        return signs + _indices(few) + 8 * sum(stream.frames[1:3])
    _, frames = exact.encode_values(np.concatenate(values))
    whole = signs + math.fsum(draws(plane) for plane in frames[1:]) + 8 * sum(stream.frames[5:])
    if len(few) < len(tables) or any(stream.frames[5:]):
        return whole
    return min(whole, signs + _indices(few) + sum(32 + 16 * len(table.multiples) for table in few))


def _indices(tables: Sequence[levels.Table]) -> float:
    total = 0.0
    for width in levels.WIDTHS:
        members = [t.index for t in tables if len(t.index) and levels.width_of(len(t.multiples)) == width]
        total += draws(np.concatenate(members)) if members else 0.0
    return total


def _ratio(coded: int, model: float) -> float | None:
    return round(coded / model, 4) if model else None
