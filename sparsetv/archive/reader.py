"""Bytes of an archive to files (ARCHIVE). From any bytes at all: the files, or FormatError."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from sparsetv.archive import layout
from sparsetv.archive.chunk import decode_chunk
from sparsetv.archive.cutting import chunk_count, chunks, fits, split
from sparsetv.archive.elements import Kind, kind_of
from sparsetv.archive.manifest import (
    FORMAT,
    BaseTensor,
    FileEntry,
    Manifest,
    TensorEntry,
    check_archive_version,
    from_json,
)
from sparsetv.arrays import Bytes
from sparsetv.container.envelope import open_manifest
from sparsetv.container.frames import check_text, decompress
from sparsetv.container.limits import JSON_BYTES, Limits
from sparsetv.errors import FormatError, advising
from sparsetv.threads import in_order
from sparsetv.wire.header import Entry, Header, header_size, parse_header

_ADVICE = "fetch the archive again, or make it anew"


@dataclass(frozen=True, slots=True)
class Opened:
    """An archive whose header, manifest and data hash have been checked; nothing of it is decoded.

    Attributes:
        manifest: The manifest.
        data: The stored tensor `sparsetv.data`.
        starts: Where the bytes of each file begin in `data`, by its name.
        headers: The parsed header of each weight file, and its bytes, by the file's name.
        size: Bytes of the archive.
        what: The file, for messages.
    """

    manifest: Manifest
    data: memoryview
    starts: dict[str, int]
    headers: dict[str, tuple[Header, bytes]]
    size: int
    what: str


@dataclass(frozen=True, slots=True)
class Part:
    """One chunk: where its bytes lie, which elements it has, and those of the base that it needs.

    Attributes:
        start, stop: Place in the archive's data.
        first, count: Elements of the tensor.
        base: Index of the base tensor, None where the chunk is coded on its own.
    """

    start: int
    stop: int
    first: int
    count: int
    base: int | None


@advising(_ADVICE)
def open_bytes(data: bytes | memoryview, *, what: str = "archive") -> Opened:
    """Check header, manifest, data hash and the headers of weight files.

    Args:
        data: The whole archive.
        what: Its name, for messages.

    Raises:
        FormatError: Some clause of ARCHIVE 1 to 3 does not hold.
        LimitError: Parsing header and manifest would pass the memory limit.
    """
    view = memoryview(data)
    size = header_size(bytes(view[:32]), file_size=len(view), what=what)
    limits = Limits()
    limits.allow(JSON_BYTES * size, what=what)
    raw = bytes(view[:size])
    header = parse_header(raw, file_size=len(view), what=what)
    check_kind(header, what)
    parts = {name: view[size + entry.start : size + entry.stop] for name, entry in header.tensors.items()}
    if list(parts) != [layout.DATA, layout.MANIFEST]:
        raise FormatError(f"{what}: expected stored tensors {layout.DATA} and {layout.MANIFEST}, found {list(parts)}")
    frame, stored = parts[layout.MANIFEST], parts[layout.DATA]
    sha256 = header.metadata.get("manifest_sha256")
    value = open_manifest(frame, sha256=sha256, what=what, limits=limits, header_bytes=size)
    try:
        manifest = from_json(value)
        expected = layout.header(
            data_bytes=manifest.data_bytes,
            manifest_bytes=len(frame),
            manifest_sha256=hashlib.sha256(frame).hexdigest(),
            version=manifest.version,
        )
        if raw != expected:
            raise FormatError("header is not the canonical one of its manifest")
        if hashlib.sha256(stored).hexdigest() != manifest.data_sha256:
            raise FormatError("SHA-256 of the data differs from the manifest's; damaged, fetch it again")
        starts = _starts(manifest)
        return Opened(manifest, stored, starts, _headers(manifest, stored, starts), len(view), what)
    except FormatError as error:
        raise FormatError(f"{what}: {error}") from None


def check_kind(header: Header, what: str) -> None:
    """Refuse what is no archive, and one of a newer major version."""
    if header.metadata.get("format") == "sparsetv":
        raise FormatError(f"{what}: a sparsetv task file, no archive; use `sparsetv stitch`")
    if header.metadata.get("format") != FORMAT:
        raise FormatError(f"{what}: a safetensors file, but no sparsetv archive; is it a model's weights?")
    try:
        check_archive_version(header.metadata.get("version", ""))
    except FormatError as error:
        raise FormatError(f"{what}: {error}") from None


def _headers(manifest: Manifest, data: memoryview, starts: dict[str, int]) -> dict[str, tuple[Header, bytes]]:
    """Header of each weight file, with what the manifest says of its tensors compared."""
    found = {}
    for file in manifest.files:
        if file.kind != "weights":
            continue
        start, (size, stored) = starts[file.name], file.header
        frame, what = data[start : start + stored], f"{file.name}: header"
        check_text(frame, size=size, what=what)
        raw = decompress(frame, size=size, what=what).tobytes()
        if header_size(raw[:32], file_size=file.size, what=file.name) != size:
            raise FormatError(f"{file.name}: its header is not of the {size} bytes that the manifest says")
        header = parse_header(raw, file_size=file.size, what=file.name)
        if len(header.tensors) != len(file.tensors):
            raise FormatError(f"{file.name}: {len(header.tensors)} tensors, {len(file.tensors)} in the manifest")
        for (name, entry), tensor in zip(header.tensors.items(), file.tensors, strict=True):
            _check_tensor(manifest.base, name, entry, tensor)
        found[file.name] = (header, raw)
    return found


def _starts(manifest: Manifest) -> dict[str, int]:
    """Where the bytes of each file begin in the archive's data."""
    offsets = accumulate((file.data_bytes for file in manifest.files), initial=0)
    return {file.name: start for file, start in zip(manifest.files, offsets)}  # noqa: B905  the last offset is the end


