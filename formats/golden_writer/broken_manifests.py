"""Files whose manifest breaks SPEC 3, 4, 6 or 8; every checksum is right."""

import json
from collections.abc import Iterator
from typing import Any

from golden_writer.blocks import Plan
from golden_writer.case import Case, always, broken, drop, put, replace, sample
from golden_writer.content import Content, Extra, Tensor, bits
from golden_writer.writer import Change, seal


def cases() -> Iterator[Case]:
    """All of them."""
    for part in (_text, _types, _keys, _base, _scope, _pieces, _extras, _files, _probe, _names):
        yield from part()


def _edit(
    name: str, clause: str, breaks: str, match: str, path: str, value: Any, content: Content | None = None
) -> Case:
    """A case with one item of the manifest set."""
    return Case(f"manifest_{name}.stv", clause, breaks, match, broken("manifest", put(path, value), content))


def _text() -> Iterator[Case]:
    def text(name: str, breaks: str, match: str, change: Change) -> Case:
        return Case(f"manifest_{name}.stv", "3.1", breaks, match, broken("text", change))

    def swap(name: str, breaks: str, match: str, old: bytes, new: bytes) -> Case:
        return text(name, breaks, match, replace(old, new))

    odd = "not in canonical form"
    yield swap("whitespace", "a space after a colon", odd, b":", b": ")
    yield text("keys_unsorted", "keys in descending order", odd, _backwards)
    yield swap("escaped_letter", "a letter as \\u0067", odd, b'"golden"', b'"\\u0067olden"')
    yield swap("number_exponent", "0.5 as 5e-1", odd, b'"density":0.5', b'"density":5e-1')
    yield swap("key_twice", "a key twice", "appears twice", b'"writer"', b'"writer":"","writer"')
    yield swap("nan", "NaN", "NaN is not allowed", b'"density":0.5', b'"density":NaN')
    too_large = b'"density":1e999'
    yield swap("infinite_number", "no float64", "1e999|finite|range|infinit|inf", b'"density":0.5', too_large)
    yield swap("lone_surrogate", "half a surrogate pair", "surrogate", b'"golden"', b'"\\ud800"')
    yield swap("huge_integer", "an integer of 30 digits", "30 digits", b'"density":0.5', b'"density":' + b"1" * 30)
    yield swap("not_utf8", "a byte 0xff", "manifest: not UTF-8", b'"golden"', b'"golden\xff"')
    yield text("list", "not an object", "expected an object", lambda text: b"[" + text + b"]")
    yield text("deep", "lists nested 100,000 deep", "nested", always(b"[" * 100_000 + b"]" * 100_000))
    two_mebibytes = always(b"[" + b"0," * (1 << 20) + b"0]")
    yield text("of_two_mebibytes", "far longer than its frame", "2097155 bytes in a frame of", two_mebibytes)
    thirteen: object = 1
    for _ in range(12):
        thirteen = [thirteen]
    changes = {"features": {"optional": ["x-notes"], "required": []}, "x-notes": thirteen}
    deep = seal(Content(sample().tensors, changes=changes))
    yield Case("manifest_13_deep.stv", "3.1", "an ignored key nested too deeply", "deeper than 12", deep)


def _backwards(text: bytes) -> bytes:
    return json.dumps(dict(reversed(json.loads(text).items())), separators=(",", ":")).encode()


