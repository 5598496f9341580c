"""The golden archives, valid and invalid; all share one base."""

import struct
from collections.abc import Iterator
from typing import Any

from golden_writer.archives import NONE, File, Tensor, join, offset, planes, seal, sparse, stream
from golden_writer.case import Case, drop, flip, put
from golden_writer.frames import frame, reframe

BITS = [0x3F80, 0x3F00, 0xBE80, 0x3E00, 0x3D80, 0x3C00, 0x3B00, 0x3A00, 0x0000, 0x8000, 0x7F80, 0xFFC1]
"""bfloat16: powers of two, zeros of both signs, infinity, a NaN with payload."""
MOVED = [0x3F81, 0x3EFF, 0xBE81, 0x3E00, 0x3D90, 0x3B00, 0x3B00, 0x3A01, 0x8000, 0x0000, 0x7F81, 0xFFC1]

BASE = [
    Tensor("a", "BF16", [3, 4], BITS),
    Tensor("b", "I8", [80], [*range(40), *range(216, 256)]),
    Tensor("c", "F32", [2], [0x3F800000, 0xBF800000]),
    Tensor("d", "C64", [1], [0x3F800000, 0x40000000]),
    Tensor("e", "F64", [2, 0], []),
    Tensor("f", "F64", [1], [0x3FF0000000000000]),
]
"""Tensors of the base, in ascending order of names."""


def base_tensor(number: int, name: str, tuned: list[int], chunks: list[bytes]) -> Tensor:
    """A tensor against one of the base."""
    base = BASE[number]
    return Tensor(name, base.dtype, base.shape, tuned, number, chunks)


def weights(*tensors: Tensor, name: str = "model.safetensors") -> File:
    """A weight file."""
    return File(name, list(tensors))


def used(*files: File) -> tuple[list[File], list[Tensor]]:
    """Files, and the base tensors that they need, with indices into those."""
    tensors = [tensor for file in files for tensor in file.tensors or [] if tensor.base is not None]
    needed = sorted({tensor.base for tensor in tensors if tensor.base is not None})
    for tensor in tensors:
        tensor.base = needed.index(tensor.base or 0)
    return list(files), [BASE[number] for number in needed]


def valid() -> Iterator[tuple[str, list[File], bytes]]:
    """Name, files that come back, and the archive, of every valid one."""
    for name, files in _valid():
        sealed, base = used(*files)
        yield name, sealed, seal(sealed, base)


def _valid() -> Iterator[tuple[str, list[File]]]:
    yield "same", [weights(base_tensor(0, "a", BITS, [b""]))]
    yield "offset", [weights(base_tensor(0, "a", MOVED, [offset(BITS, MOVED, "BF16")]))]
    for shift in (4, 8):
        yield f"offset_shift_{shift}", [weights(base_tensor(0, "a", MOVED, [offset(BITS, MOVED, "BF16", shift=shift)]))]
    yield "offset_classes", [weights(base_tensor(0, "a", MOVED, [offset(BITS, MOVED, "BF16", top=127)]))]
    yield "offset_low_top", [weights(base_tensor(0, "a", MOVED, [offset(BITS, MOVED, "BF16", top=3)]))]
    yield "sparse", [weights(base_tensor(0, "a", MOVED, [sparse(BITS, MOVED, "BF16")]))]
    yield "sparse_classes", [weights(base_tensor(0, "a", MOVED, [sparse(BITS, MOVED, "BF16", top=126)]))]
    numbers = BASE[1].elements
    more = [(number + 1) % 256 for number in numbers]
    yield "integers", [weights(base_tensor(1, "b", more, [offset(numbers, more, "I8")]))]
    yield (
        "xor",
        [weights(base_tensor(1, "b", more, [b"\3" + planes([x ^ y for x, y in zip(numbers, more, strict=True)], 1)]))],
    )
    wide = [0x3F800001, 0x3F800000]
    cut = base_tensor(2, "c", wide, [b"\1" + join(wide, 4)])
    pair = [0x3F800001, 0xC0000000]
    complex_pair = base_tensor(3, "d", pair, [offset(BASE[3].elements, pair, "C64", top=128, shift=16)])
    empty = base_tensor(4, "e", [], [])
    double = base_tensor(
        5, "f", [0xBFF0000000000001], [offset(BASE[5].elements, [0xBFF0000000000001], "F64", top=1023)]
    )
    yield "dtypes", [weights(empty, double, cut, complex_pair)]
    alone = Tensor("new", "F16", [3], [0x3C00, 0x8000, 0x7E01], None, [b"\2" + planes([0x3C00, 0x8000, 0x7E01], 2)])
    grown = Tensor(
        "a", "BF16", [4, 4], [*MOVED, 1, 2, 3, 4], 0, [sparse(BITS, MOVED, "BF16"), b"\1" + join([1, 2, 3, 4], 2)]
    )
    shorter = Tensor("cut", "BF16", [1, 4], BITS[:4], 0, [b""])
    yield "rows", [weights(grown, shorter, alone)]
    index = File("model.safetensors.index.json", None, b'{"weight_map": {}}\n', "stored")
    shards = [weights(Tensor("x", "U8", [1], [7], None, [b"\1\7"]), name=f"model-{n}-of-2.safetensors") for n in "12"]
    shards[1].tensors = [base_tensor(0, "a", BITS, [b""])]
    empty_file = File("vocab.txt", None, b"", "stored")
    yield "files", [File("config.json", None, b"{}", "base"), *shards, index, empty_file]