def _check_tensor(base: tuple[BaseTensor, ...], name: str, entry: Entry, tensor: TensorEntry) -> None:
    if tensor.base is not None:
        other = base[tensor.base]
        if not fits(entry.dtype, entry.shape, other.dtype, other.shape):
            raise FormatError(
                f"{name}: {entry.dtype} {entry.shape} cannot be coded against {other.name}, {other.dtype} {other.shape}"
            )
    expected = chunk_count(*split(entry, None if tensor.base is None else base[tensor.base].shape))
    if expected != len(tensor.chunks):
        raise FormatError(f"{name}: {len(tensor.chunks)} chunks, its shape has {expected}")


def tensor_parts(opened: Opened, file: FileEntry) -> Iterator[tuple[str, Entry, list[Part]]]:
    """Name, header entry and chunks of each tensor of a weight file."""
    at = opened.starts[file.name] + file.header[1]
    header = opened.headers[file.name][0]
    for (name, entry), tensor in zip(header.tensors.items(), file.tensors, strict=True):
        shape = None if tensor.base is None else opened.manifest.base[tensor.base].shape
        parts = []
        for (first, count, shared), size in zip(chunks(*split(entry, shape)), tensor.chunks, strict=True):
            parts.append(Part(at, at + size, first, count, tensor.base if shared else None))
            at += size
        yield name, entry, parts


def restore_file(opened: Opened, file: FileEntry, base: Callable[[int], Bytes]) -> Iterator[Bytes | bytes]:
    """The bytes of one file in pieces, in order; size and SHA-256 are compared at the end.

    Args:
        opened: The archive.
        file: One of its files, of kind `weights` or `stored`.
        base: Bytes of a base tensor by its index in the manifest.

    Raises:
        FormatError: A chunk is no code of its elements, or the file is not the one that was archived.
    """
    total, size = hashlib.sha256(), 0
    for piece in _pieces(opened, file, base):
        view = piece.data if isinstance(piece, np.ndarray) else memoryview(piece)
        total.update(view)
        size += view.nbytes
        yield piece
    if size != file.size or total.hexdigest() != file.sha256:
        raise FormatError(
            f"{opened.what}: {file.name} decodes to other bytes than were archived; damaged, fetch it again"
        )


def _pieces(opened: Opened, file: FileEntry, base: Callable[[int], Bytes]) -> Iterator[Bytes | bytes]:
    if file.kind == "stored":
        start = opened.starts[file.name]
        frame = opened.data[start : start + file.stored]
        yield decompress(frame, size=file.size, what=f"{opened.what}: {file.name}")
        return
    yield opened.headers[file.name][1]
    with advising(_ADVICE):
        yield from in_order(_chunk_jobs(opened, file, base))


def _chunk_jobs(opened: Opened, file: FileEntry, base: Callable[[int], Bytes]) -> Iterator[Callable[[], Bytes]]:
    for name, entry, parts in tensor_parts(opened, file):
        kind = kind_of(entry.dtype)
        for number, part in enumerate(parts):
            raw = None if part.base is None else base(part.base)
            what = f"{opened.what}: {name}: chunk {number}"
            yield lambda part=part, raw=raw, kind=kind, what=what: _decode(opened.data, part, raw, kind, what)  # type: ignore[misc]


def _decode(data: memoryview, part: Part, base: Bytes | None, kind: Kind, what: str) -> Bytes:
    width = kind.width
    known = None if base is None else base[part.first * width : (part.first + part.count) * width].view(kind.bits)
    return decode_chunk(data[part.start : part.stop], known, kind, count=part.count, what=what).view("u1")
