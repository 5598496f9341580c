"""Strict reading of a safetensors header: of task files and of checkpoints (SPEC 1)."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsetv.dtypes import SIZES
from sparsetv.errors import FormatError, LimitError, NotFoundError
from sparsetv.wire import canonical
from sparsetv.wire.fields import Fields, as_integer, as_shape, as_text

HEADER_BYTES = 25_000_000
"""SPEC 1.2: largest safetensors header; the hub's parser refuses more."""

HEADER_DEPTH = 4
"""SPEC 1.2: deepest nesting of a header."""

_MAGICS = (
    (b"version https://git-lfs", "a git-LFS pointer, not the file; fetch it with `git lfs pull`"),
    (b"# xet version", "a Xet pointer, not the file; fetch it with the hub's client"),
    (b"<!DOCTYPE", "an HTML page; the download returned an error page, fetch it again"),
    (b"<!doctype", "an HTML page; the download returned an error page, fetch it again"),
    (b"<html", "an HTML page; the download returned an error page, fetch it again"),
    (b"PK\x03\x04", "a zip archive or a PyTorch pickle; `sparsetv convert` makes a safetensors checkpoint of it"),
    (b"\x80\x02", "a Python pickle; `sparsetv convert` makes a safetensors checkpoint of it"),
    (b"\x80\x03", "a Python pickle; `sparsetv convert` makes a safetensors checkpoint of it"),
    (b"\x80\x05", "a Python pickle; `sparsetv convert` makes a safetensors checkpoint of it"),
    (b"\x80\x04", "a Python pickle; `sparsetv convert` makes a safetensors checkpoint of it"),
    (b"GGUF", "a GGUF file; use the safetensors checkpoint it was made from"),
)
_PREFIX = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a safetensors file; offsets count from the start of the payload."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Header:
    """A parsed header: `size` bytes with its length prefix, tensors by name in file order, metadata."""

    size: int
    tensors: dict[str, Entry]
    metadata: dict[str, str]


def header_size(first: bytes, *, file_size: int, what: str) -> int:
    """Bytes of length prefix and header, from the file's first bytes.

    Args:
        first: At least the first 16 bytes, or the whole of a shorter file.
        file_size: Size of the file in bytes.
        what: The file, for the message.

    Raises:
        FormatError: It is no safetensors file; the message says what it looks like.
    """
    for magic, meaning in _MAGICS:
        if first.startswith(magic) and first[_PREFIX : _PREFIX + 1] != b"{":
            raise FormatError(f"{what}: is {meaning}")
    if file_size < _PREFIX or len(first) < _PREFIX:
        raise FormatError(f"{what}: {file_size} bytes are too few for a safetensors file; fetch it again")
    length = int.from_bytes(first[:_PREFIX], "little")
    if length > HEADER_BYTES:
        raise FormatError(f"{what}: header length {length} exceeds {HEADER_BYTES}; no safetensors file, fetch it again")
    if _PREFIX + length > file_size:
        raise FormatError(f"{what}: header reaches to byte {_PREFIX + length} of {file_size}; cut off, fetch it again")
    if length < 2 or (len(first) > _PREFIX and first[_PREFIX : _PREFIX + 1] != b"{"):
        raise FormatError(f"{what}: header at byte 8 does not start with '{{'; no safetensors file, fetch it again")
    return _PREFIX + length


def parse_header(data: bytes, *, file_size: int | None, what: str) -> Header:
    """Parse length prefix and header; tensors must cover the payload without hole or overlap.

    Args:
        data: Exactly the bytes that `header_size` counted.
        file_size: Size of the file in bytes; None where the payload is not at hand.
        what: The file, for the message.

    Raises:
        FormatError: The header breaks the safetensors format or names an unknown dtype.
    """
    value = canonical.loads(data[_PREFIX:].rstrip(b" "), what=f"{what}: header", depth=HEADER_DEPTH)
    if not isinstance(value, dict):
        raise FormatError(f"{what}: header is not an object")
    metadata = _metadata(value.pop("__metadata__", {}), what)
    tensors = {as_text(name, where=what): _entry(item, f"{what}: {name}") for name, item in value.items()}
    tensors = dict(sorted(tensors.items(), key=lambda pair: (pair[1].start, pair[1].stop)))
    _check_cover(tensors, payload=None if file_size is None else file_size - len(data), what=what)
    return Header(len(data), tensors, metadata)


