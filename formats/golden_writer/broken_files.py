"""Files that break SPEC 1, 2 or 9: length prefix, header, payload, stored tensors, version."""

import json
import struct
from collections.abc import Iterator
from typing import Any

from golden_writer.case import Case, broken, drop, flip, header_text, put, replace, sample
from golden_writer.content import Content, Extra, Tensor
from golden_writer.writer import Change, Stored, canonical, pad, seal


def cases() -> Iterator[Case]:
    """All of them."""
    for part in (_prefix, _kinds, _header, _entries, _payload, _canonical, _stored, _versions):
        yield from part()


def _length(number: int, rest: bytes = b"") -> bytes:
    return struct.pack("<Q", number) + rest


def _prefix() -> Iterator[Case]:
    whole = seal(sample())
    yield Case("empty.stv", "1.1", "no bytes at all", "empty file", b"")
    yield Case("short.stv", "1.1", "five bytes, fewer than the length prefix", "5 bytes are too few", whole[:5])
    yield Case("header_cut_off.stv", "1.2", "the file ends inside the header", "cut off", whole[:100])
    yield Case("header_past_end.stv", "1.2", "N reaches past the end", "cut off", _length(16, b"{}      "))
    too_long = _length(25_000_008, b"{}      ")
    yield Case("header_over_limit.stv", "1.2", "N is more than HEADER_BYTES", "exceeds 25000000", too_long)
    largest = _length(2**64 - 1, b"{}      ")
    yield Case("header_of_2_64_bytes.stv", "1.2", "8 + N passes 2^64", "exceeds 25000000", largest)
    yield Case("header_of_no_bytes.stv", "1.2", "N is 0", "does not start with", _length(0, whole[8:]))
    yield Case("header_list.stv", "1.2", "the header is a list", "does not start with", _length(8, b"[]      "))
    spaces = broken("header_text", lambda text: b" " * 8 + text)
    yield Case("header_leading_space.stv", "1.2", "the header starts with a space", "does not start with", spaces)