def invalid() -> Iterator[Case]:
    """Every invalid golden archive."""
    yield from _file_cases()
    yield from _manifest_cases()
    yield from _chunk_cases()


def _sample() -> tuple[list[File], list[Tensor]]:
    other = File("notes.txt", None, b"notes", "stored")
    return used(weights(base_tensor(0, "a", MOVED, [sparse(BITS, MOVED, "BF16")])), other)


def _broken(name: str, clause: str, breaks: str, match: str, **changes: Any) -> Case:
    return Case(f"{name}.stv", f"archive {clause}", breaks, match, seal(*_sample(), changes=changes))


def _file_cases() -> Iterator[Case]:
    yield _broken("cut_off", "1.1", "the last byte is missing", "cut off", file=lambda data: data[:-1])
    yield _broken("trailing", "1.1", "a byte behind the last tensor", "trailing", file=lambda data: data + b"\0")
    yield _broken("header_502", "1.2", "N is 496", "canonical", header=lambda text: text.rstrip(b" ").ljust(496))
    yield _broken("header_tab", "1.2", "padded with a tab", "not JSON|canonical", header=lambda text: text[:-1] + b"\t")
    other = b"sparsetv-archiv2"
    match = "no sparsetv archive"
    yield _broken("format", "1.3", "another format", match, header=lambda t: t.replace(b"sparsetv-archive", other))
    newer = lambda text: text.replace(b'"version":"1.0"', b'"version":"2.0"')  # noqa: E731
    yield _broken("newer", "1.3", "version 2.0", "version 2.0", header=newer)
    yield _broken("data_flip", "2.3", "one bit of the data", "SHA-256 of the data", file=lambda data: flip(data, 520))
    yield _broken(
        "manifest_flip", "1.3", "one bit of the manifest", "SHA-256 of the manifest", file=lambda d: flip(d, -9)
    )
    bomb = lambda data: reframe(data, size=2**40)  # noqa: E731
    yield _broken("manifest_bomb", "2.1", "a manifest of 2^40 bytes", "limit 67108864", frame=bomb)


def _manifest_cases() -> Iterator[Case]:
    def edit(name: str, clause: str, breaks: str, match: str, path: str, value: Any) -> Case:
        return _broken(name, clause, breaks, match, manifest=put(path, value))

    yield edit("required", "2.1", "an unknown required feature", "needs 'future'", "features.required", ["future"])
    yield _broken("no_name", "2.1", "no name", "missing key 'name'", manifest=drop("name"))
    yield edit("unknown_key", "2.1", "a key of no clause", "unknown key 'x'", "x", 1)
    yield edit(
        "base_dtype", "3.5", "the base is F16, the tensor BF16", "cannot be coded against", "base.dtypes.0", "F16"
    )
    yield edit("base_shape", "3.5", "a base of other columns", "cannot be coded against", "base.shapes.0", [4, 3])
    yield edit("base_index", "3.4", "an index past the base", "outside", "files.0.tensors.0.base", 1)
    yield edit(
        "base_unused", "2.2", "a base that no tensor needs", "no tensor needs it", "files.0.tensors.0.base", None
    )
    yield edit("no_files", "2.4", "no file", "allowed are 1 to", "files", [])
    yield edit("kind", "2.4", "an unknown kind", "unknown kind 'link'", "files.1.kind", "link")
    yield edit("file_python", "2.5", "a file of code", "no kind that archives hold", "files.1.name", "notes.py")
    yield edit("file_path_file", "2.5", "a .pth file", "no kind that archives hold", "files.1.name", "site.pth")
    yield edit("file_parent", "2.5", "a file outside the directory", "portable path", "files.1.name", "../notes.txt")
    yield edit("weights_name", "2.5", "weights called .txt", "end in .safetensors", "files.0.name", "a.txt")
    yield edit("file_large", "2.5", "2^26 + 1 bytes", "limit 67108864", "files.1.size", 2**26 + 1)
    yield edit("file_order", "2.4", "names not ascending", "not ascending", "files.1.name", "a.txt")
    yield edit("sizes", "3.1", "one byte of data more", "canonical", "files.1.stored", 19)
    yield edit("no_chunks", "3.4", "no chunk", "0 chunks, its shape has 1|canonical", "files.0.tensors.0.chunks", [])
    more = [{"base": None, "chunks": []}]
    yield edit(
        "no_tensors", "3.4", "another number of tensors", "tensors|canonical|needs it", "files.0.tensors", more * 2
    )
    yield edit("weights_size", "3.3", "a payload of one byte more", "payload", "files.0.size", 120)


