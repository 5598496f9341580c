"""Blocks of task files: every position and value codec called directly, with any parameters and any frames (SPEC 4)."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import accumulate, pairwise

import numpy as np

from fuzz import seeds
from fuzz.byte_changes import reframe, scramble
from fuzz.json_changes import change
from fuzz.odd import NUMBERS
from fuzz.sound import LIMITS
from fuzz.target import SLACK, Outcome, Target, refused, require
from sparsetv.container.blocks import Scoped, Slice, decode_block, decoded_bytes, encode_block
from sparsetv.container.limits import BLOCK_ENTRIES_READ
from sparsetv.container.manifest import Block, Piece, Stream
from sparsetv.container.manifest_parse import PARAMETERS
from sparsetv.container.reader import Opened, open_bytes
from sparsetv.csr import rows_and_columns
from sparsetv.errors import FormatError, LimitError

_CODECS = ("gaps", "cells", "seeded", "exact", "levels", "sign", "x")


@dataclass(frozen=True, slots=True)
class Case:
    """A block, the tensors that its pieces are of, and its bytes of the two streams."""

    block: Block
    shapes: tuple[tuple[int, ...], ...]
    positions: bytes
    values: bytes


@cache
def _blocks() -> tuple[Case, ...]:
    """Every block of the seeds."""
    return tuple(case for data in seeds.seeds() for case in _cut(open_bytes(data)))


def _cut(opened: Opened) -> Iterator[Case]:
    manifest, starts = opened.manifest, [0, 0]
    shapes = tuple(manifest.base.shapes[index] for index in manifest.scope)
    for block in manifest.blocks:
        parts = []
        for which, (name, stream) in enumerate((("positions", block.positions), ("values", block.values))):
            data = opened.parts.get(f"sparsetv.{name}", memoryview(b""))
            parts.append(bytes(data[starts[which] : starts[which] + stream.size]))
            starts[which] += stream.size
        yield Case(block, shapes, *parts)


def make(source: random.Random) -> Case:
    """A block whose pieces a manifest may name, and one or both streams with other parameters, frames or codec."""
    case = source.choice(_blocks())
    if not source.randrange(4):
        case = replace(case, block=replace(case.block, pieces=_pieces(source, case)))
    which = source.randrange(8)
    if which < 5:
        stream, data = _changed(source, case.block.positions, case.positions)
        case = replace(case, block=replace(case.block, positions=stream), positions=data)
    if which >= 4:
        stream, data = _changed(source, case.block.values, case.values)
        case = replace(case, block=replace(case.block, values=stream), values=data)
    return case


def _pieces(source: random.Random, case: Case) -> tuple[Piece, ...]:
    """One piece with other kept entries, within what the manifest's reader lets through."""
    pieces = list(case.block.pieces)
    number = source.randrange(len(pieces))
    piece = pieces[number]
    entries = min(piece.rows * rows_and_columns(case.shapes[piece.tensor])[1], BLOCK_ENTRIES_READ)
    nnz = source.choice([0, 1, piece.nnz + 1, max(piece.nnz - 1, 0), entries, source.choice(NUMBERS)])
    if isinstance(nnz, int) and 0 <= nnz <= entries:
        pieces[number] = replace(piece, nnz=nnz)
    return tuple(pieces)


def _changed(source: random.Random, stream: Stream, data: bytes) -> tuple[Stream, bytes]:
    frames = [data[start:stop] for start, stop in pairwise(accumulate(stream.frames, initial=0))]
    parameters = json.loads(json.dumps(dict(stream.parameters)))
    codec = stream.codec
    for _ in range(source.choice([1, 1, 2, 3])):
        kind = source.randrange(8)
        if kind < 3:
            change(source, parameters)
        elif kind < 6 and frames:
            number = source.randrange(len(frames))
            frames[number] = reframe(source, frames[number])
        elif kind == 6:
            codec = source.choice(_CODECS)
        elif frames:
            frames = _other_frames(source, frames)
    known = {key: value for key, value in parameters.items() if key in PARAMETERS}
    return Stream(codec, tuple(map(len, frames)), known), b"".join(frames)


def _other_frames(source: random.Random, frames: list[bytes]) -> list[bytes]:
    number = source.randrange(len(frames))
    return source.choice([
        frames[:number], frames[number:], [*frames, b""], source.sample(frames, len(frames)),
        [*frames[:number], scramble(source, frames[number]), *frames[number + 1 :]],
    ])  # fmt: skip


def examine(case: Case) -> Outcome:
    """FormatError, or slices that are sound, and the same when they are coded again."""
    scope = Scoped.of(list(case.shapes))
    try:
        need = 2 * decoded_bytes(case.block, scope)
        if need > LIMITS.decoded_bytes:
            return refused(LimitError(f"decoding needs up to {need} bytes"))
        slices = decode_block(case.block, scope, memoryview(case.positions), memoryview(case.values))
    except FormatError as error:
        return refused(error)
    for piece, found in zip(case.block.pieces, slices, strict=True):
        _check(piece, case.shapes[piece.tensor], found)
    return Outcome("read", written=partial(_check_again, case, scope, slices))


def _check(piece: Piece, shape: tuple[int, ...], found: Slice) -> None:
    entries = piece.rows * rows_and_columns(shape)[1]
    positions, index = found.positions, found.corrections.index
    require(len(positions) == len(found.values) == piece.nnz, "lengths differ")
    require(positions.dtype == np.int64, f"positions are {positions.dtype}")
    require(found.values.dtype == np.float32, f"values are {found.values.dtype}")
    require((np.diff(positions) > 0).all(), "positions do not increase")
    require(not piece.nnz or 0 <= positions[0] <= positions[-1] < entries, "positions lie outside")
    require(np.isfinite(found.values).all(), "a value is not finite")
    require((np.diff(index) > 0).all(), "corrections do not increase")
    require(not len(index) or 0 <= index[0] <= index[-1] < piece.nnz, "corrections lie outside")
    require(found.corrections.amount.all(), "a correction of 0")


def _check_again(case: Case, scope: Scoped, slices: list[Slice]) -> None:
    seed = case.block.positions.parameters.get("seed")
    coded = encode_block(slices, scope.starts, seed=seed if type(seed) is int else None)
    again = decode_block(coded.block, scope, memoryview(coded.positions), memoryview(coded.values))
    for first, second in zip(slices, again, strict=True):
        same = np.array_equal(first.positions, second.positions)
        require(same, "positions change when they are coded again")
        same = np.array_equal(first.values.view(np.uint32), second.values.view(np.uint32))
        require(same, "values change when they are coded again")
        same = np.array_equal(first.corrections.index, second.corrections.index)
        require(same, "corrected entries change when they are coded again")
        same = np.array_equal(first.corrections.amount, second.corrections.amount)
        require(same, "corrections change when they are coded again")


def bound(case: Case) -> int:
    """What the reader states for a block before it decodes it."""
    try:
        need = decoded_bytes(case.block, Scoped.of(list(case.shapes)))
    except FormatError:
        return SLACK
    return SLACK + (need if 2 * need <= LIMITS.decoded_bytes else 0)


TARGET = Target("codecs", make, examine, bound)
