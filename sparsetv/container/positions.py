"""Choosing and applying the position codec of a block."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparsetv.arrays import Positions
from sparsetv.container import cells, gaps
from sparsetv.container.grid import CLASSES, Grid, Place
from sparsetv.container.manifest import Block, Stream
from sparsetv.container.streams import Frames, check_keys, integers, make_stream, open_stream
from sparsetv.draws import LARGEST, drawn_positions, smallest_number
from sparsetv.errors import FormatError

_WHAT = "positions"
LARGEST_SEED = (1 << 63) - 1
"""seeded.md: largest seed that a file can name."""

_CLEARLY_LESS, _CLEARLY_MORE = 0.9, 1.1
"""Shares of the estimate beyond which only one codec is tried."""

_SIZES = (1 << 62) - 1


def encode(pieces: Sequence[Positions], places: Sequence[Place], *, seed: int | None) -> tuple[Stream, bytes]:
    """The smallest stream for a block's positions: `seeded` where the seed gives them, else `gaps` or `cells`.

    Args:
        pieces: Positions per piece, counted from its first entry.
        places: Where each piece lies.
        seed: What the mask was drawn from, where it was.
    """
    drawn = None if seed is None or seed > LARGEST_SEED else _seeded(pieces, places, seed)
    if drawn is not None:
        return drawn
    grids, share = cells.choose(list(pieces), places)
    if share > _CLEARLY_MORE:
        return _gaps(pieces, places)
    classed = _cells(pieces, grids)
    if share < _CLEARLY_LESS:
        return classed
    plain = _gaps(pieces, places)
    more = len(grids) + 40  # what its parameters and frames take of the compressed manifest
    return classed if len(classed[1]) + more < len(plain[1]) else plain


def _cells(pieces: Sequence[Positions], grids: list[Grid]) -> tuple[Stream, bytes]:
    header, frames = cells.encode(list(pieces), grids)
    parameters = {
        "row_classes": header.row_classes, "column_classes": header.column_classes, "high_sizes": header.high_sizes,
    }  # fmt: skip
    return make_stream("cells", frames, parameters)


def _seeded(pieces: Sequence[Positions], places: Sequence[Place], seed: int) -> tuple[Stream, bytes] | None:
    least = []
    for positions, place in zip(pieces, places, strict=True):
        if not place.nnz:
            least.append(0)
            continue
        least.append(smallest_number(seed, positions, start=place.start, entries=place.entries))
        if not _gives(place, seed, least[-1], positions):
            return None
    return make_stream("seeded", [], {"seed": seed, "least": least})


def _gives(place: Place, seed: int, least: int, positions: Positions) -> bool:
    try:
        return np.array_equal(_draw(place, seed, least), positions)
    except FormatError:
        return False


def _draw(place: Place, seed: int, least: int) -> Positions:
    if not place.nnz:
        return np.zeros(0, np.int64)
    found = {"start": place.start, "entries": place.entries, "nnz": place.nnz}
    return drawn_positions(seed, least=least, **found, what=_WHAT)


def _gaps(pieces: Sequence[Positions], places: Sequence[Place]) -> tuple[Stream, bytes]:
    shifts = [gaps.choose_shift(entries=place.entries, nnz=place.nnz) for place in places]
    high, low = gaps.encode(list(pieces), _spans(places, shifts))
    return make_stream("gaps", [high, low], {"shifts": shifts, "high_size": len(high)})


def _spans(places: Sequence[Place], shifts: list[int]) -> list[gaps.Span]:
    return [gaps.Span(place.entries, place.nnz, shift) for place, shift in zip(places, shifts, strict=True)]


def decode(block: Block, places: Sequence[Place], data: memoryview) -> list[Positions]:
    """Positions per piece, counted from its first entry.

    Raises:
        FormatError: The stream is not what the manifest says, or its codec is unknown.
    """
    stream = block.positions
    parameters = _parameters(stream, len(places))
    if stream.codec == "seeded":
        open_stream(stream, [], data, _WHAT)
        return [
            _draw(place, parameters["seed"], least) for place, least in zip(places, parameters["least"], strict=True)
        ]
    if stream.codec == "cells":
        frames = Frames(stream, data, count=4 + cells.BANDS, what=_WHAT)
        return cells.decode(cells.Header(**parameters), frames, places, what=_WHAT)
    spans = _spans(places, parameters["shifts"])
    if parameters["high_size"] > gaps.high_limit(spans):
        raise FormatError(f"{_WHAT}: high_size {parameters['high_size']} is more than these pieces can need")
    low_size = sum(gaps.packed_size(count=span.nnz, width=span.shift) for span in spans)
    high, low = open_stream(stream, [parameters["high_size"], low_size], data, _WHAT)
    return gaps.decode(high, low, spans, what=_WHAT)


def decoded_bytes(block: Block, places: Sequence[Place]) -> int:
    """Upper bound on what decoding a block's positions allocates beside 64 bytes per kept entry.

    Raises:
        FormatError: The codec is unknown, or its parameters are not its own.
    """
    parameters = _parameters(block.positions, len(places))
    if block.positions.codec == "seeded":
        return drawn_entries(block, places) + (1 << 24)
    if block.positions.codec == "cells":
        header = cells.Header(**parameters)
        return 9 * sum(header.high_sizes) + cells.decoded_bytes(header, places)
    lows = (place.nnz * shift for place, shift in zip(places, parameters["shifts"], strict=True))
    return int(parameters["high_size"]) * 9 + 17 * max(lows, default=0)


def drawn_entries(block: Block, places: Sequence[Place]) -> int:
    """Entries whose numbers decoding a block draws."""
    return sum(place.entries for place in places if place.nnz) if block.positions.codec == "seeded" else 0


def _parameters(stream: Stream, pieces: int) -> dict[str, Any]:
    """A stream's parameters, each of its type and range."""
    if stream.codec == "gaps":
        return _gap_parameters(stream, pieces)
    if stream.codec == "seeded":
        check_keys(stream, {"seed", "least"}, _WHAT)
        integers([stream.parameters["seed"]], count=1, most=LARGEST_SEED, what=f"{_WHAT}: `seed`")
        integers(stream.parameters["least"], count=pieces, most=LARGEST, what=f"{_WHAT}: `least`")
    elif stream.codec == "cells":
        check_keys(stream, {"row_classes", "column_classes", "high_sizes"}, _WHAT)
        for key in ("row_classes", "column_classes"):
            integers(stream.parameters[key], count=pieces, least=1, most=CLASSES, what=f"{_WHAT}: `{key}`")
        integers(stream.parameters["high_sizes"], count=cells.BANDS, most=_SIZES, what=f"{_WHAT}: `high_sizes`")
    else:
        raise FormatError(f"unknown position codec {stream.codec!r}; update sparsetv")
    return dict(stream.parameters)


def _gap_parameters(stream: Stream, pieces: int) -> dict[str, Any]:
    size = stream.parameters.get("high_size")
    if stream.parameters.keys() != {"shifts", "high_size"} or type(size) is not int or not 0 <= size <= _SIZES:
        raise FormatError(f"{_WHAT}: codec `gaps` has the parameters `shifts` and `high_size`")
    integers(stream.parameters["shifts"], count=pieces, most=gaps.LARGEST_SHIFT, what=f"{_WHAT}: `shifts`")
    return dict(stream.parameters)
