"""The valid golden files: one idea each."""

from collections.abc import Iterator

from golden_writer.blocks import Block, Plan, whole
from golden_writer.content import Content, Extra, Tensor, bits
from golden_writer.frames import frame, reframe
from golden_writer.newer import Classes, cell_stream, draw, level_stream, seeded_stream
from golden_writer.writer import seal

Named = tuple[str, Content, bytes]
"""File name without suffix, what the file holds, its bytes."""

ONE, HALF, MINUS_TWO, MINUS_ZERO = bits(1.0), bits(0.5), bits(-2.0), bits(-0.0)


def files() -> Iterator[Named]:
    """Every valid golden file."""
    for part in (_shapes, _dtypes_and_values, _gaps, _blocks, _carried, _envelope, _cells, _seeded, _levels):
        yield from part()


def ramp(positions: list[int], *, start: float = 0.125) -> dict[int, int]:
    """Kept entries at some positions, with values that differ in sign and size."""
    return {at: bits(start * (i + 1) * (-1) ** i) for i, at in enumerate(positions)}


def _shapes() -> Iterator[Named]:
    yield _plain("minimal", Content([Tensor("w", "F32", [4], {1: HALF, 2: MINUS_TWO})]))
    shapes: list[list[int]] = [[], [3], [2, 3], [2, 2, 3], [2, 1, 2, 3]]
    ranks = [Tensor(f"rank{len(s)}", "F32", s, ramp([0] if not s else [0, 2][: s[0]])) for s in shapes]
    ranks[3].kept, ranks[4].kept = ramp([1, 5, 6, 11]), ramp([0, 3, 7, 11])
    yield _plain("ranks", Content(ranks))
    empty: list[list[int]] = [[0], [0, 3], [2, 0, 3], [3, 0]]
    sizes = [Tensor(f"empty{i}", "F32", shape) for i, shape in enumerate(empty)]
    yield _plain("zero_size", Content([*sizes, Tensor("full", "F32", [2, 2], ramp([3]))]))
    yield _plain("dense", Content([Tensor("w", "F32", [3, 4], ramp(list(range(12))))]))
    some = [Tensor("a", "F32", [5]), Tensor("b", "F32", [5], ramp([4])), Tensor("c", "F32", [2, 5])]
    yield _plain("tensor_without_entries", Content(some))
    yield _plain("no_entries", Content([Tensor("a", "F32", [5]), Tensor("b", "BF16", [2, 5])]))
    no_scope = Content([Tensor("ids", "I64", [5], scope=False)])
    yield "no_scope", no_scope, seal(no_scope, plans=[])
    huge = [
        Tensor("head", "BF16", [128256, 32768], ramp([0, 2**31 + 5, 128256 * 32768 - 1])),
        Tensor("huge", "F32", [2**31, 2**30], ramp([2**40, 2**61 - 1])),
    ]
    yield "huge_shapes", Content(huge), seal(Content(huge), plans=[whole(Content(huge), shifts=[25, 54])])


def _dtypes_and_values() -> Iterator[Named]:
    mixed = [
        Tensor("bf16", "BF16", [2, 3], ramp([0, 4])),
        Tensor("f16", "F16", [2, 3], ramp([1, 5])),
        Tensor("f32", "F32", [2, 3], ramp([2, 3])),
        Tensor("i64", "I64", [2], scope=False),
    ]
    yield _plain("dtypes", Content(mixed))
    special = [MINUS_ZERO, 0, 1, 0x80000001, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0xFF7FFFFF]
    yield _plain("special_values", Content([Tensor("w", "F32", [10], dict(enumerate(special, start=1)))]))
    corrected = Tensor("a", "BF16", [700], ramp([*range(10, 660)]))
    corrected.corrections = {0: 1, 1: -1, 2: 2**31 - 1, 3: -(2**31), 300: 128, 649: -129}
    other = Tensor("b", "F16", [2, 8], ramp([0, 9, 15]), {2: 7})
    yield _plain("corrections", Content([corrected, other]))
    signed = [
        Tensor("a", "F32", [9], {0: HALF, 3: bits(-0.5), 4: HALF, 8: bits(-0.5)}),
        Tensor("b", "F32", [4]),
        Tensor("c", "BF16", [2, 4], {1: bits(-3.25e-5), 6: bits(3.25e-5)}),
        Tensor("d", "F32", [3], {0: MINUS_ZERO, 2: 0}),
        Tensor("e", "F32", [3], {1: 0xFF7FFFFF}),
    ]
    recipe = {
        "allocation": "global", "density": 0.5, "exclude": ["b"], "include": ["*"], "localizer": "dataless",
        "preset": "all", "values": "sign",
    }  # fmt: skip
    sign = Content(signed, changes={"recipe": recipe})
    yield "sign", sign, seal(sign, plans=[whole(sign, codec="sign")])


