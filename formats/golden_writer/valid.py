"""The valid golden files: one idea each."""

from collections.abc import Iterator

from golden_writer.blocks import Block, Plan, whole
from golden_writer.content import Content, Extra, Tensor, bits
from golden_writer.frames import frame, reframe
from golden_writer.writer import seal

Named = tuple[str, Content, bytes]
"""File name without suffix, what the file holds, its bytes."""

ONE, HALF, MINUS_TWO, MINUS_ZERO = bits(1.0), bits(0.5), bits(-2.0), bits(-0.0)


def files() -> Iterator[Named]:
    """Every valid golden file."""
    for part in (_shapes, _dtypes_and_values, _gaps, _blocks, _carried, _envelope):
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


def _with_header(tensors: list[Tensor], length: int) -> Content:
    for characters in range(1, 500):
        extras = [Extra(c * characters, "tensor", "U8", [1], b"\1") for c in "ab"]
        if seal(Content(tensors, extras))[:8] == length.to_bytes(8, "little"):
            return Content(tensors, extras)
    raise AssertionError(f"no header of {length} bytes")


def _plain(name: str, content: Content) -> Named:
    return name, content, seal(content)