def _one(name: str, clause: str, breaks: str, match: str, chunk: bytes, number: int = 0) -> Case:
    tensor = base_tensor(number, "t", BASE[number].elements, [chunk])
    return Case(f"{name}.stv", f"archive {clause}", breaks, match, seal(*used(weights(tensor))))


def _chunk_cases() -> Iterator[Case]:
    yield _one("mode_6", "4.2", "mode 6", "unknown mode 6", b"\6")
    yield _one("raw_short", "4.3", "23 of 24 bytes", "ends early", b"\1" + bytes(23))
    yield _one("raw_long", "4.3", "25 of 24 bytes", "left over", b"\1" + bytes(25))
    yield _one(
        "stream_long", "4.4", "a stream of 13 bytes", "is stored in 13", b"\2" + struct.pack("<I", 13) + bytes(13)
    )
    junk = b"\2" + struct.pack("<I", 3) + b"abc"
    yield _one("stream_no_frame", "4.4", "a shorter stream that is no frame", "not a zstd frame", junk)
    large = frame(bytes(1 << 20), level=1)
    bomb = b"\3" + struct.pack("<I", len(large)) + large
    yield _one("stream_bomb", "4.4", "a frame of 2^20 bytes for 80", "declares 1048576 bytes", bomb, number=1)
    alone = Tensor("t", "U8", [2], [0, 0], None, [b""])
    yield Case("alone_same.stv", "archive 4.2", "no bytes and no base", "has no base", seal([weights(alone)], []))
    alone = Tensor("t", "U8", [2], [0, 0], None, [b"\3" + stream(bytes(2))])
    yield Case("alone_xor.stv", "archive 4.2", "xor without a base", "has no base", seal([weights(alone)], []))
    yield _one("top", "5.4", "a top of 256", "top exponent of 256", b"\4" + struct.pack("<H", 256))
    yield _one("top_integer", "5.4", "classes of integers", "top exponent of 0", b"\4" + struct.pack("<H", 0), number=1)
    start = b"\4" + struct.pack("<H", NONE)
    yield _one("shift_2", "6.1", "a shift of 2", "a shift of 2 bits", start + b"\2")
    yield _one("shift_12", "6.1", "a shift of 12 in 16 bits", "a shift of 12 bits", start + b"\x0c")
    head = stream(b"\xff" + bytes(11))
    yield _one(
        "escape", "6.2", "an escaped number of 17 bits", "leaves 16 bits", start + b"\0" + head + planes([65535], 2)
    )
    gap = b"\5" + struct.pack("<HIBI", NONE, 1, 0, 1) + stream(b"\x0c")
    yield _one("gap", "4.3", "a position past the chunk", "leaves a piece|outside a piece", gap + b"\0" + stream(b"\1"))
    many = b"\5" + struct.pack("<HIB", NONE, 13, 0)
    yield _one("changed", "4.3", "13 of 12 elements changed", "13 of 12 elements", many)
    size = b"\5" + struct.pack("<HIBI", NONE, 1, 0, 1 << 30)
    yield _one("high_size", "4.3", "2^30 bytes of gaps", "more than its elements can take", size)
    wrong = [*BITS[:-1], 0]
    moved = Tensor("t", "BF16", [3, 4], BITS, 0, [offset(BITS, wrong, "BF16")])
    yield Case("other_content.stv", "archive 7.1", "another element", "other bytes", seal(*used(weights(moved))))
