"""Cutting a task into blocks (SPEC 4); shares no code with sparsetv."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

from golden_writer.codecs import Cut, Stream, exact_stream, gap_stream, sign_stream
from golden_writer.content import Content, Tensor

Code = Callable[[list[Cut]], Stream]


@dataclass
class Plan:
    """How one block is cut and coded: (tensor of the scope, rows) per piece.

    Positions are coded by `gaps`, `shifts` of 0 unless given, or by what `placed` makes of them; values by `codec`, or
    by what `valued` makes of them.
    """

    pieces: list[tuple[int, int]]
    codec: str = "exact"
    shifts: list[int] | None = None
    short: bool = False
    placed: Code | None = None
    valued: Code | None = None


@dataclass
class Block:
    """One block: `pieces` as the manifest has it."""

    pieces: list[Any]
    positions: Stream
    values: Stream


def whole(
    content: Content,
    *,
    codec: str = "exact",
    shifts: list[int] | None = None,
    placed: Code | None = None,
    valued: Code | None = None,
) -> Plan:
    """One block of all tensors, its pieces in the short form."""
    pieces = [(i, rows(tensor)) for i, tensor in enumerate(content.scope)]
    return Plan(pieces, codec, shifts, short=True, placed=placed, valued=valued)


def rows(tensor: Tensor) -> int:
    """Rows of a tensor (SPEC 4.1)."""
    return tensor.shape[0] if len(tensor.shape) >= 2 else 1


def encode_blocks(content: Content, plans: list[Plan]) -> list[Block]:
    """The blocks of a task, cut and coded as planned."""
    done = [0] * len(content.scope)
    blocks = []
    for plan in plans:
        cuts = []
        for tensor, count in plan.pieces:
            cuts.append(_cut(content.scope[tensor], tensor, first=done[tensor], count=count))
            done[tensor] += count
        pieces: list[Any] = [[cut.tensor, cut.rows, len(cut.positions)] for cut in cuts]
        if plan.short:
            pieces = [cuts[0].tensor, [len(cut.positions) for cut in cuts]]
        placed = plan.placed(cuts) if plan.placed else gap_stream(cuts, plan.shifts or [0] * len(cuts))
        value_codec = plan.valued or {"exact": exact_stream, "sign": sign_stream}[plan.codec]
        blocks.append(Block(pieces, placed, value_codec(cuts)))
    return blocks


def _cut(tensor: Tensor, index: int, *, first: int, count: int) -> Cut:
    columns = prod(tensor.shape[1:]) if len(tensor.shape) >= 2 else prod(tensor.shape)
    start, stop = first * columns, (first + count) * columns
    before = sum(position < start for position in tensor.kept)
    kept = {position - start: value for position, value in tensor.kept.items() if start <= position < stop}
    corrections = {i - before: a for i, a in tensor.corrections.items() if before <= i < before + len(kept)}
    return Cut(index, count, stop - start, list(kept), list(kept.values()), corrections)