def _kinds() -> Iterator[Case]:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234\n"
    yield Case("lfs_pointer.stv", "1.1", "a git-LFS pointer", "git-LFS pointer", pointer)
    xet = b'# xet version 0\nfilesize = 1234\nhash = "' + b"0" * 64 + b'"\n'
    yield Case("xet_pointer.stv", "1.1", "a Xet pointer", "Xet pointer", xet)
    page = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n"
    yield Case("html.stv", "1.1", "an HTML page", "HTML page", page)
    yield Case("zip.stv", "1.1", "a zip archive, as torch.save writes", "zip archive", b"PK\x03\x04" + bytes(60))
    yield Case("pickle.stv", "1.1", "a Python pickle", "Python pickle", b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01K\x01s.")
    gguf = b"GGUF\x03\0\0\0" + bytes(24)
    yield Case("gguf.stv", "1.1", "a GGUF file", "GGUF", gguf)
    header: dict[str, Any] = {
        "__metadata__": {"format": "pt"},
        "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    }
    text = pad(json.dumps(header).encode())
    model = _length(len(text), text + bytes(8))
    yield Case("plain_model.stv", "1.4", "a model's safetensors file", "no sparsetv task", model)


def _header() -> Iterator[Case]:
    def header(name: str, breaks: str, match: str, old: bytes, new: bytes, clause: str = "1.1") -> Case:
        return Case(f"header_{name}.stv", clause, breaks, match, broken("header_text", header_text(replace(old, new))))

    yield header(
        "not_utf8", "a byte 0xff in a tensor name", "header: not UTF-8", b"sparsetv.values", b"sparsetv.value\xff"
    )
    yield header("not_json", "a quote is missing", "header: not JSON", b'"dtype"', b'"dtype')
    yield header("nan", "NaN as a dimension", "NaN is not allowed", b'"shape":[', b'"shape":[NaN,')
    yield header("deep", "lists nested 30 deep", "nested", b'"shape":[', b'"shape":[' + b"[" * 30 + b"]" * 30 + b",")
    yield header("key_twice", "a tensor twice", "appears twice", b'"sparsetv.values"', b'"sparsetv.positions"', "3.1")
    twice = b'"version":"1.0","version":"1.0"'
    yield header("metadata_key_twice", "`version` twice", "appears twice", b'"version":"1.0"', twice, "1.4")
    yield header("metadata_more", "a fourth key", "canonical|metadata", b'"1.0"', b'"1.0","x":""', "1.4")
    yield header("other_format", "`format` is another", "no sparsetv task", b':"sparsetv"', b':"sparsetx"', "1.4")


def _entries() -> Iterator[Case]:
    def entry(name: str, breaks: str, match: str, key: str, value: Any) -> Case:
        change = broken("header", lambda header: header["sparsetv.values"].update({key: value}))
        return Case(f"entry_{name}.stv", "1.1", breaks, match, change)

    yield entry("unknown_dtype", "dtype F4", "dtype 'F4' is not supported", "dtype", "F4")
    yield entry("size_mismatch", "the offsets hold more than the shape", "do not hold", "shape", [1])
    yield entry("negative_dimension", "a dimension of -1", "lies outside", "shape", [-1])
    yield entry("float_dimension", "a dimension of 2.0", "expected an integer", "shape", [2.0])
    yield entry("shape_overflow", "dimensions whose product passes 2^64", "too large", "shape", [2**32, 2**33])
    yield entry("unknown_key", "a key that safetensors lacks", "unknown key", "stride", [1])


def _payload() -> Iterator[Case]:
    whole = seal(sample())
    yield Case("payload_cut_off.stv", "1.5", "the last byte is missing", "cut off", whole[:-1])
    yield Case("payload_trailing_byte.stv", "1.5", "a byte follows the last tensor", "trailing", whole + b"\0")
    hole = seal(sample(), changes={"header": lambda header: _move(header, list(header)[1:], 8), "file": _hole})
    yield Case("payload_hole.stv", "1.5", "8 bytes before the first tensor", "hole", hole)
    overlap = seal(
        sample(), changes={"header": lambda header: _move(header, ["sparsetv.values"], -1), "file": lambda f: f[:-1]}
    )
    yield Case("payload_overlap.stv", "1.5", "two tensors share a byte", "overlap", overlap)
    yield Case("payload_bit_flip.stv", "3.9", "one bit of a value", "SHA-256 of the payload", flip(whole, -9))


def _move(header: Any, names: list[str], by: int) -> None:
    for name in names:
        header[name]["data_offsets"] = [offset + by for offset in header[name]["data_offsets"]]


def _hole(file: bytes) -> bytes:
    end = 8 + int.from_bytes(file[:8], "little")
    return file[:end] + bytes(8) + file[end:]


def _canonical() -> Iterator[Case]:
    def text(name: str, breaks: str, data: bytes) -> Case:
        return Case(f"header_{name}.stv", "1.3", breaks, "header is not the canonical one", data)

    yield text("whitespace", "a space after a colon", broken("header_text", header_text(replace(b":", b": "))))
    yield text("padding_odd", "N is no multiple of 8", broken("header_text", lambda text: text + b" "))
    newline = broken("header_text", lambda text: text + b" " * 7 + b"\n")
    yield text("padding_newline", "padded with a newline", newline)
    last = broken("header", lambda header: {**drop("__metadata__")(header), "__metadata__": header["__metadata__"]})
    yield text("metadata_last", "`__metadata__` is not first", last)
    backwards = broken("header", lambda header: dict([*list(header.items())[:1], *list(header.items())[:0:-1]]))
    yield text("tensors_backwards", "the keys are not in payload order", backwards)
    order = broken("header", lambda header: header.update({n: dict(sorted(e.items())) for n, e in header.items()}))
    yield text("entry_order", "`data_offsets` before `dtype`", order)
    accent = Content(sample().tensors, [Extra("é", "tensor", "U8", [1], b"\1")])
    escaped = broken("header_text", header_text(replace("é".encode(), b"\\u00e9")), accent)
    yield text("escaped", "é as \\u00e9", escaped)


def _stored() -> Iterator[Case]:
    extra = Content(sample().tensors, [Extra("cls", "tensor", "F32", [2], bytes(8))])
    files = Content(sample().tensors, files={"config.json": b"{}"})
    probe = Content(sample().tensors, probe=[[1.0, 2.0]])
    other: Stored = {"x": ("U8", [1], b"\1")}

    def stored(
        name: str, breaks: str, match: str, change: Any, content: Content | None = None, clause: str = "2.6"
    ) -> Case:
        return Case(f"stored_{name}.stv", clause, breaks, match, broken("stored", change, content))

    missing, unknown = "missing|no frame|not a zstd frame", "not in the manifest|expected no frame"
    yield stored("without_positions", "no position stream", missing, drop("sparsetv.positions"))
    yield stored("without_values", "no value stream", missing, drop("sparsetv.values"))
    yield stored("without_extra", "an extra of the manifest is missing", missing, drop("extra.cls"), extra)
    yield stored("without_files", "the carried files are missing", missing, drop("sparsetv.files"), files)
    yield stored("without_probe", "the probe's outputs are missing", missing, drop("sparsetv.probe"), probe)
    added = {"sparsetv.other": other["x"]}
    yield stored("unknown", "a stored tensor of no known name", unknown, lambda tree: tree | added)
    added_files = {"sparsetv.files": other["x"]}
    yield stored("files_without_names", "a stream of no files", unknown, lambda tree: added_files | tree)
    canonical_match = "header is not the canonical one"
    yield stored("dtype_i8", "values stored as I8", canonical_match, _values_as("I8", []), clause="2.2")
    yield stored("out_of_order", "values before positions", canonical_match, _backwards, clause="1.5")
    bare = canonical(
        {"__metadata__": {"format": "sparsetv", "manifest_sha256": "0" * 64, "version": "1.0"}}, sort=False
    )
    no_manifest = _length(len(pad(bare)), pad(bare))
    yield Case("manifest_missing.stv", "2.1", "no `__sparsetv__`", "__sparsetv__ is missing", no_manifest)
    wrong = broken("header", put("__metadata__.manifest_sha256", "0" * 64))
    yield Case("manifest_sha256.stv", "1.4", "another SHA-256 of the manifest", "SHA-256 of the manifest", wrong)
    flipped = seal(Content([Tensor("w", "F32", [2])]))
    yield Case("manifest_bit_flip.stv", "1.4", "one bit of the manifest", "SHA-256 of the manifest", flip(flipped, -9))
    payload = broken("manifest", put("payload_sha256", "0" * 64))
    yield Case("payload_sha256.stv", "3.9", "another SHA-256 of the payload", "SHA-256 of the payload", payload)


def _values_as(dtype: str, more: list[int]) -> Change:
    """The value stream under another dtype and with more dimensions."""

    def change(tree: Stored) -> None:
        _, shape, data = tree["sparsetv.values"]
        tree["sparsetv.values"] = (dtype, [*more, *shape], data)

    return change


def _backwards(tree: Stored) -> Stored:
    return dict(reversed(tree.items()))


def _versions() -> Iterator[Case]:
    newer = "format version 2.0"
    yield Case("version_2.stv", "9.1", "a greater MAJOR", newer, seal(sample(), version="2.0"))
    wrong = {"without_minor": "1", "of_three_parts": "1.0.1", "text": "one.0"}
    for name, version in wrong.items():
        data = seal(sample(), version=version)
        yield Case(f"version_{name}.stv", "9.1", f"version {version!r}", "version|canonical", data)