def _gaps() -> Iterator[Named]:
    escapes = [254, 510, 766, 1277, 1277 + 511, 4000]  # gaps 254, 255, 255, 510, 510, 2211
    yield _plain("gaps_escapes", Content([Tensor("w", "F32", [4001], ramp(escapes))]))
    tensors = [
        Tensor("a", "F32", [1000], ramp([0, 1, 999])),
        Tensor("b", "F32", [50, 4000], ramp([5, 60000, 60007, 130001, 199999])),
        Tensor("c", "F32", [7], ramp([6])),
        Tensor("d", "F32", [7]),
    ]
    content = Content(tensors)
    yield "gaps_shifts", content, seal(content, plans=[whole(content, shifts=[1, 7, 62, 13])])


def _blocks() -> Iterator[Named]:
    content = Content([
        Tensor("a", "F32", [4, 6], ramp([0, 5, 6, 13, 18, 23]), {0: 3, 3: -4, 5: 9}),
        Tensor("b", "F32", [5], ramp([2])),
    ])  # fmt: skip
    yield "split_rows", content, seal(content, plans=[Plan([(0, 1)]), Plan([(0, 2)]), Plan([(0, 1), (1, 1)])])
    tensors = [Tensor(name, "F32", [300], ramp([7, 290], start=1.0)) for name in "abc"]
    tensors[1].kept = {}
    content = Content(tensors)
    plans = [Plan([(0, 1)], shifts=[5]), Plan([(1, 1)], short=True), Plan([(2, 1)])]
    yield "other_encoder", content, seal(content, plans=plans, changes={"frames": _other_frames})
    tensors = [Tensor("a", "F32", [4], ramp([0, 2])), Tensor("b", "F32", [4], {1: ONE, 3: bits(-1.0)})]
    content = Content(tensors)
    plans = [Plan([(0, 1)], short=True), Plan([(1, 1)], codec="sign", short=True)]
    yield "codecs_per_block", content, seal(content, plans=plans)


def _other_frames(blocks: list[Block]) -> None:
    """Frames as another encoder may write them: other levels, other frame headers."""
    for block in blocks:
        for stream in (block.positions, block.values):
            stream.frames = [raw and reframe(frame(raw, level=-5), window=17 + i) for i, raw in enumerate(stream.raw)]


def _carried() -> Iterator[Named]:
    tensors = [Tensor("a", "F32", [2, 3], ramp([1, 4])), Tensor("emb", "BF16", [4, 2], ramp([3]))]
    extras = [
        Extra("cls.bias", "tensor", "F64", [2], bytes(range(16))),
        Extra("cls.empty", "tensor", "F16", [0, 4]),
        Extra("cls.mask", "tensor", "BOOL", [3], b"\1\0\1"),
        Extra("cls.scalar", "tensor", "F32", [], b"\0\0\xc0\x7f"),  # NaN may be carried
        Extra("cls.step", "tensor", "I64", [1], b"\xff" * 8),
        Extra("emb", "rows", "BF16", [3, 2], bytes(range(12)), "emb"),
        Extra("tied", "alias", "F64", [2], b"", "cls.bias"),
    ]
    yield _plain("extras", Content(tensors, extras))
    carried = {".hidden": b"x", "config.json": b'{"a": 1}\n', "empty.txt": b"", "vöcab.txt": b"\0\xff" * 40}
    yield _plain("files", Content(tensors, files=carried))
    outputs = [[1.0, -2.5, 0.0], [3.0e-40, -0.0, 1.0e30]]
    yield _plain("probe", Content(tensors, probe=outputs))
    finetuned = {
        "dtype": "F32", "missing": ["base.ids"], "outside": [["base.norm", 0.0123456], ["base.z", 1e-09]],
        "prefix": ["base.", "model."],
    }  # fmt: skip
    names = [("a", True), ("b", True), ("ids", False), ("norm", False), ("q", True), ("z", False)]
    runs = [Tensor(f"base.{name}", "F32", [3], ramp([2]) if scope else {}, scope=scope) for name, scope in names]
    yield _plain("scope_runs", Content(runs, prefix=("base.", "model."), changes={"finetuned": finetuned}))


def _envelope() -> Iterator[Named]:
    names = ['a"quote\\slash/x', "größe", "中文.重み", "\uff5e above the surrogates", "\U0001d400 astral"]
    tensors = [Tensor(name, "F32", [3], ramp([i % 3])) for i, name in enumerate(names)]
    unicode = Content(tensors, [Extra("tête\u2028.😀", "tensor", "U8", [1], b"\1")], changes={"name": "tâche n°1"})
    yield _plain("unicode_names", unicode)
    small = [Tensor("w", "F32", [4], {1: HALF, 2: MINUS_TWO})]
    deep: object = 1.5
    for _ in range(11):
        deep = [deep]
    features = {"features": {"optional": ["x-notes", "x-silent"], "required": []}, "x-notes": deep}
    yield _plain("optional_feature", Content(small, changes=features))
    newer = Content(small)
    yield "newer_minor_version", newer, seal(newer, version="1.7")
    for length in (0x0280, 0x0480):  # as little-endian bytes these begin like a Python pickle
        yield _plain(f"header_of_{length}_bytes", _with_header(small, length))


