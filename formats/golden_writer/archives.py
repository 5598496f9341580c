"""Archives from ARCHIVE.md alone, in plain Python; shares no code with sparsetv."""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from golden_writer.content import sha256
from golden_writer.frames import frame
from golden_writer.writer import canonical, pad

Change = Callable[[Any], Any]

WIDTHS = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "BF16": 2, "F16": 2, "F32": 4, "I64": 8, "F64": 8, "C64": 4}
"""Bytes per element; a complex number is two."""
EXPONENTS = {
    "F64": (52, 2047),
    "F32": (23, 255),
    "C64": (23, 255),
    "BF16": (7, 255),
    "F16": (10, 31),
    "F8_E4M3": (3, 15),
}
NONE = 0xFFFF


@dataclass
class Tensor:
    """One tensor: dtype, shape, elements as unsigned integers, index of its base tensor, chunks as they are stored."""

    name: str
    dtype: str
    shape: list[int]
    elements: list[int]
    base: int | None = None
    chunks: list[bytes] = field(default_factory=list)

    @property
    def data(self) -> bytes:
        """Its bytes."""
        return join(self.elements, WIDTHS[self.dtype])


@dataclass
class File:
    """One file: tensors of weights, or the content of another."""

    name: str
    tensors: list[Tensor] | None = None
    content: bytes = b""
    kind: str = "weights"

    @property
    def header(self) -> bytes:
        """Length prefix and header of weights, deliberately not canonical: two spaces of padding more than needed."""
        entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        at = 0
        for tensor in self.tensors or []:
            stop = at + len(tensor.data)
            entries[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, stop]}
            at = stop
        text = canonical(entries, sort=False) + b"  "
        return struct.pack("<Q", len(text)) + text

    @property
    def whole(self) -> bytes:
        """The file."""
        return self.content if self.tensors is None else self.header + b"".join(t.data for t in self.tensors)


def join(numbers: list[int], width: int) -> bytes:
    """Little-endian integers, one behind the other."""
    return b"".join(number.to_bytes(width, "little") for number in numbers)


def stream(data: bytes) -> bytes:
    """A stream (ARCHIVE 4.4): a frame where that is shorter."""
    packed = frame(data)
    stored = packed if len(packed) < len(data) else data
    return struct.pack("<I", len(stored)) + stored if data else b""


def planes(numbers: list[int], width: int) -> bytes:
    """Byte planes, lowest first, a stream each."""
    return b"".join(stream(bytes(number >> 8 * plane & 255 for number in numbers)) for plane in range(width))