def _types() -> Iterator[Case]:
    files = Content(sample().tensors, files={"config.json": b"{}"})
    edit = _edit
    yield edit("bool_as_integer", "3.7", "a size of true", "found bool", "files.0.size", value=True, content=files)
    yield edit("float_as_integer", "3.7", "a size of 2.0", "found float", "files.0.size", 2.0, files)
    yield edit("negative_size", "3.7", "a size of -2", "lies outside", "files.0.size", -2, files)
    yield edit("negative_dimension", "3.4", "a dimension of -4", "lies outside", "base.shapes.0.0", -4)
    yield edit("base_list", "3.4", "the base is a list", "expected an object", "base", [])
    yield edit("density_string", "3.10", "the density is a string", "expected a number", "recipe.density", "0.5")
    yield edit("density_negative", "3.10", "the density is negative", "finite number >= 0", "recipe.density", -0.5)
    yield edit("norms_too_few", "3.5", "one norm for two tensors", "norms", "tensors.l1", [1.0])
    yield edit("digest_upper_case", "7.2", "a digest in upper case", "64 lowercase hex digits", "digest", "A" * 64)
    yield edit("frame_negative", "4.3", "a frame of -1 bytes", "lies outside", "blocks.0.values.frames.0", -1)
    yield edit("nnz_bool", "4.3", "nnz is true", "expected an integer", "blocks.0.pieces.1.0", value=True)
    yield edit("nnz_negative", "4.3", "nnz is -1", "lies outside", "blocks.0.pieces.1.0", -1)
    for name, value in {"null": None, "string": "6", "text": "six", "negative": -6}.items():
        where, breaks = "blocks.0.positions.high_size", f"high_size is {value!r}"
        yield edit(f"high_size_{name}", "gaps 4", breaks, "high_size", where, value)


def _keys() -> Iterator[Case]:
    edit = _edit
    yield edit("unknown_key", "3.2", "a key of no feature", "unknown key 'x-notes'", "x-notes", 1)
    yield edit("unknown_base_key", "3.4", "an unknown key below the top", "unknown key 'x'", "base.x", 1)
    missing = broken("manifest", drop("writer"))
    yield Case("manifest_key_missing.stv", "3.2", "no `writer`", "missing key 'writer'", missing)
    future = "requires feature 'future'"
    yield edit("required_feature", "3.3", "a required feature of the future", future, "features.required", ["future"])
    odd = ["x-b", "x-a"]
    yield edit("features_unsorted", "3.3", "the optional features are not sorted", "features", "features.optional", odd)
    codec = "unknown position codec 'gaps2'"
    yield edit("unknown_position_codec", "4.3", "an unknown codec", codec, "blocks.0.positions.codec", "gaps2")
    codec = "unknown value codec 'fp4'"
    yield edit("unknown_value_codec", "4.3", "an unknown codec", codec, "blocks.0.values.codec", "fp4")
    yield edit("digest_wrong", "7.2", "another digest", "content digest", "digest", "0" * 64)
    yield edit("prefix_of_three", "3.8", "a prefix of three parts", "two parts", "finetuned.prefix", ["", "", ""])
    odd = ["z"]
    yield edit("missing_not_in_base", "3.8", "no tensor of the base", "names of the base", "finetuned.missing", odd)
    yield edit("missing_unsorted", "3.8", "`missing` not ascending", "ascending", "finetuned.missing", ["b", "a"])
    yield edit("finetuned_dtype", "3.8", "an unknown dtype", "unknown dtype", "finetuned.dtype", "F4")


def _base() -> Iterator[Case]:
    edit = _edit
    yield edit("base_unsorted", "3.4", "names not ascending", "strictly ascending", "base.names", ["b", "a"])
    yield edit("base_name_twice", "6.1", "two equal names", "strictly ascending", "base.names", ["a", "a"])
    yield edit("base_dtypes_too_few", "3.4", "one dtype, two names", "1 dtypes", "base.dtypes", ["F32"])
    yield edit("base_dtype", "3.4", "an unknown dtype", "unknown dtype", "base.dtypes.0", "F4")
    yield edit("tags_short", "3.4", "tags of 7 digits", "16 lowercase hex digits", "base.tags", "0" * 14)
    yield edit("shape_overflow", "3.5", "more than 2^62 entries", "too large", "base.shapes.0", [2**40, 2**40])


def _scope() -> Iterator[Case]:
    edit = _edit
    yield edit("scope_adjacent", "3.5", "two runs that touch", "run", "scope", [[0, 1], [1, 1]])
    yield edit("scope_overlap", "3.5", "two runs that share a tensor", "run", "scope", [[0, 2], [1, 1]])
    yield edit("scope_empty_run", "3.5", "a run of no tensors", "run", "scope", [[0, 0]])
    yield edit("scope_past_base", "3.5", "a run past the base", "leaves the 2 tensors", "scope", [[0, 3]])
    yield edit("scope_dtype", "3.5", "a tensor of integers in scope", "dtype I64", "base.dtypes.0", "I64")


