"""One chunk of a tensor, coded by whatever mode takes fewest bytes (ARCHIVE 4)."""

from dataclasses import dataclass

import numpy as np

from sparsetv.archive.elements import NO_CLASSES, Kind, apply, by_class, differences, top_exponent
from sparsetv.archive.estimate import plane_bits, sample
from sparsetv.archive.limits import CHUNK_ELEMENTS
from sparsetv.archive.numbers import choose_shift, decode_numbers, encode_numbers
from sparsetv.archive.streams import In, Out
from sparsetv.arrays import Bits, Positions
from sparsetv.container import gaps
from sparsetv.container.gaps import Span
from sparsetv.errors import FormatError

MODES = ("same", "raw", "planes", "xor", "offset", "sparse")
"""Modes by their number (ARCHIVE 4.3); `same` has no bytes at all."""

_RAW, _PLANES, _XOR, _OFFSET, _SPARSE = range(1, 6)
_FEW = 1 << 13  # below so many elements classes cost more than they save
_SPARSE_SHARE = 0.3  # of changed elements, above which positions cannot pay
_SURELY_SPARSE = 0.08  # at or below which nothing dense comes near


@dataclass(frozen=True, slots=True)
class _Changes:
    """Where two chunks differ: elements in order of their classes, and the changed ones among them.

    Attributes:
        order: Element per place in the order of classes; None where that is the elements' own.
        counts: Elements per class.
        places: Changed places per class, counted from the class's first.
    """

    order: Positions | None
    counts: tuple[int, ...]
    places: list[Positions]

    def elements(self) -> Positions:
        """Which elements changed, in order of their classes."""
        starts = np.cumsum([0, *self.counts[:-1]])
        flat = np.concatenate([place + start for place, start in zip(self.places, starts, strict=True)])
        return flat if self.order is None else self.order[flat]


def encode_chunk(base: Bits | None, tuned: Bits, kind: Kind) -> bytes:
    """Code one chunk; the same elements give the same bytes on every machine.

    Args:
        base: Elements of the base, shape (n,), or None where the chunk is coded on its own.
        tuned: Elements to code, shape (n,), n at most `CHUNK_ELEMENTS`.
        kind: What they are.

    Returns:
        The chunk's bytes: none where nothing changed, else mode and content, at most one byte more than the elements.
    """
    sparse, share = None, 1.0
    if base is not None:
        changed = base != tuned
        share = np.count_nonzero(changed) / len(tuned)
        if not share:
            return b""
        if share <= _SPARSE_SHARE:
            sparse = _sparse(base, tuned, changed, kind)
        if share <= _SURELY_SPARSE and sparse is not None:
            return sparse
    found = [_dense(mode, base, tuned, kind) for mode in _promising(base, tuned, kind)]
    best = min(found if sparse is None else [sparse, *found], key=len)
    return best if len(best) <= tuned.nbytes else bytes([_RAW]) + tuned.tobytes()


def _promising(base: Bits | None, tuned: Bits, kind: Kind) -> list[int]:
    """One or two dense modes, from a sample: `offset`, whose classes the estimate leaves out, and what may beat it."""
    if base is None:
        return [_PLANES]
    other, some = sample(base), sample(tuned)
    offset = choose_shift(differences(other, some, kind))[1]
    costs = {_XOR: plane_bits(some ^ other), _PLANES: plane_bits(some)}
    best = min(costs, key=lambda mode: costs[mode])
    return [_OFFSET] if costs[best] >= offset else [_OFFSET, best]


def _top(base: Bits, kind: Kind) -> int:
    return top_exponent(base, kind) if len(base) >= _FEW else NO_CLASSES


def _grouped(numbers: Bits, order: Positions | None, counts: tuple[int, ...]) -> list[Bits]:
    ordered = numbers if order is None else numbers.take(order)
    return np.split(ordered, np.cumsum(counts)[:-1])


def _dense(mode: int, base: Bits | None, tuned: Bits, kind: Kind) -> bytes:
    out = Out()
    out.number(mode, size=1)
    if mode == _PLANES or base is None:
        out.planes(tuned)
    elif mode == _XOR:
        out.planes(tuned ^ base)
    else:
        top = _top(base, kind)
        out.number(top, size=2)
        numbers = differences(base, tuned, kind)
        for group in _grouped(numbers, *by_class(base, kind, top)):
            encode_numbers(out, group)
    return out.tobytes()


