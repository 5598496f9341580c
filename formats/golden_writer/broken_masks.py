"""The invalid golden masks; all are read for one scope."""

import json
import struct
from collections.abc import Iterator
from typing import Any

from golden_writer.case import Case, drop, put, replace
from golden_writer.mask_cases import SCOPE
from golden_writer.masks import Stored, as_sparsetv_writes, boolean, marked, positions, seal
from golden_writer.writer import Change, pad

KEPT = {"a.weight": [0, 5], "b.bias": [2]}


def invalid() -> Iterator[Case]:
    """Every invalid golden mask."""
    for part in (
        _prefix,
        _kinds,
        _header,
        _entries,
        _payload,
        _metadata,
        _shapes,
        _names,
        _positions,
        _booleans,
        _scope,
    ):
        yield from part()


def _case(name: str, clause: str, breaks: str, match: str, data: bytes, error: str = "FormatError") -> Case:
    return Case(f"{name}.safetensors", f"mask {clause}", breaks, match, data, error)


def _whole() -> bytes:
    return as_sparsetv_writes(KEPT, SCOPE, {})


def _broken(name: str, clause: str, breaks: str, match: str, layer: str, change: Change) -> Case:
    data = seal([positions(name, places) for name, places in KEPT.items()], marked(), changes={layer: change})
    return _case(name, clause, breaks, match, data)


def _prefix() -> Iterator[Case]:
    whole = _whole()
    yield _case("empty", "1.1", "no bytes at all", "0 bytes are too few", b"")
    yield _case("short", "1.1", "five bytes", "5 bytes are too few", whole[:5])
    yield _case("header_cut_off", "1.1", "the file ends inside the header", "cut off", whole[:100])
    yield _case("header_over_limit", "1.1", "N is 25,000,001", "exceeds 25000000", _length(25_000_001, b"{}"))
    yield _case("header_of_2_64_bytes", "1.1", "8 + N passes 2^64", "exceeds 25000000", _length(2**64 - 1, b"{}"))
    yield _case("header_of_no_bytes", "1.1", "N is 0", "does not start with", _length(0, whole[8:]))
    yield _case("header_list", "1.1", "the header is a list", "does not start with", _length(8, b"[]      "))


def _length(number: int, rest: bytes) -> bytes:
    return struct.pack("<Q", number) + rest


def _kinds() -> Iterator[Case]:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234\n"
    yield _case("lfs_pointer", "1.1", "a git-LFS pointer", "git-LFS pointer", pointer)
    page = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n"
    yield _case("html", "1.1", "an HTML page", "HTML page", page)
    yield _case("zip", "1.1", "a zip archive, as torch.save writes", "zip archive", b"PK\x03\x04" + bytes(60))
    yield _case("pickle", "1.1", "a Python pickle", "Python pickle", b"\x80\x04}q\x00X\x01\x00\x00\x00aq\x01K\x01s.")


def _header() -> Iterator[Case]:
    def text(name: str, breaks: str, match: str, old: bytes, new: bytes) -> Case:
        return _broken(f"header_{name}", "1.1", breaks, match, "text", lambda t: pad(replace(old, new)(t.rstrip(b" "))))

    yield text("not_utf8", "a byte 0xff in a name", "not UTF-8", b"b.bias", b"b.bia\xff")
    yield text("not_json", "a quote is missing", "not JSON", b'"dtype"', b'"dtype')
    yield text("nan", "NaN as a dimension", "NaN is not allowed", b'"shape":[', b'"shape":[NaN,')
    yield text("deep", "lists nested 30 deep", "nested", b'"shape":[', b'"shape":[' + b"[" * 30 + b"]" * 30 + b",")
    yield text("depth", "100,000 lists that do not end", "nested|not JSON", b'"shape":[', b'"shape":' + b"[" * 100_000)
    yield text(
        "digits",
        "an offset of 21 digits",
        "integer of 21 digits",
        b'"data_offsets":[0',
        b'"data_offsets":[' + b"1" * 21,
    )
    yield text("key_twice", "a tensor twice", "'a.weight' appears twice", b'"b.bias"', b'"a.weight"')
    twice = b'"version":"1.0","version":"1.0"'
    yield text("metadata_key_twice", "`version` twice", "'version' appears twice", b'"version":"1.0"', twice)
    yield text(
        "entry_key_twice", "`dtype` twice", "'dtype' appears twice", b'"dtype":"I64"', b'"dtype":"I64","dtype":"I64"'
    )
    yield text("metadata_number", "a version that is a number", "expected a string", b'"1.0"', b"1.0")
    yield text(
        "metadata_list",
        "metadata that are a list",
        "expected an object",
        b'{"format":"sparsetv-mask","version":"1.0"}',
        b"[]",
    )


