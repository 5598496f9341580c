"""Files whose streams break the pages of the codecs of version 1.1."""

from collections.abc import Callable, Iterator
from typing import Any

from golden_writer.blocks import whole
from golden_writer.case import Case, broken, put, raw, sample
from golden_writer.content import Content, Tensor, bits
from golden_writer.newer import Classes, cell_stream, draw, level_stream, seeded_stream
from golden_writer.writer import Change, seal


def cases() -> Iterator[Case]:
    """All of them."""
    for part in (_cells, _seeded, _levels, _features):
        yield from part()


def _cells() -> Iterator[Case]:
    kept = [*range(0, 12), 13, 14, 15, 40, 47, 63]  # rows 0 and 1 of eight nearly full
    content = Content([Tensor("w", "F32", [8, 8], {at: bits(1.0 + at) for at in kept})])
    classes = [Classes([1, 1, 0, 0, 0, 0, 0, 0], [])]

    def made(name: str, clause: str, breaks: str, match: str, layer: str, change: Change) -> Case:
        plan = whole(content, placed=lambda cuts: cell_stream(cuts, classes))
        return Case(
            f"cells_{name}.stv", f"cells {clause}", breaks, match, seal(content, plans=[plan], changes={layer: change})
        )

    def stream(name: str, clause: str, breaks: str, match: str, number: int, change: Callable[[bytes], bytes]) -> Case:
        return made(name, clause, breaks, match, "streams", raw("positions", number, change))

    def parameter(name: str, breaks: str, match: str, path: str, value: Any) -> Case:
        return made(name, "1", breaks, match, "manifest", put(f"blocks.0.positions.{path}", value))

    yield stream("class_large", "5", "class 2 of 2", "class 2 of 2", 0, lambda data: b"\x21" + data[1:])
    yield stream("count_large", "3", "counts add up to more", "cells keep", 1, lambda data: b"\x04" + data[1:])
    yield stream(
        "counts_exchanged", "3", "a cell keeps more than it has", "cells keep", 1, lambda data: b"\x01\x11" + data[2:]
    )
    yield stream(
        "bits_less", "5", "a bit is missing", "has not just", 2, lambda data: bytes([data[0] & 0xFE]) + data[1:]
    )
    yield stream("bits_moved", "5", "another bit", "content digest", 2, lambda data: bytes([data[0], data[1] ^ 0x30]))
    yield stream(
        "gap_leaves",
        "5",
        "a gap leaves its cell",
        "leaves a piece|outside a piece",
        -3,
        lambda data: data[:-1] + b"\x30",
    )
    yield parameter("classes_17", "17 classes", "integers in 1…16", "row_classes.0", 17)
    yield parameter("classes_0", "no class", "integers in 1…16", "column_classes.0", 0)
    yield parameter("classes_too_few", "no numbers of classes", "must be 1 integers", "row_classes", [])
    yield parameter(
        "high_size", "a size that the cells cannot need", "more than these cells|high_sizes", "high_sizes.5", 10
    )
    yield parameter("high_size_negative", "a negative size", "high_sizes", "high_sizes.0", -1)
    yield parameter("foreign_parameter", "a parameter of another codec", "has the parameters", "shifts", [0])
    odd = Content([Tensor("w", "F32", [3, 4], {at: bits(1.0) for at in (0, 1, 2, 3, 7)})])
    plan = whole(odd, placed=lambda cuts: cell_stream(cuts, [Classes([1, 0, 0], [])]))
    padding = raw("positions", 0, lambda data: data[:1] + b"\x10")
    data = seal(odd, plans=[plan], changes={"streams": padding})
    yield Case("cells_padding.stv", "cells 5", "a padding bit of the classes is 1", "padding bits of the classes", data)


def _seeded() -> Iterator[Case]:
    drawn = draw(7, 40)
    order = sorted(range(40), key=lambda i: -drawn[i])[:9]
    content = Content([Tensor("w", "F32", [40], {at: bits(1.0) for at in sorted(order)})])

    def made(name: str, clause: str, breaks: str, match: str, path: str, value: Any) -> Case:
        plan = whole(content, placed=lambda cuts: seeded_stream(cuts, 7, [drawn[order[-1]]]))
        change = put(f"blocks.0.positions.{path}", value)
        data = seal(content, plans=[plan], changes={"manifest": change})
        return Case(f"seeded_{name}.stv", clause, breaks, match, data)

    yield made("other_seed", "seeded 2", "another seed", "seed 8 keeps", "seed", 8)
    yield made("least_lower", "seeded 2", "a lower threshold", "seed 7 keeps", "least.0", 0)
    yield made("least_higher", "seeded 2", "a higher threshold", "seed 7 keeps", "least.0", 2**24)
    yield made("least_large", "seeded 2", "2^24 + 1", "integers in 0…16777216", "least.0", 2**24 + 1)
    yield made("seed_negative", "seeded 1", "seed -1", "`seed` must be", "seed", -1)
    yield made("seed_text", "seeded 1", "a seed of text", "`seed` must be", "seed", "7")
    yield made("frame", "4.3", "a frame", "has 0 frames, found 1", "frames", [0])
    huge = Content([Tensor("w", "F32", [2**50], {0: bits(1.0)})])
    plan = whole(huge, placed=lambda cuts: seeded_stream(cuts, 7, [0]))
    data = seal(huge, plans=[plan])
    yield Case("seeded_huge.stv", "seeded 3", "2^50 entries to draw", "decoding needs up to", data, "LimitError")


