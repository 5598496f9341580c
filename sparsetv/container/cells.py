"""Position codec `cells`: rows and columns in classes, each cell coded by its density.

Reference: formats/codecs/cells.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sparsetv.arrays import Bytes, Positions
from sparsetv.container import gaps
from sparsetv.container.gaps import Span
from sparsetv.container.grid import Axis, Grid, Place, choose_grid
from sparsetv.container.streams import Frames, from_planes, planes
from sparsetv.errors import FormatError

BANDS = 6
"""Frames of gaps, by the number of bits of the mean gap."""

_CELL_BYTES = 400  # what a decoder holds of a cell, as objects


@dataclass(frozen=True, slots=True)
class Header:
    """The codec's parameters: numbers of classes per piece, and decompressed sizes of the frames of gaps."""

    row_classes: list[int]
    column_classes: list[int]
    high_sizes: list[int]


@dataclass(slots=True)
class _Bands:
    """Cells by how they are coded: `bits` where more than half is kept, else by their mean gap."""

    bits: list[int] = field(default_factory=list)
    gaps: list[list[int]] = field(default_factory=lambda: [[] for _ in range(BANDS)])
    spans: dict[int, Span] = field(default_factory=dict)

    @classmethod
    def of(cls, sizes: list[int], counts: list[int]) -> "_Bands":
        bands = cls()
        for cell, (size, nnz) in enumerate(zip(sizes, counts, strict=True)):
            if not nnz:
                continue
            length = (size // nnz).bit_length()
            bands.spans[cell] = Span(size, nnz, max(0, length - 7))
            if length == 1:
                bands.bits.append(cell)
            else:
                bands.gaps[min(length - 1, BANDS) - 1].append(cell)
        return bands

    def partly(self) -> list[int]:
        """Cells of `bits` that are not full."""
        return [cell for cell in self.bits if self.spans[cell].nnz < self.spans[cell].entries]


def choose(pieces: list[Positions], places: Sequence[Place]) -> tuple[list[Grid], float]:
    """The grid of each piece, and the share that they leave of what gaps alone would take, by an estimate.

    Args:
        pieces: Positions per piece, counted from the piece's first entry.
        places: Rows, columns and kept entries per piece.
    """
    found = [choose_grid(p, rows=e.rows, columns=e.columns) for p, e in zip(pieces, places, strict=True)]
    return [each.grid for each in found], sum(each.cost for each in found) / max(sum(each.plain for each in found), 1)


def encode(pieces: list[Positions], grids: list[Grid]) -> tuple[Header, list[Bytes]]:
    """Parameters and frames of a block's positions, with a grid per piece."""
    cells = [cell for grid, piece in zip(grids, pieces, strict=True) for cell in grid.split(piece)]
    bands = _Bands.of([size for grid in grids for size in grid.sizes()], [len(cell) for cell in cells])
    highs, lows = [], []
    for members in bands.gaps:
        high, low = gaps.encode([cells[i] for i in members], [bands.spans[i] for i in members])
        highs.append(high)
        lows.append(low)
    counts = planes(np.array([len(cell) for cell in cells], np.uint32), 4)
    classes = [_pack(axis.classes) for grid in grids for axis in (grid.rows, grid.columns) if axis.classes is not None]
    bits = [_bits(cells[i], bands.spans[i].entries) for i in bands.partly()]
    rows, columns = [grid.rows.count for grid in grids], [grid.columns.count for grid in grids]
    header = Header(rows, columns, [len(high) for high in highs])
    return header, [_join(classes), counts, _join(bits), lows[-1], *highs]


def decode(header: Header, frames: Frames, places: Sequence[Place], *, what: str) -> list[Positions]:
    """Positions per piece, counted from the piece's first entry.

    Args:
        header: The codec's parameters.
        frames: The frames, not opened yet.
        places: Rows, columns and kept entries per piece.
        what: Name of the stream, for messages.

    Raises:
        FormatError: Something is not as cells.md says.
    """
    shapes = list(zip(places, header.row_classes, header.column_classes, strict=True))
    class_data = frames.take(sum(_class_bytes(*shape) for shape in shapes))
    grids = _grids(shapes, class_data, what=what)
    sizes = [grid.sizes() for grid in grids]
    counts = from_planes(frames.take(4 * sum(map(len, sizes))), 4).tolist()
    _check_counts(sizes, counts, places, what=what)
    bands = _Bands.of([size for piece in sizes for size in piece], counts)
    cells: list[Positions] = [np.zeros(0, np.int64)] * len(counts)
    _read_bits(cells, bands, frames, what=what)
    _read_gaps(cells, bands, frames, header.high_sizes, what=what)
    found, start = [], 0
    for grid, own in zip(grids, sizes, strict=True):
        found.append(grid.join(cells[start : start + len(own)]))
        start += len(own)
    return found


def decoded_bytes(header: Header, places: Sequence[Place]) -> int:
    """Upper bound on what decoding allocates beside 64 bytes per kept entry and the high bytes."""
    need = 0
    for place, rows, columns in zip(places, header.row_classes, header.column_classes, strict=True):
        need += 32 * ((rows > 1) * place.rows + (columns > 1) * place.columns) + _CELL_BYTES * rows * columns
    longest = max((place.nnz * max(place.entries.bit_length() - 7, 0) for place in places), default=0)
    return need + 17 * longest


def _class_bytes(place: Place, rows: int, columns: int) -> int:
    return (rows > 1) * ((place.rows + 1) // 2) + (columns > 1) * ((place.columns + 1) // 2)


def _pack(classes: NDArray[np.int64]) -> Bytes:
    padded = np.append(classes, 0)[: len(classes) + len(classes) % 2].astype(np.uint8)
    packed: Bytes = padded[0::2] | (padded[1::2] << np.uint8(4))
    return packed


def _grids(shapes: list[tuple[Place, int, int]], data: Bytes, *, what: str) -> list[Grid]:
    grids, at = [], 0
    for place, *counts in shapes:
        axes = []
        for size, count in zip((place.rows, place.columns), counts, strict=True):
            stop = at + (size + 1) // 2 if count > 1 else at
            axes.append(_axis(data[at:stop], size, count, what=what))
            at = stop
        grids.append(Grid(*axes))
    return grids


def _axis(data: Bytes, size: int, count: int, *, what: str) -> Axis:
    if count == 1:
        return Axis(size)
    both = np.stack([data & 15, data >> 4], axis=1).reshape(-1)
    if both[size:].any():
        raise FormatError(f"{what}: padding bits of the classes are not zero")
    classes = both[:size].astype(np.int64)
    if size and int(classes.max()) >= count:
        raise FormatError(f"{what}: class {int(classes.max())} of {count} classes")
    return Axis(size, count, classes)


def _check_counts(sizes: list[list[int]], counts: list[int], places: Sequence[Place], *, what: str) -> None:
    start = 0
    for own, place in zip(sizes, places, strict=True):
        mine = counts[start : start + len(own)]
        start += len(own)
        if sum(mine) != place.nnz or any(count > size for count, size in zip(mine, own, strict=True)):
            raise FormatError(f"{what}: cells keep {sum(mine)} entries of {sum(own)}, the piece {place.nnz}")


def _bits(addresses: Positions, entries: int) -> Bytes:
    flags = np.zeros(entries, np.uint8)
    flags[addresses] = 1
    return np.packbits(flags, bitorder="little")


def _read_bits(cells: list[Positions], bands: _Bands, frames: Frames, *, what: str) -> None:
    partly = bands.partly()
    data = frames.take(sum((bands.spans[cell].entries + 7) // 8 for cell in partly))
    for cell in bands.bits:
        cells[cell] = np.arange(bands.spans[cell].nnz)
    at = 0
    for cell in partly:
        span = bands.spans[cell]
        stop = at + (span.entries + 7) // 8
        found = np.flatnonzero(np.unpackbits(data[at:stop], bitorder="little"))
        if len(found) != span.nnz or (len(found) and found[-1] >= span.entries):
            raise FormatError(f"{what}: a cell of {span.entries} entries has not just {span.nnz} bits")
        cells[cell], at = found, stop


def _read_gaps(cells: list[Positions], bands: _Bands, frames: Frames, high_sizes: list[int], *, what: str) -> None:
    spans = [[bands.spans[cell] for cell in members] for members in bands.gaps]
    low = frames.take(sum(gaps.packed_size(count=span.nnz, width=span.shift) for span in spans[-1]))
    for band, members in enumerate(bands.gaps):
        size = high_sizes[band]
        if size > gaps.high_limit(spans[band]):
            raise FormatError(f"{what}: high_sizes[{band}] {size} is more than these cells can need")
        lows = low if band == BANDS - 1 else low[:0]
        for cell, found in zip(members, gaps.decode(frames.take(size), lows, spans[band], what=what), strict=True):
            cells[cell] = found


def _join(parts: list[Bytes]) -> Bytes:
    return np.concatenate(parts) if parts else np.zeros(0, np.uint8)