def _entries() -> Iterator[Case]:
    def entry(name: str, breaks: str, match: str, key: str, value: Any) -> Case:
        return _broken(
            f"entry_{name}", "1.1", breaks, match, "header", lambda header: header["b.bias"].update({key: value})
        )

    yield entry("unknown_dtype", "dtype I128", "dtype 'I128' is not supported", "dtype", "I128")
    yield entry("size_mismatch", "the offsets hold less than the shape", "do not hold", "shape", [2])
    yield entry("negative_dimension", "a dimension of -1", "lies outside", "shape", [-1])
    yield entry("float_dimension", "a dimension of 1.0", "expected an integer", "shape", [1.0])
    yield entry("boolean_dimension", "a dimension of true", "expected an integer", "shape", [True])
    yield entry("shape_overflow", "dimensions whose product passes 2^64", "too large", "shape", [2**32, 2**33])
    yield entry("dimensions_17", "17 dimensions", "too large", "shape", [1] * 17)
    yield entry("unknown_key", "a key that safetensors lacks", "unknown key", "stride", [1])
    yield entry("offsets_three", "three offsets", "do not hold", "data_offsets", [16, 24, 24])
    yield _broken("entry_null", "1.1", "a tensor that is null", "expected an object", "header", put("a", None))


def _payload() -> Iterator[Case]:
    whole = _whole()
    yield _case("payload_cut_off", "1.1", "the last byte is missing", "cut off", whole[:-1])
    yield _case("payload_missing", "1.1", "the header alone", "cut off", whole[:-24])
    yield _case("payload_trailing_byte", "1.1", "a byte follows the last tensor", "trailing", whole + b"\0")

    def moved(by: int) -> Change:
        def change(header: Any) -> None:
            header["b.bias"]["data_offsets"] = [16 + by, 24 + by]

        return change

    parts = [positions(name, places) for name, places in KEPT.items()]
    hole = seal(parts, marked(), changes={"header": moved(8), "payload": lambda data: data[:16] + bytes(8) + data[16:]})
    yield _case("payload_hole", "1.1", "8 bytes between the tensors", "hole before b.bias", hole)
    overlap = seal(parts, marked(), changes={"header": moved(-8), "payload": lambda data: data[:16]})
    yield _case("payload_overlap", "1.1", "two tensors share 8 bytes", "overlap before b.bias", overlap)


def _metadata() -> Iterator[Case]:
    def told(name: str, breaks: str, match: str, change: Change) -> Case:
        return _broken(name, "1.2", breaks, match, "header", change)

    yield told("no_metadata", "no `__metadata__`", "is no mask file", drop("__metadata__"))
    yield told("no_format", "no `format`", "is no mask file", put("__metadata__", {"version": "1.0"}))
    yield told("format_task", "a task file's format", "is no mask file", put("__metadata__.format", "sparsetv"))
    yield told("format_longer", "a longer format", "is no mask file", put("__metadata__.format", "sparsetv-mask "))
    yield told("no_version", "no `version`", "is not MAJOR.MINOR", put("__metadata__", {"format": "sparsetv-mask"}))
    yield told("version_2", "version 2.0", "version 2.0.*update", put("__metadata__.version", "2.0"))
    versions = {
        "without_minor": "1",
        "three_parts": "1.0.1",
        "text": "one.0",
        "six_digits": "100000.0",
        "digits": "\u0661.0",
    }
    for name, version in versions.items():
        yield told(
            f"version_{name}", f"version {version!r}", "is not MAJOR.MINOR", put("__metadata__.version", version)
        )


def _shapes() -> Iterator[Case]:
    def shapes(name: str, breaks: str, match: str, text: str, error: str = "FormatError") -> Case:
        data = seal([positions("b.bias", [2])], marked(shapes=text))
        return _case(f"shapes_{name}", "1.3", breaks, match, data, error)

    yield shapes("not_json", "no JSON", "shapes: not JSON", "{")
    yield shapes("list", "a list", "shapes is no object", "[]")
    yield shapes("key_twice", "a tensor twice", "'c' appears twice", '{"c":[],"c":[]}')
    yield shapes("nan", "NaN as a dimension", "NaN is not allowed", '{"c":[NaN]}')
    yield shapes("deep", "lists nested 30 deep", "nested", '{"c":' + "[" * 30 + "]" * 30 + "}")
    yield shapes("number", "a number as a shape", "expected a list", '{"c":3}')
    yield shapes("negative", "a dimension of -1", "lies outside", '{"z":[-1]}')
    yield shapes("float", "a dimension of 1.0", "expected an integer", '{"z":[1.0]}')
    yield shapes("digits", "a dimension of 21 digits", "integer of 21 digits", f'{{"z":[{"1" * 21}]}}')
    yield shapes("dimensions_17", "17 dimensions", "too large", json.dumps({"z": [1] * 17}))
    yield shapes("overflow", "2^62 entries", "too large", json.dumps({"z": [2**31, 2**31]}))
    yield shapes("name_control", "a name with a control character", "control characters", '{"a\\u0007":[1]}')
    yield shapes("name_empty", "a name of no characters", "name of 0 characters", '{"":[1]}')
    yield shapes("name_surrogate", "a lone surrogate", "control characters|surrogate", '{"\\ud800":[1]}')
    other = "in the mask, but .* in the base; is it this base's mask"
    yield shapes(
        "other_columns", "another shape than the base's", f"a.weight .*{other}", '{"a.weight":[4,3]}', "ShapeError"
    )
    yield shapes("scalar_as_vector", "a scalar as a vector", f"c .*{other}", '{"c":[1]}', "ShapeError")


