"""Choosing and applying the value codec of a block."""

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np

from sparsetv.arrays import Values
from sparsetv.container import exact, levels, sign
from sparsetv.container.manifest import Block, Stream
from sparsetv.container.streams import Frames, check_keys, integers, make_stream, open_stream
from sparsetv.csr import Corrections
from sparsetv.errors import FormatError

_WHAT = "values"
_MAGNITUDE, _COUNT = 8, 1  # about what a number of a piece takes of the compressed manifest, in bytes


def encode(values: Sequence[Values], corrections: Sequence[Corrections]) -> tuple[Stream, bytes]:
    """The smallest stream for a block's values; the first of `sign`, `levels` and `exact` where they are equal.

    Args:
        values: Per piece.
        corrections: Per piece, their indices counted from the piece's first kept entry.
    """
    return min(_streams(values, corrections), key=lambda coded: len(coded[1]) + _parameter_bytes(coded[0]))


def _streams(values: Sequence[Values], corrections: Sequence[Corrections]) -> Iterator[tuple[Stream, bytes]]:
    if not any(len(each.index) for each in corrections):
        if all(map(sign.is_sign, values)):
            magnitudes, signs = sign.encode(values)
            yield make_stream("sign", [signs], {"magnitudes": magnitudes})
        tables = _tables(values)
        if tables is not None:
            counts, frames = levels.encode(values, tables)
            yield make_stream("levels", frames, {"counts": counts})
    yield _exact(values, corrections)


def _tables(values: Sequence[Values]) -> list[levels.Table] | None:
    tables = []
    for piece in values:
        table = levels.table_of(piece)
        if table is None:
            return None
        tables.append(table)
    return tables


def _parameter_bytes(stream: Stream) -> int:
    return len(stream.parameters.get("magnitudes", ())) * _MAGNITUDE + len(stream.parameters.get("counts", ())) * _COUNT


def _exact(values: Sequence[Values], corrections: Sequence[Corrections]) -> tuple[Stream, bytes]:
    joined = _join(corrections, [len(piece) for piece in values])
    bias, streams = exact.encode_values(np.concatenate([np.zeros(0, np.float32), *values]))
    correction_gaps, planes = exact.encode_corrections(joined)
    parameters = {"bias": bias, "corrections": len(joined.index), "gap_size": len(correction_gaps)}
    return make_stream("exact", [*streams, correction_gaps, planes], parameters)


def _join(parts: Sequence[Corrections], counts: list[int]) -> Corrections:
    starts = np.cumsum([0, *counts[:-1]])
    index = np.concatenate([part.index + start for part, start in zip(parts, starts, strict=True)])
    return Corrections(index, np.concatenate([part.amount for part in parts]))


def decode(block: Block, data: memoryview) -> tuple[Values, Corrections]:
    """Values of a block, float32, shape (nnz,), and their corrections.

    Raises:
        FormatError: The stream is not what the manifest says, or its codec is unknown.
    """
    codecs = {"exact": _decode_exact, "sign": _decode_sign, "levels": _decode_levels}
    if block.values.codec not in codecs:
        raise FormatError(f"unknown value codec {block.values.codec!r}; update sparsetv")
    return codecs[block.values.codec](block, data)


def _decode_exact(block: Block, data: memoryview) -> tuple[Values, Corrections]:
    stream, nnz = block.values, block.nnz
    numbers = [stream.parameters.get(key) for key in ("bias", "corrections", "gap_size")]
    if len(stream.parameters) != 3 or not all(type(x) is int and 0 <= x < 1 << 62 for x in numbers):
        raise FormatError(f"{_WHAT}: codec `exact` has the parameters `bias`, `corrections` and `gap_size`")
    bias, count, gap_size = (cast(int, number) for number in numbers)
    if count > nnz or gap_size > 2 * nnz or bias >= 1 << 31:
        raise FormatError(f"{_WHAT}: {count} corrections in {gap_size} bytes, bias {bias}, for {nnz} kept entries")
    sizes = [(nnz + 7) // 8, nnz, nnz, nnz, nnz, gap_size, 4 * count]
    *streams, correction_gaps, planes = open_stream(stream, sizes, data, _WHAT)
    values = exact.decode_values(streams, bias=bias, count=nnz, what=_WHAT)
    return values, exact.decode_corrections(correction_gaps, planes, count=count, entries=nnz, what="corrections")


def _decode_sign(block: Block, data: memoryview) -> tuple[Values, Corrections]:
    check_keys(block.values, {"magnitudes"}, _WHAT)
    magnitudes = sign.check_magnitudes(block.values.parameters["magnitudes"], pieces=len(block.pieces), what=_WHAT)
    signs = open_stream(block.values, [(block.nnz + 7) // 8], data, _WHAT)[0]
    counts = [piece.nnz for piece in block.pieces]
    return sign.decode(signs, magnitudes=magnitudes, counts=counts, what=_WHAT), Corrections.none()


def _decode_levels(block: Block, data: memoryview) -> tuple[Values, Corrections]:
    check_keys(block.values, {"counts"}, _WHAT)
    nnz = [piece.nnz for piece in block.pieces]
    given = block.values.parameters["counts"]
    counts = integers(given, count=len(nnz), most=levels.MOST, what=f"{_WHAT}: `counts`")
    if any(entries and not count for entries, count in zip(nnz, counts, strict=True)):
        raise FormatError(f"{_WHAT}: no magnitudes for a piece that keeps entries")
    frames = Frames(block.values, data, count=7, what=_WHAT)
    return levels.decode(counts, nnz, frames, what=_WHAT), Corrections.none()
