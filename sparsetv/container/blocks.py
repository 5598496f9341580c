"""Cutting a task into blocks, and coding one block (SPEC 4)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np

from sparsetv.arrays import Bytes, Positions, Values
from sparsetv.container import exact, gaps, sign
from sparsetv.container.frames import compress, decompress
from sparsetv.container.limits import BLOCK_ENTRIES
from sparsetv.container.manifest import Block, Piece, Stream
from sparsetv.container.manifest_json import row_count
from sparsetv.csr import Corrections, SparseTensor, rows_and_columns
from sparsetv.errors import FormatError, UsageError


@dataclass(frozen=True, slots=True)
class Slice:
    """Kept entries of one piece: positions counted from the piece's first entry, values, corrections within it."""

    piece: Piece
    entries: int
    positions: Positions
    values: Values
    corrections: Corrections


@dataclass(frozen=True, slots=True)
class Coded:
    """One block's manifest entry and its bytes."""

    block: Block
    positions: bytes
    values: bytes


def cut(tensors: list[SparseTensor]) -> Iterator[list[Slice]]:
    """Blocks of a task, in order (SPEC 4.4)."""
    pending: list[Slice] = []
    for index, tensor in enumerate(tensors):
        for piece in _split(index, tensor):
            pending.append(piece)
            if sum(item.piece.nnz for item in pending) >= BLOCK_ENTRIES:
                yield pending
                pending = []
    if pending:
        yield pending