def read_header(path: Path | str, *, payload: bool = True) -> Header:
    """Read and parse the header of a safetensors file; its payload is not read.

    Args:
        path: The file.
        payload: Whether the tensors must cover the file's payload exactly.

    Raises:
        FormatError: It is no safetensors file, or its header breaks the format.
        OSError: It cannot be read.
    """
    size = Path(path).stat().st_size
    with Path(path).open("rb") as file:
        length = header_size(file.read(64), file_size=size, what=str(path))
        file.seek(0)
        return parse_header(file.read(length), file_size=size if payload else None, what=str(path))


def is_of_format(path: Path | str, name: str) -> bool:
    """Whether a file is a safetensors file whose metadata say `format: NAME`; nothing else of it is checked."""
    try:
        return read_header(path, payload=False).metadata.get("format") == name
    except (FormatError, OSError):
        return False


def _metadata(value: Any, what: str) -> dict[str, str]:
    where = f"{what}: __metadata__"
    return {key: as_text(item, where=where) for key, item in Fields(value, where=where).rest().items()}


def _entry(value: Any, where: str) -> Entry:
    fields = Fields(value, where=where)
    dtype, shape = fields.text("dtype"), as_shape(fields.take("shape"), where=where)
    offsets = [as_integer(item, where=where) for item in fields.items("data_offsets")]
    fields.done()
    if dtype not in SIZES:
        raise FormatError(f"{where}: dtype {dtype!r} is not supported; supported are {', '.join(SIZES)}")
    if len(offsets) != 2 or offsets[1] - offsets[0] != SIZES[dtype] * math.prod(shape):
        raise FormatError(f"{where}: offsets {offsets} do not hold {dtype} {shape}")
    return Entry(dtype, shape, offsets[0], offsets[1])


def _check_cover(tensors: dict[str, Entry], *, payload: int | None, what: str) -> None:
    end = 0
    for name, entry in tensors.items():
        if entry.start != end:
            kind = "overlap before" if entry.start < end else "hole before"
            raise FormatError(f"{what}: {kind} {name} at payload byte {min(entry.start, end)}")
        end = entry.stop
    if payload is not None and end != payload:
        kind = "is cut off" if end > payload else "has trailing bytes"
        raise FormatError(f"{what}: payload {kind}: {payload} bytes, tensors end at {end}")


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored tensor: name, dtype, shape and place in the payload."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def place(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> list[Stored]:
    """Put tensors (name, dtype, shape) one behind the other."""
    stored, start = [], 0
    for name, dtype, shape in tensors:
        stop = start + SIZES[dtype] * math.prod(shape)
        stored.append(Stored(name, dtype, shape, start, stop))
        start = stop
    return stored


def encode_header(stored: list[Stored], metadata: dict[str, str] | None) -> bytes:
    """A safetensors header in canonical form: metadata first, then tensors in payload order."""
    value: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    for item in stored:
        value[item.name] = {"dtype": item.dtype, "shape": list(item.shape), "data_offsets": [item.start, item.stop]}
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > HEADER_BYTES:
        raise LimitError(f"the safetensors header would take {len(text)} bytes, limit {HEADER_BYTES}")
    return len(text).to_bytes(8, "little") + text


def map_file(path: Path) -> memoryview:
    """The bytes of one of our files, mapped, not read.

    Raises:
        NotFoundError: There is no such file.
        FormatError: It is no regular file, or empty.
    """
    if not path.exists():
        raise NotFoundError(f"{path}: no such file")
    if not path.is_file():
        raise FormatError(f"{path}: not a regular file; name a .stv file")
    if path.stat().st_size == 0:
        raise FormatError(f"{path}: empty file; fetch it again")
    mapped: memoryview = np.memmap(path, np.uint8, "r").data
    return mapped