def code(numbers: list[int], width: int, shift: int = 0) -> bytes:
    """ARCHIVE 6.1."""
    if not numbers:
        return b""
    out = bytes([shift]) + stream(bytes(min(255, number >> shift) for number in numbers))
    if shift % 8:
        nibbles = [number >> shift - 4 & 15 for number in numbers] + [0] * (len(numbers) % 2)
        out += stream(bytes(low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2], strict=True)))
    out += b"".join(stream(bytes(number >> 8 * plane & 255 for number in numbers)) for plane in range(shift // 8))
    if shift < 8 * width - 8:
        out += planes([(number >> shift) - 255 for number in numbers if number >> shift >= 255], width)
    return out


def difference(base: int, tuned: int, dtype: str) -> int:
    """ARCHIVE 5.2 and 5.3."""
    width = 8 * WIDTHS[dtype]
    wrapped = (_rank(tuned, dtype) - _rank(base, dtype)) % (1 << width)
    signed = wrapped - (1 << width) if wrapped >> width - 1 else wrapped
    return 2 * signed if signed >= 0 else -2 * signed - 1


def _rank(element: int, dtype: str) -> int:
    width = 8 * WIDTHS[dtype]
    signed = element - (1 << width) if element >> width - 1 else element
    return signed ^ (1 << width - 1) - 1 if signed < 0 and dtype in EXPONENTS else signed


def by_class(base: list[int], dtype: str, top: int) -> list[list[int]]:
    """Elements of each class in order (ARCHIVE 5.4)."""
    if top == NONE:
        return [list(range(len(base)))]
    shift, mask = EXPONENTS[dtype]
    exponents = [element >> shift & mask for element in base]
    order = sorted(range(len(base)), key=lambda place: exponents[place])
    found: list[list[int]] = [[] for _ in range(8)]
    for place in order:
        found[min(7, max(0, exponents[place] - (top - 7)))].append(place)
    return found


def offset(base: list[int], tuned: list[int], dtype: str, *, top: int = NONE, shift: int = 0) -> bytes:
    """A chunk of mode 4."""
    out = b"\4" + struct.pack("<H", top)
    for places in by_class(base, dtype, top):
        out += code([difference(base[p], tuned[p], dtype) for p in places], WIDTHS[dtype], shift)
    return out


def sparse(base: list[int], tuned: list[int], dtype: str, *, top: int = NONE) -> bytes:
    """A chunk of mode 5, at shifts of 0."""
    classes = by_class(base, dtype, top)
    out, high, changed = b"\5" + struct.pack("<H", top), b"", []
    for places in classes:
        kept = [i for i, p in enumerate(places) if base[p] != tuned[p]]
        out += struct.pack("<IB", len(kept), 0)
        for before, here in zip([-1, *kept], kept, strict=False):
            runs, rest = divmod(here - before - 1, 255)
            high += b"\xff" * runs + bytes([rest])
        changed += [places[i] for i in kept]
    out += struct.pack("<I", len(high)) + stream(high)
    return out + code([difference(base[p], tuned[p], dtype) for p in changed], WIDTHS[dtype])


def seal(files: list[File], base: list[Tensor], *, changes: Mapping[str, Change] | None = None) -> bytes:
    """An archive in layers that a caller may change: `data`, `manifest`, `text`, `frame`, `header`, `file`."""

    def at(name: str, value: Any) -> Any:
        changed = (changes or {}).get(name, lambda value: value)(value)
        return value if changed is None else changed

    data = at("data", b"".join(map(_stored, files)))
    text = at("text", canonical(at("manifest", _manifest(files, base, data))))
    packed = at("frame", frame(text))
    metadata = {"format": "sparsetv-archive", "manifest_sha256": sha256(packed), "version": "1.0"}
    ends = [len(data), len(data) + len(packed)]
    header = {
        "__metadata__": metadata,
        "sparsetv.data": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, ends[0]]},
        "__sparsetv__": {"dtype": "U8", "shape": [len(packed)], "data_offsets": ends},
    }
    raw = at("header", pad(canonical(header, sort=False)).ljust(504))
    return bytes(at("file", struct.pack("<Q", len(raw)) + raw + data + packed))


def _stored(file: File) -> bytes:
    if file.tensors is None:
        return frame(file.content) if file.kind == "stored" else b""
    return frame(file.header) + b"".join(chunk for tensor in file.tensors for chunk in tensor.chunks)


def _manifest(files: list[File], base: list[Tensor], data: bytes) -> dict[str, Any]:
    return {
        "base": {
            "commit": None,
            "dtypes": [tensor.dtype for tensor in base],
            "names": [tensor.name for tensor in base],
            "repo": None,
            "sha256": [sha256(tensor.data) for tensor in base],
            "shapes": [tensor.shape for tensor in base],
        },
        "data_sha256": sha256(data),
        "features": {"optional": [], "required": []},
        "files": [_file(file) for file in files],
        "name": "golden",
        "version": "1.0",
        "writer": "golden/1",
    }


def _file(file: File) -> dict[str, Any]:
    value = {"kind": file.kind, "name": file.name, "sha256": sha256(file.whole), "size": len(file.whole)}
    if file.tensors is None:
        return value | ({"stored": len(frame(file.content))} if file.kind == "stored" else {})
    tensors = [{"base": tensor.base, "chunks": [len(chunk) for chunk in tensor.chunks]} for tensor in file.tensors]
    return value | {"header": [len(file.header), len(frame(file.header))], "tensors": tensors}


def base_file(base: list[Tensor]) -> bytes:
    """The base as a safetensors file."""
    return File("base.safetensors", base).whole


def entries(tensor: Tensor) -> int:
    """Elements of a tensor."""
    return prod(tensor.shape)