def _pieces() -> Iterator[Case]:
    rows = Content([Tensor("a", "F32", [4, 2], {1: bits(1.0), 6: bits(2.0)}), Tensor("b", "F32", [3], {1: bits(1.0)})])
    two = [Plan([(0, 2)]), Plan([(0, 2), (1, 1)])]

    def pieces(name: str, breaks: str, match: str, value: Any, *, block: int = 0, clause: str = "4.2") -> Case:
        change = {"manifest": put(f"blocks.{block}.pieces", value)}
        return Case(f"pieces_{name}.stv", clause, breaks, match, seal(rows, plans=two, changes=change))

    yield pieces("row_gap", "a row in no piece", "does not continue|leaves", [[0, 1, 1], [1, 1, 1]], block=1)
    yield pieces("row_twice", "a row in two pieces", "leaves the 4 rows", [[0, 3, 1], [1, 1, 1]], block=1)
    yield pieces("tensor_skipped", "the first tensor is skipped", "does not continue", [[1, 1, 1]])
    yield pieces("tensor_twice", "a tensor after its last row", "does not continue", [[0, 2, 1], [0, 2, 1]], block=1)
    yield pieces("end_missing", "the last tensor in no piece", "end at tensor 1 of 2", [[0, 2, 1]], block=1)
    yield pieces("past_scope_short", "whole tensors past the scope", "leave the 2 tensors", [0, [1, 1, 1]])
    yield pieces("short_inside_tensor", "a whole tensor after half of it", "leaves the 4 rows", [0, [1, 1]], block=1)
    yield pieces("no_rows", "a piece of no rows", "leaves the 4 rows", [[0, 0, 0]])
    yield pieces("none", "a block without pieces", "no pieces", [], clause="4.3")
    yield pieces("too_many_entries", "nnz is more than the piece's entries", "more than its 4 entries", [[0, 2, 5]])
    yield pieces("huge_tensor", "a tensor number of 2^62", "leave the 2 tensors", [2**62, [1]])
    yield pieces(
        "of_one_more", "nnz is one more than the stream holds", "holds 1 gaps, expected 2", [[0, 2, 2]], clause="gaps 4"
    )
    yield _edit("no_blocks", "4.2", "a scope in no block", "end at tensor 0 of 2", "blocks", [])
    empty = Content([Tensor("e", "F32", [4, 0])])
    split = seal(empty, plans=[Plan([(0, 2), (0, 2)])])
    match = "one piece|leaves|pieces"
    yield Case("pieces_zero_size_split.stv", "4.2", "a tensor without entries in two pieces", match, split)
    huge = Content([Tensor("a", "F32", [2**40], {1: bits(1.0)})])
    too_many = broken("manifest", put("blocks.0.pieces.1.0", 2**31), huge)
    yield Case("block_of_2_31_entries.stv", "4.4", "2^31 kept entries in a block", "2147483648 kept entries", too_many)
    many = broken("manifest", put("blocks.0.pieces.1.0", 2**31 - 1), huge)
    over = "decoding needs"
    yield Case("over_budget_entries.stv", "5.2", "2^31 - 1 entries pass the budget", over, many, "LimitError")


def _extras() -> Iterator[Case]:
    rows = Extra("emb", "rows", "F32", [1, 5], bytes(20), "a")
    tied = Extra("tied", "alias", "F32", [2], b"", "cls")
    content = Content(sample().tensors, [Extra("cls", "tensor", "F32", [2], bytes(8)), rows, tied])

    def extra(name: str, breaks: str, match: str, path: str, value: Any, clause: str = "3.6") -> Case:
        return _edit(f"extra_{name}", clause, breaks, match, f"extras.{path}", value, content)

    yield extra("kind", "an unknown kind", "unknown kind", "0.kind", "column")
    yield extra("dtype", "an unknown dtype", "unknown dtype", "0.dtype", "F4")
    yield extra("shape", "another shape of as many entries", "header is not the canonical one", "0.shape", [1, 2])
    yield extra("unsorted", "names not ascending", "strictly ascending", "0.name", "z")
    yield extra("base_missing", "rows of no base tensor", "do not continue", "1.base", "z")
    yield extra("base_width", "rows of another width", "do not continue", "1.base", "b")
    yield extra("source_of_tensor", "`base` with kind `tensor`", "unknown key", "0.base", "a")
    yield extra("name_control", "NUL in a name", "control", "0.name", "a\0", "6.1")
    alias = Content(sample().tensors, [Extra("tied", "alias", "F32", [2], b"", "a\0")])
    yield Case("manifest_alias_control.stv", "6.1", "NUL in the name of the alias's tensor", "control", seal(alias))
    outside = broken("manifest", put("finetuned.outside", [["a\x1b[2J", 0.5]]))
    yield Case("manifest_outside_control.stv", "6.1", "ESC in a name of `outside`", "control", outside)


