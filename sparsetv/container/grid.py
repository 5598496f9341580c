"""Rows and columns of a piece in classes, and the cells where they meet (formats/codecs/cells.md)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsetv.arrays import Positions

CLASSES = 16
"""Most classes of rows, or of columns."""

_FRACTION = 256
_LOGS = np.array([round(_FRACTION * float(np.log2(1 + i / _FRACTION))) for i in range(_FRACTION)], np.int64)
_ENTRY = 369  # log2(e): what a gap costs beyond the logarithm of its mean
_CELL = 10 * _FRACTION  # what a cell costs by being there
_LINES = 64  # with more rows and columns for each kept entry their classes cannot pay, and would take memory


@dataclass(frozen=True, slots=True)
class Place:
    """Where a piece lies: index of its first entry in the scope, rows, columns, kept entries."""

    start: int
    rows: int
    columns: int
    nnz: int

    @property
    def entries(self) -> int:
        """Entries of the piece."""
        return self.rows * self.columns


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """Rows, or columns, in classes.

    Attributes:
        size: How many there are.
        count: Number of classes.
        classes: Class of each, int64, shape (size,); None for one class, so that nothing is as long as the axis.
    """

    size: int
    count: int = 1
    classes: NDArray[np.int64] | None = None

    def sizes(self) -> list[int]:
        """Members per class."""
        if self.classes is None:
            return [self.size]
        found: list[int] = np.bincount(self.classes, minlength=self.count).tolist()
        return found

    def order(self) -> NDArray[np.int64] | None:
        """Members by class, in order; None for all as they are."""
        return None if self.classes is None else np.argsort(self.classes, kind="stable")

    def of(self, members: NDArray[np.int64]) -> NDArray[np.int64]:
        """Class of some members."""
        return np.zeros(len(members), np.int64) if self.classes is None else self.classes[members]

    def within(self, members: NDArray[np.int64]) -> NDArray[np.int64]:
        """Place of some members in their class."""
        order = self.order()
        if order is None or self.classes is None:
            return members
        starts = np.cumsum([0, *self.sizes()[:-1]])
        rank = np.empty(self.size, np.int64)
        rank[order] = np.arange(self.size)
        place: NDArray[np.int64] = rank[members] - starts[self.classes[members]]
        return place


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """A piece cut into cells, row class by row class."""

    rows: Axis
    columns: Axis

    def sizes(self) -> list[int]:
        """Entries per cell."""
        return [rows * columns for rows in self.rows.sizes() for columns in self.columns.sizes()]

    def split(self, positions: Positions) -> list[Positions]:
        """Addresses of kept entries per cell, ascending, from positions in the piece."""
        if self.rows.count == self.columns.count == 1:
            return [positions]
        row, column = np.divmod(positions, self.columns.size)
        cell = self.rows.of(row) * self.columns.count + self.columns.of(column)
        widths = np.array(self.columns.sizes(), np.int64)[cell % self.columns.count]
        address = self.rows.within(row) * widths + self.columns.within(column)
        order = np.lexsort((address, cell))
        bounds = np.searchsorted(cell[order], np.arange(1, self.rows.count * self.columns.count))
        return np.split(address[order], bounds)

    def join(self, addresses: list[Positions]) -> Positions:
        """Positions in the piece, ascending, from addresses per cell."""
        if self.rows.count == self.columns.count == 1:
            return addresses[0]
        parts = list(self._positions(addresses))
        return np.sort(np.concatenate(parts)) if parts else np.zeros(0, np.int64)

    def _positions(self, addresses: list[Positions]) -> Iterator[Positions]:
        row_order, column_order = self.rows.order(), self.columns.order()
        row_starts = np.cumsum([0, *self.rows.sizes()]).tolist()
        widths = self.columns.sizes()
        column_starts = np.cumsum([0, *widths]).tolist()
        for cell, found in enumerate(addresses):
            if len(found):
                a, b = divmod(cell, self.columns.count)
                row, column = np.divmod(found, widths[b])
                row, column = row + row_starts[a], column + column_starts[b]
                row = row if row_order is None else row_order[row]
                column = column if column_order is None else column_order[column]
                yield row * self.columns.size + column


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """A grid, and about how many 256ths of a bit the piece takes with it and in one cell."""

    grid: Grid
    cost: int
    plain: int


def choose_grid(positions: Positions, *, rows: int, columns: int) -> Choice:
    """The grid that makes a piece smallest, by an estimate in whole numbers (cells.md, clause 6)."""
    plain = Grid(Axis(rows), Axis(columns))
    if rows < 2 or columns < 2 or rows + columns > _LINES * len(positions):
        alone = _entries(np.array([len(positions)], np.int64), np.array([rows * columns], np.int64))
        return Choice(plain, alone + _CELL, alone)
    row, column = np.divmod(positions, columns)
    kept = np.bincount(row, minlength=rows), np.bincount(column, minlength=columns)
    grids = [plain]
    for halved in (False, True):
        axes = [_classes(counts, halved=halved) for counts in kept]
        grids.append(Grid(*axes))
    costs = [_cost(grid, row, column) for grid in grids]
    best = costs.index(min(costs))
    return Choice(grids[best], costs[best], costs[0] - _CELL)


def _classes(kept: NDArray[np.int64], *, halved: bool) -> Axis:
    bits = np.frexp(kept.astype(np.float64))[1].astype(np.int64)
    wanted = np.minimum((bits + 1) // 2 if halved else bits, CLASSES - 1)
    found, classes, members = np.unique(wanted, return_inverse=True, return_counts=True)
    if len(found) == 1:
        return Axis(len(kept))
    rank = np.argsort(np.argsort(-members, kind="stable"))  # alike in all pieces, so that they compress together
    return Axis(len(kept), len(found), rank[classes].astype(np.int64))


def _cost(grid: Grid, row: NDArray[np.int64], column: NDArray[np.int64]) -> int:
    """About how many 256ths of a bit a grid takes."""
    count = grid.rows.count * grid.columns.count
    cell = grid.rows.of(row) * grid.columns.count + grid.columns.of(column)
    kept = np.bincount(cell, minlength=count)
    entries = _entries(kept, np.array(grid.sizes(), np.int64))
    return entries + count * _CELL + sum(_axis_cost(axis) for axis in (grid.rows, grid.columns))


def _entries(kept: NDArray[np.int64], sizes: NDArray[np.int64]) -> int:
    """About how many 256ths of a bit the positions in some cells take."""
    rare = np.minimum(kept, sizes - kept)  # in a cell more than half full the gaps between the others tell as much
    used = rare > 0
    return int((rare[used] * (_log2(sizes[used]) - _log2(rare[used]) + _ENTRY)).sum())


def _axis_cost(axis: Axis) -> int:
    if axis.count == 1:
        return 0
    sizes = np.array(axis.sizes(), np.int64)
    return int((sizes * (_log2(np.array([axis.size])) - _log2(sizes))).sum())


def _log2(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Logarithms to base 2 of positive integers, in 256ths, alike on every machine."""
    exponent = np.frexp(numbers.astype(np.float64))[1].astype(np.int64) - 1
    low, high = np.maximum(exponent - 8, 0), np.maximum(8 - exponent, 0)
    logs: NDArray[np.int64] = exponent * _FRACTION + _LOGS[((numbers >> low) << high) & (_FRACTION - 1)]
    return logs