def _levels() -> Iterator[Case]:
    kept = [{0: bits(0.5), 3: bits(-1.5), 4: bits(0.5)}, {1: bits(2.0), 2: bits(3.0)}]
    content = Content([Tensor("a", "F32", [9], kept[0]), Tensor("b", "F32", [4], kept[1])])

    def made(name: str, clause: str, breaks: str, match: str, layer: str, change: Change) -> Case:
        plan = whole(content, valued=lambda cuts: level_stream(cuts, [0.5, 1.0]))
        data = seal(content, plans=[plan], changes={layer: change})
        return Case(f"levels_{name}.stv", f"levels {clause}", breaks, match, data)

    def stream(name: str, clause: str, breaks: str, match: str, number: int, data: bytes) -> Case:
        return made(name, clause, breaks, match, "streams", raw("values", number, lambda _: data))

    def counts(name: str, breaks: str, match: str, value: Any) -> Case:
        return made(name, "1", breaks, match, "manifest", put("blocks.0.values.counts", value))

    half, one = bits(0.5).to_bytes(4, "little"), bits(1.0).to_bytes(4, "little")
    split = lambda *units: b"".join(bytes(unit[j] for unit in units) for j in range(4))  # noqa: E731
    yield stream("unit_zero", "1", "a unit of 0", "not a positive number", 1, split(half, bytes(4)))
    yield stream("unit_nan", "1", "a unit of NaN", "not a positive number", 1, split(half, bytes.fromhex("0000c07f")))
    yield stream(
        "unit_infinite", "1", "an infinite unit", "not a positive number", 1, split(half, bytes.fromhex("0000807f"))
    )
    yield stream("unit_other", "1", "another unit", "content digest", 1, split(one, one))
    huge = bits(3.0e38).to_bytes(4, "little")
    yield stream("magnitude_infinite", "1", "3e38 times 3", "not a finite float32", 1, split(half, huge))
    yield stream("step_zero", "1", "two equal magnitudes", "do not rise", 2, bytes([1, 0, 2, 1, 0, 0, 0, 0]))
    yield stream("multiple_large", "1", "65,536 units", "do not rise", 2, bytes([1, 255, 2, 1, 0, 255, 0, 0]))
    fine = bits(1.0000001).to_bytes(4, "little")
    yield stream("magnitude_inexact", "1", "a product of 26 bits", "not a finite float32", 1, split(half, fine))
    yield stream("index_padding", "2", "a padding bit of the indices is 1", "padding bits of the indices", 3, b"\x32")
    yield stream("index_other", "2", "another index", "content digest", 3, b"\x11")
    yield counts("count_257", "257 magnitudes", "integers in 0…256", [257, 2])
    yield counts("count_none", "no magnitudes for kept entries", "no magnitudes", [0, 2])
    yield counts("counts_too_few", "one number for two pieces", "must be 2 integers", [2])
    three = Content([Tensor("a", "F32", [9], {i: bits(1.0 + i % 3) for i in range(5)})])
    plan = whole(three, valued=lambda cuts: level_stream(cuts, [1.0]))
    large = seal(three, plans=[plan], changes={"streams": raw("values", 4, lambda data: b"\x27" + data[1:])})
    yield Case("levels_index_large.stv", "levels 2", "index 3 of 3 magnitudes", "index 3 into 3", large)


def _features() -> Iterator[Case]:
    content = Content([Tensor("a", "F32", [9], {0: bits(0.5), 3: bits(1.5)})])
    plan = whole(content, valued=lambda cuts: level_stream(cuts, [0.5]))
    data = seal(content, plans=[plan], changes={"manifest": put("features.required", [])})
    yield Case(
        "feature_not_required.stv", "9.2", "codec `levels` without its feature", "is used, and not required", data
    )
    budget = {"asked": "1%", "bytes": -1, "energy": None, "fixed": 0, "of": "fp32"}
    for name, value, match in (("bytes", budget, "lies outside"), ("list", [], "expected an object")):
        other = Content(sample().tensors, changes={"budget": value})
        yield Case(
            f"budget_{name}.stv", "3.11", f"a wrong budget ({name})", match, broken("manifest", lambda m: m, other)
        )