def _cells() -> Iterator[Named]:
    full = [row * 8 + column for row in (1, 4) for column in range(8)]  # rows 1 and 4 whole, column 6 mostly
    most = sorted({*full, *(row * 8 + 6 for row in (0, 2, 5)), 3})
    far = {row * 3000 + column for row in range(0, 40, 3) for column in (5, 300, 2999)} | {7, 64000, 64001, 119999}
    tensors = [
        Tensor("a", "F32", [6, 8], ramp(most)),
        Tensor("b", "F32", [9], ramp([2, 3, 8])),
        Tensor("c", "F32", [4, 5]),
        Tensor("d", "F32", [40, 3000], ramp(sorted(far))),
        Tensor("e", "BF16", [2, 2, 3], ramp([0, 1, 2, 6, 7, 8, 11])),
    ]
    content = Content(tensors)
    classes = [
        Classes([0, 2, 0, 1, 2, 0], [0, 0, 0, 0, 0, 0, 1, 0]),
        Classes([], []),
        Classes([], []),
        Classes([3 * (row % 3 == 0) for row in range(40)], [15 * (column % 9 == 5) for column in range(3000)]),
        Classes([], [0, 0, 0, 1, 1, 1]),
    ]
    yield "cells", content, seal(content, plans=[whole(content, placed=lambda cuts: cell_stream(cuts, classes))])


def _seeded() -> Iterator[Named]:
    drawn = draw(7, 75)
    least = 13 << 20
    kept = [[i for i in range(60) if drawn[i] > least], [], [i for i in range(5) if drawn[70 + i] >= drawn[72]]]
    tensors = [
        Tensor("a", "F32", [6, 10], ramp(kept[0])), Tensor("b", "F32", [10]), Tensor("c", "F32", [5], ramp(kept[2])),
    ]  # fmt: skip
    content = Content(tensors)
    numbers = [least, 0, drawn[72]]
    plan = whole(content, placed=lambda cuts: seeded_stream(cuts, 7, numbers))
    yield "seeded", content, seal(content, plans=[plan])


def _levels() -> Iterator[Named]:
    def leveled(multiples: list[int], unit: float) -> dict[int, int]:
        return {2 * i: bits(unit * multiple * (-1) ** (i // 2)) for i, multiple in enumerate(multiples)}

    unit = float.fromhex("0x1.5p-13")
    tensors = [
        Tensor("five", "F32", [40], leveled([1, 9, 2, 700, 65535, 9], unit)),
        Tensor("many", "F32", [4, 100], leveled([i * i % 41 for i in range(90)], 1.0)),
        Tensor("none", "F32", [3]),
        Tensor("one", "BF16", [9], leveled([1, 1, 1], float.fromhex("0x1p-149"))),
        Tensor("three", "F32", [12], leveled([0, 5, 3, 3], unit)),
        Tensor("two", "F32", [3, 6], leveled([4, 6, 6, 4, 4], 0.25)),
        Tensor("zero", "F32", [3], {0: MINUS_ZERO, 2: 0}),
    ]
    units = [unit, 1.0, float.fromhex("0x1p-149"), unit, 0.25, 1.0]
    content = Content(tensors)
    yield "levels", content, seal(content, plans=[whole(content, valued=lambda cuts: level_stream(cuts, units))])
    yield from (_quantized(values, levels) for values, levels in (("q8", 128), ("q4", 8), ("q2", 2), ("budget", 3)))
    for values, step in (("f16", 2.0**-10), ("bf16", 2.0**-7)):
        kept = {i: bits((1 + step * (i * 37 % round(1 / step))) * 2.0 ** (i % 5 - 140) * (-1) ** i) for i in range(9)}
        rounded = Content([Tensor("w", "F32", [20], kept)], changes={"recipe": _recipe(values)})
        yield _plain(f"values_{values}", rounded)


def _quantized(values: str, levels: int) -> Named:
    unit = float.fromhex("0x1.8cp-9")
    multiples = [*range(levels), *(i * i % levels for i in range(20))]
    kept = {3 * i: bits(unit * (m + (values != "q8")) * (-1) ** i) for i, m in enumerate(multiples)}
    budget = {"asked": "0.15%", "bytes": 4096, "energy": 0.8125, "fixed": 900, "of": "fp32"}
    changes = {"recipe": _recipe(values), **({"budget": budget} if values == "budget" else {})}
    content = Content([Tensor("w", "F32", [20, 50], kept)], changes=changes)
    plan = whole(content, valued=lambda cuts: level_stream(cuts, [unit]))
    return values if values == "budget" else f"values_{values}", content, seal(content, plans=[plan])


def _recipe(values: str) -> dict[str, object]:
    return {
        "allocation": "global", "density": 0.5, "exclude": [], "include": [], "localizer": "magnitude",
        "preset": "all", "values": values,
    }  # fmt: skip


def _with_header(tensors: list[Tensor], length: int) -> Content:
    for characters in range(1, 500):
        extras = [Extra(c * characters, "tensor", "U8", [1], b"\1") for c in "ab"]
        if seal(Content(tensors, extras))[:8] == length.to_bytes(8, "little"):
            return Content(tensors, extras)
    raise AssertionError(f"no header of {length} bytes")


def _plain(name: str, content: Content) -> Named:
    return name, content, seal(content)