def _sparse(base: Bits, tuned: Bits, changed: np.ndarray, kind: Kind) -> bytes:
    top = _top(base, kind)
    order, counts = by_class(base, kind, top)
    marks = np.split(changed if order is None else changed.take(order), np.cumsum(counts)[:-1])
    changes = _Changes(order, counts, [np.flatnonzero(mark) for mark in marks])
    sizes = [len(place) for place in changes.places]
    spans = [Span(n, nnz, gaps.choose_shift(entries=n, nnz=nnz)) for n, nnz in zip(counts, sizes, strict=True)]
    high, low = gaps.encode(changes.places, spans)
    out = Out()
    out.number(_SPARSE, size=1)
    out.number(top, size=2)
    for span in spans:
        out.number(span.nnz, size=4)
        out.number(span.shift, size=1)
    out.number(len(high), size=4)
    out.stream(high)
    out.stream(low)
    where = changes.elements()
    encode_numbers(out, differences(base[where], tuned[where], kind))
    return out.tobytes()


def decode_chunk(data: memoryview, base: Bits | None, kind: Kind, *, count: int, what: str) -> Bits:
    """Inverse of `encode_chunk`: the elements, shape (count,), perhaps a view of `base` or `data`.

    Args:
        data: The chunk's bytes, all of them.
        base: Elements of the base, shape (count,), where the tensor has one.
        kind: What the elements are.
        count: How many they are.
        what: The chunk, for messages.

    Raises:
        FormatError: The bytes are no code of such elements. Memory is bounded by `count` alone.
    """
    if not len(data):
        return _needed(base, "same", what)
    source = In(data, what=what)
    mode = source.number(size=1)
    if mode == _RAW:
        found = _raw(source, kind, count)
    elif mode == _PLANES:
        found = source.planes(count, kind.bits)
    elif mode == _XOR:
        found = source.planes(count, kind.bits) ^ _needed(base, "xor", what)
    elif mode == _OFFSET:
        found = _decode_offset(source, _needed(base, "offset", what), kind)
    elif mode == _SPARSE:
        found = _decode_sparse(source, _needed(base, "sparse", what), kind)
    else:
        raise FormatError(f"{what}: unknown mode {mode}; a newer sparsetv may know it")
    source.done()
    return found


def mode_of(data: memoryview) -> str:
    """Name of a chunk's mode; nothing else of it is looked at."""
    number = data[0] if len(data) else 0
    return MODES[number] if number < len(MODES) else "unknown"


def _needed(base: Bits | None, mode: str, what: str) -> Bits:
    if base is None:
        raise FormatError(f"{what}: mode {mode} in a tensor that has no base")
    return base


def _raw(source: In, kind: Kind, count: int) -> Bits:
    return np.frombuffer(source.take(count * kind.width), np.uint8).view(kind.bits)


def _read_top(source: In, kind: Kind) -> int:
    top = source.number(size=2)
    if top != NO_CLASSES and (kind.exponent is None or top > kind.exponent[1]):
        raise FormatError(f"{source.what}: a top exponent of {top}, which these elements cannot have")
    return top


def _decode_offset(source: In, base: Bits, kind: Kind) -> Bits:
    order, counts = by_class(base, kind, _read_top(source, kind))
    numbers = np.concatenate([decode_numbers(source, count, kind.bits) for count in counts])
    if order is not None:
        ordered, numbers = numbers, np.empty_like(numbers)
        numbers[order] = ordered
    return apply(base, numbers, kind)


def _decode_sparse(source: In, base: Bits, kind: Kind) -> Bits:
    order, counts = by_class(base, kind, _read_top(source, kind))
    spans = [_read_span(source, count) for count in counts]
    size = source.number(size=4)
    if size > gaps.high_limit(spans):
        raise FormatError(f"{source.what}: {size} bytes of gaps, more than its elements can take")
    high = source.stream(size)
    low = source.stream(sum(gaps.packed_size(count=span.nnz, width=span.shift) for span in spans))
    where = _Changes(order, counts, gaps.decode(high, low, spans, what=source.what)).elements()
    found = base.copy()
    found[where] = apply(base[where], decode_numbers(source, len(where), kind.bits), kind)
    return found


def _read_span(source: In, entries: int) -> Span:
    nnz, shift = source.number(size=4), source.number(size=1)
    if nnz > entries or shift > CHUNK_ELEMENTS.bit_length():
        raise FormatError(f"{source.what}: {nnz} of {entries} elements at a shift of {shift} bits")
    return Span(entries, nnz, shift)
