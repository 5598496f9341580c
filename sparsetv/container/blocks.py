"""Cutting a task into blocks, and coding one block (SPEC 4)."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from sparsetv.arrays import Positions, Values
from sparsetv.container import positions, values
from sparsetv.container.grid import Place
from sparsetv.container.limits import BLOCK_ENTRIES, SECTION_ENTRIES
from sparsetv.container.manifest import Block, Piece
from sparsetv.container.manifest_json import row_count
from sparsetv.csr import Corrections, SparseTensor, rows_and_columns


@dataclass(frozen=True, slots=True)
class Slice:
    """Kept entries of one piece: positions counted from the piece's first entry, values, corrections within it."""

    piece: Piece
    columns: int
    positions: Positions
    values: Values
    corrections: Corrections


@dataclass(frozen=True, slots=True)
class Coded:
    """One block's manifest entry and its bytes."""

    block: Block
    positions: bytes
    values: bytes


def cut(tensors: Iterable[SparseTensor], starts: Sequence[int], *, first: int = 0) -> Iterator[list[Slice]]:
    """Blocks of a task, or of a run of whole sections of it, in order (SPEC 4.4).

    Args:
        tensors: Tensors of the scope in order; each is dropped once it is cut.
        starts: Index in the scope of the first entry of each tensor of the scope.
        first: Index in the scope of the first of `tensors`.
    """
    pending: list[Slice] = []
    kept = 0
    for index, tensor in enumerate(tensors, start=first):
        if pending and section_of(starts[index]) != section_of(starts[index - 1]):
            yield pending
            pending, kept = [], 0
        for piece in _split(index, tensor):
            pending.append(piece)
            kept += piece.piece.nnz
            if kept >= BLOCK_ENTRIES:
                yield pending
                pending, kept = [], 0
    if pending:
        yield pending


def section_of(start: int) -> int:
    """Number of the section that a tensor is of, from the index in the scope of its first entry (SPEC 4.4)."""
    return start // SECTION_ENTRIES


def _split(index: int, tensor: SparseTensor) -> Iterator[Slice]:
    rows, columns = row_count(tensor.shape), rows_and_columns(tensor.shape)[1]
    bounds = _row_bounds(tensor, rows)
    for first, last in pairwise(bounds):
        start, stop = np.searchsorted(tensor.positions, (first * columns, last * columns))
        from_, to = np.searchsorted(tensor.corrections.index, (start, stop))
        yield Slice(
            piece=Piece(index, first, last - first, int(stop - start)),
            columns=columns,
            positions=tensor.positions[start:stop] - first * columns,
            values=tensor.values[start:stop],
            corrections=Corrections(tensor.corrections.index[from_:to] - start, tensor.corrections.amount[from_:to]),
        )


def _row_bounds(tensor: SparseTensor, rows: int) -> list[int]:
    if tensor.nnz < BLOCK_ENTRIES or rows <= 1:
        return [0, rows]
    starts = tensor.crow_indices
    bounds = [0]
    while bounds[-1] < rows:
        target = starts[bounds[-1]] + BLOCK_ENTRIES
        bounds.append(min(int(np.searchsorted(starts, target)), rows))
    return bounds


def encode_block(slices: list[Slice], starts: list[int], *, seed: int | None) -> Coded:
    """Code one block, positions and values by the codecs that make them smallest.

    Args:
        slices: Its pieces.
        starts: Index in the scope of each tensor's first entry.
        seed: What the mask was drawn from, where it was.
    """
    places = [_place(item.piece, item.columns, starts) for item in slices]
    placed, position_bytes = positions.encode([item.positions for item in slices], places, seed=seed)
    coded, value_bytes = values.encode([item.values for item in slices], [item.corrections for item in slices])
    block = Block(tuple(item.piece for item in slices), placed, coded)
    return Coded(block, position_bytes, value_bytes)


def tensor_starts(shapes: Iterable[tuple[int, ...]]) -> list[int]:
    """Index in the scope of each tensor's first entry."""
    return list(accumulate((math.prod(shape) for shape in shapes), initial=0))


@dataclass(frozen=True, slots=True)
class Scoped:
    """The tensors of a scope: shapes, and index of each one's first entry."""

    shapes: list[tuple[int, ...]]
    starts: list[int]

    @classmethod
    def of(cls, shapes: list[tuple[int, ...]]) -> "Scoped":
        """From shapes in order."""
        return cls(shapes, tensor_starts(shapes))

    def places(self, block: Block) -> list[Place]:
        """Where the pieces of a block lie."""
        return [_place(p, rows_and_columns(self.shapes[p.tensor])[1], self.starts) for p in block.pieces]


def _place(piece: Piece, columns: int, starts: list[int]) -> Place:
    return Place(starts[piece.tensor] + piece.first_row * columns, piece.rows, columns, piece.nnz)


def decode_block(block: Block, scope: "Scoped", position_data: memoryview, value_data: memoryview) -> list[Slice]:
    """Decode one block.

    Args:
        block: The block's manifest entry.
        scope: The tensors of the scope.
        position_data, value_data: The block's own bytes of the two streams.

    Raises:
        FormatError: The streams are not what the manifest says.
    """
    places = scope.places(block)
    placed = positions.decode(block, places, position_data)
    decoded, corrections = values.decode(block, value_data)
    slices, start = [], 0
    for piece, place, where in zip(block.pieces, places, placed, strict=True):
        stop = start + piece.nnz
        from_, to = np.searchsorted(corrections.index, (start, stop))
        own = Corrections(corrections.index[from_:to] - start, corrections.amount[from_:to])
        slices.append(Slice(piece, place.columns, where, decoded[start:stop], own))
        start = stop
    return slices


def decoded_bytes(block: Block, scope: "Scoped") -> int:
    """Upper bound on what decoding a block allocates, streams included, from the manifest alone."""
    return 64 * block.nnz + positions.decoded_bytes(block, scope.places(block))