def _names() -> Iterator[Case]:
    def named(name: str, breaks: str, match: str, tensor: str) -> Case:
        data = seal([positions("b.bias", [2]), boolean(tensor, [1], [])], marked())
        return _case(f"name_{name}", "2.1", breaks, match, data)

    control = "holds control characters"
    yield named("empty", "a name of no characters", "name of 0 characters", "")
    yield named("long", "a name of 513 characters", "name of 513 characters", "n" * 513)
    yield named("nul", "a name with U+0000", control, "b\0")
    yield named("bidi", "a name with U+202E, which turns text around", control, "b\u202e")
    yield named("zero_width", "a name with U+200B, which has no width", control, "b.bias\u200b")
    yield named("not_nfc", "é as two characters", "normal form C", "e\u0301")
    escaped = lambda text: pad(text.rstrip(b" ").replace(b'"q"', b'"\\ud800"'))  # noqa: E731
    data = seal([positions("b.bias", [2]), boolean("q", [1], [])], marked(), changes={"text": escaped})
    yield _case("name_surrogate", "2.1", "a lone surrogate", "surrogate", data)


def _positions() -> Iterator[Case]:
    def kept(name: str, breaks: str, places: list[int], tensor: str = "a.weight") -> Case:
        match = f"{tensor}: positions do not increase within 0 to"
        return _case(f"positions_{name}", "2.2", breaks, match, seal([positions(tensor, places)], marked()))

    yield kept("twice", "a position twice", [2, 2])
    yield kept("decreasing", "a lower position behind a higher one", [2, 1])
    yield kept("negative", "a position of -1", [-1, 3])
    yield kept("past_end", "the position behind the last entry", [3, 12])
    yield kept("scalar_past_end", "position 1 of a scalar", [1], "c")
    wraps = "steps that look positive where a difference of 64 bits wraps"
    yield kept("wrap", wraps, [0, 2**63 - 1, -(2**63), -1, 5])

    def stored(name: str, breaks: str, tensor: Stored) -> Case:
        match = f"{tensor.name}: {tensor.dtype} .* is neither I64 positions nor a BOOL mask"
        return _case(f"form_{name}", "2.2", breaks, match, seal([tensor], marked()))

    yield stored("two_dimensions", "positions of two dimensions", Stored("b.bias", "I64", [1, 1], bytes(8)))
    yield stored("no_dimension", "positions of no dimension", Stored("b.bias", "I64", [], bytes(8)))
    for dtype, size in (("I32", 4), ("U64", 8), ("F64", 8), ("U8", 1), ("C64", 8)):
        yield stored(dtype.lower(), f"positions as {dtype}", Stored("b.bias", dtype, [1], bytes(size)))


def _booleans() -> Iterator[Case]:
    def bits(name: str, data: bytes) -> Case:
        match = "b.bias: a boolean that is neither 0 nor 1"
        tensor = Stored("b.bias", "BOOL", [5], data)
        return _case(f"boolean_{name}", "2.3", f"a byte {max(data)}", match, seal([tensor], marked()))

    yield bits("of_2", b"\0\1\2\0\0")
    yield bits("of_255", b"\0\1\0\0\xff")

    def shaped(name: str, breaks: str, tensor: Stored) -> Case:
        match = f"{tensor.name} has shape .* in the mask, but .* in the base; is it this base's mask"
        return _case(f"boolean_{name}", "2.3", breaks, match, seal([tensor], marked()), "ShapeError")

    yield shaped("turned", "rows for columns", boolean("a.weight", [4, 3], [1]))
    yield shaped("flat", "one dimension for two", boolean("a.weight", [12], [1]))
    yield shaped("short", "one entry less", boolean("b.bias", [4], [1]))
    yield shaped("scalar_as_vector", "a scalar as a vector", boolean("c", [1], [0]))


def _scope() -> Iterator[Case]:
    def kept(name: str, breaks: str, match: str, *tensors: Stored) -> Case:
        return _case(name, "3.2", breaks, match, seal(list(tensors), marked()))

    outside = "keeps entries of z, which the scope does not cover; widen"
    some = positions("b.bias", [1])
    yield kept("outside_positions", "a position outside the scope", outside, some, positions("z", [0]))
    yield kept("outside_boolean", "a 1 outside the scope", outside, some, boolean("z", [2], [1]))
    other = Stored("z", "F32", [0], b"")
    yield kept("outside_floats", "another dtype outside the scope", "z: F32 .* is neither", some, other)
    nothing = "keeps no entry of the scope"
    yield kept("nothing", "no tensor", nothing)
    yield kept("nothing_positions", "a tensor of no position", nothing, positions("b.bias", []))
    yield kept("nothing_boolean", "zeros alone", nothing, boolean("b.bias", [5], []))