def _files() -> Iterator[Case]:
    def named(name: str, breaks: str, match: str, *names: str, clause: str = "6.2") -> Case:
        content = Content(sample().tensors, files=dict.fromkeys(names, b"{}"))
        return Case(f"file_{name}.stv", clause, breaks, match, seal(content))

    component = "not a portable path component"
    yield named("parent", "a file in the parent directory", component, "../config.json")
    yield named("drive", "a drive letter", component, "c:config.json")
    yield named("reserved", "a name that Windows reserves", "reserved on Windows", "nul.txt")
    yield named("control", "NUL", "control", "a\0b")
    yield named("unsorted", "names not ascending", "not ascending", "b.json", "a.json", clause="3.7")
    yield named("case_fold", "names equal after case folding", "case folding", "Config.json", "config.json")
    yield named("case_fold_sharp_s", "ß folds to ss", "case folding", "gross", "groß")
    one = Content(sample().tensors, files={"config.json": b"{}"})
    yield _edit("file_size", "3.7", "a size of one byte more", "expected 3", "files.0.size", 3, one)
    huge = broken("manifest", put("files.0.size", 2**40), one)
    yield Case("over_budget_file.stv", "5.2", "a file of 2^40 bytes", "decoding needs", huge, "LimitError")


def _probe() -> Iterator[Case]:
    content = Content(sample().tensors, probe=[[1.0, 2.0]])

    def probe(name: str, breaks: str, match: str, path: str, value: Any) -> Case:
        return _edit(f"probe_{name}", "8.1", breaks, match, f"probe{path}", value, content)

    yield probe("null", "null, but outputs are stored", "not in the manifest", "", None)
    yield probe("count", "another count", "header is not the canonical one|do not hold", ".count", 2)
    yield probe("seed_bool", "the seed is true", "expected an integer", ".seed", value=True)
    yield probe("kind", "an unknown kind", "kind", ".kind", "audio")
    yield probe("param_list", "a parameter is a list", "expected a number or a string", ".params.channels", [1])
    yield probe("scale_negative", "a negative scale", "finite number >= 0", ".scale", -1.5)
    infinite = Content(sample().tensors, probe=[[1.0, float("inf")]])
    yield Case("probe_infinite.stv", "7.3", "an output is infinite", "NaN or infinite", seal(infinite))


def _names() -> Iterator[Case]:
    def tensor(name: str, breaks: str, match: str, value: str) -> Case:
        return _edit(f"tensor_{name}", "6.1", breaks, match, "base.names.1", value)

    yield tensor("nul", "NUL in a tensor name", "control", "b\0")
    yield tensor("c1", "a C1 control in a tensor name", "control", "b\x9b")
    yield tensor("bidi", "a bidirectional override in a tensor name", "control", "b\u202eevil")
    yield tensor("not_nfc", "a tensor name not in normal form C", "normal form C", "be\u0301")
    yield tensor("long", "a tensor name of 513 characters", "513 characters", "b" * 513)
    yield _edit("tensor_empty", "6.1", "an empty tensor name", "0 characters", "base.names.0", "")
    for name, value in _TASK_NAMES.items():
        match = "portable path component|reserved|characters|normal form"
        yield _edit(f"name_{name}", "6.2", f"the task is called {value[:20]!r}", match, "name", value)


_TASK_NAMES = {
    "parent": "..",
    "slash": "a/b",
    "drive": "c:",
    "reserved": "con",
    "leading_dot": ".a",
    "trailing_space": "a ",
    "long": "x" * 129,
    "control": "a\x07",
}