def _split(index: int, tensor: SparseTensor) -> Iterator[Slice]:
    rows, columns = row_count(tensor.shape), rows_and_columns(tensor.shape)[1]
    bounds = _row_bounds(tensor, rows)
    for first, last in pairwise(bounds):
        start, stop = np.searchsorted(tensor.positions, (first * columns, last * columns))
        from_, to = np.searchsorted(tensor.corrections.index, (start, stop))
        yield Slice(
            piece=Piece(index, first, last - first, int(stop - start)),
            entries=(last - first) * columns,
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


def encode_block(slices: list[Slice], values_codec: str) -> Coded:
    """Code one block."""
    positions, position_bytes = _encode_positions(slices)
    encode_values = {"exact": _encode_exact, "sign": _encode_sign}[values_codec]
    values, value_bytes = encode_values(slices)
    block = Block(tuple(item.piece for item in slices), positions, values)
    return Coded(block, position_bytes, value_bytes)


def _encode_positions(slices: list[Slice]) -> tuple[Stream, bytes]:
    shifts = [gaps.choose_shift(entries=item.entries, nnz=item.piece.nnz) for item in slices]
    spans = [gaps.Span(item.entries, item.piece.nnz, shift) for item, shift in zip(slices, shifts, strict=True)]
    high, low = gaps.encode([item.positions for item in slices], spans)
    return _stream("gaps", [high, low], {"shifts": shifts, "high_size": len(high)})


def _encode_exact(slices: list[Slice]) -> tuple[Stream, bytes]:
    values = np.concatenate([item.values for item in slices])
    corrections = _join([item.corrections for item in slices], [item.piece.nnz for item in slices])
    bias, streams = exact.encode_values(values)
    correction_gaps, correction_planes = exact.encode_corrections(corrections)
    parameters = {"bias": bias, "corrections": len(corrections.index), "gap_size": len(correction_gaps)}
    return _stream("exact", [*streams, correction_gaps, correction_planes], parameters)


def _encode_sign(slices: list[Slice]) -> tuple[Stream, bytes]:
    if any(len(item.corrections.index) for item in slices):
        raise UsageError("codec `sign` holds no corrections; use sparsetv.quantize.sign")
    magnitudes, signs = sign.encode([item.values for item in slices])
    return _stream("sign", [signs], {"magnitudes": magnitudes})


def _join(parts: list[Corrections], counts: list[int]) -> Corrections:
    starts = np.cumsum([0, *counts[:-1]])
    index = np.concatenate([part.index + start for part, start in zip(parts, starts, strict=True)])
    return Corrections(index, np.concatenate([part.amount for part in parts]))


def _stream(codec: str, raw: list[Bytes], parameters: Mapping[str, object]) -> tuple[Stream, bytes]:
    frames = [compress(stream) for stream in raw]
    return Stream(codec, tuple(map(len, frames)), parameters), b"".join(frames)


def decode_block(block: Block, shapes: list[tuple[int, ...]], positions: memoryview, values: memoryview) -> list[Slice]:
    """Decode one block.

    Args:
        block: The block's manifest entry.
        shapes: Shape per tensor of the scope.
        positions, values: The block's own bytes of the two streams.

    Raises:
        FormatError: The streams are not what the manifest says.
    """
    entries = [piece.rows * rows_and_columns(shapes[piece.tensor])[1] for piece in block.pieces]
    placed = _decode_positions(block, entries, positions)
    decoded, corrections = _decode_values(block, values)
    slices, start = [], 0
    for piece, count, where in zip(block.pieces, entries, placed, strict=True):
        stop = start + piece.nnz
        from_, to = np.searchsorted(corrections.index, (start, stop))
        own = Corrections(corrections.index[from_:to] - start, corrections.amount[from_:to])
        slices.append(Slice(piece, count, where, decoded[start:stop], own))
        start = stop
    return slices


def decoded_bytes(block: Block) -> int:
    """Upper bound on what decoding a block allocates, streams included, from the manifest alone."""
    if block.positions.codec != "gaps":
        raise FormatError(f"unknown position codec {block.positions.codec!r}; update sparsetv")
    shifts, high_size = _gap_parameters(block.positions, len(block.pieces))
    low = max((piece.nnz * shift for piece, shift in zip(block.pieces, shifts, strict=True)), default=0)
    return 64 * block.nnz + high_size * 9 + 17 * low


def _decode_positions(block: Block, entries: list[int], data: memoryview) -> list[Positions]:
    stream, what = block.positions, "positions"
    shifts, high_size = _gap_parameters(stream, len(block.pieces))
    spans = [gaps.Span(count, piece.nnz, s) for count, piece, s in zip(entries, block.pieces, shifts, strict=True)]
    if high_size > gaps.high_limit(spans):
        raise FormatError(f"{what}: high_size {high_size} is more than these pieces can need")
    low_size = sum(gaps.packed_size(count=span.nnz, width=span.shift) for span in spans)
    high, low = _raw(stream, [high_size, low_size], data, what)
    return gaps.decode(high, low, spans, what=what)


def _gap_parameters(stream: Stream, pieces: int) -> tuple[list[int], int]:
    shifts, size = stream.parameters.get("shifts"), stream.parameters.get("high_size")
    if stream.parameters.keys() != {"shifts", "high_size"} or not _counts([size]):
        raise FormatError("positions: codec `gaps` has the parameters `shifts` and `high_size`")
    if not isinstance(shifts, list) or len(shifts) != pieces or not _counts(shifts) or max(shifts) > 62:
        raise FormatError(f"positions: `shifts` must be {pieces} integers in 0…62")
    return shifts, cast(int, size)


def _counts(values: list[object]) -> bool:
    return all(type(value) is int and 0 <= value < 1 << 62 for value in values)


def _decode_values(block: Block, data: memoryview) -> tuple[Values, Corrections]:
    stream = block.values
    if stream.codec == "exact":
        return _decode_exact(block, data)
    if stream.codec == "sign":
        return _decode_sign(block, data), Corrections.none()
    raise FormatError(f"unknown value codec {stream.codec!r}; update sparsetv")


def _decode_exact(block: Block, data: memoryview) -> tuple[Values, Corrections]:
    stream, nnz, what = block.values, block.nnz, "values"
    numbers = [stream.parameters.get(key) for key in ("bias", "corrections", "gap_size")]
    if len(stream.parameters) != 3 or not _counts(numbers):
        raise FormatError("values: codec `exact` has the parameters `bias`, `corrections` and `gap_size`")
    bias, count, gap_size = (cast(int, number) for number in numbers)
    if count > nnz or gap_size > 2 * nnz or bias >= 1 << 31:
        raise FormatError(f"values: {count} corrections in {gap_size} bytes, bias {bias}, for {nnz} kept entries")
    sizes = [(nnz + 7) // 8, nnz, nnz, nnz, nnz, gap_size, 4 * count]
    *streams, correction_gaps, planes = _raw(stream, sizes, data, what)
    values = exact.decode_values(streams, bias=bias, count=nnz, what=what)
    return values, exact.decode_corrections(correction_gaps, planes, count=count, entries=nnz, what="corrections")


def _decode_sign(block: Block, data: memoryview) -> Values:
    stream, what = block.values, "values"
    if stream.parameters.keys() != {"magnitudes"}:
        raise FormatError("values: codec `sign` has the parameter `magnitudes`")
    magnitudes = sign.check_magnitudes(stream.parameters["magnitudes"], pieces=len(block.pieces), what=what)
    signs = _raw(stream, [(block.nnz + 7) // 8], data, what)[0]
    return sign.decode(signs, magnitudes=magnitudes, counts=[piece.nnz for piece in block.pieces], what=what)


def _raw(stream: Stream, sizes: list[int], data: memoryview, what: str) -> list[Bytes]:
    if len(stream.frames) != len(sizes):
        raise FormatError(f"{what}: codec `{stream.codec}` has {len(sizes)} frames, found {len(stream.frames)}")
    raw, start = [], 0
    for number, (length, size) in enumerate(zip(stream.frames, sizes, strict=True)):
        raw.append(decompress(data[start : start + length], size=size, what=f"{what} frame {number}"))
        start += length
    return raw
