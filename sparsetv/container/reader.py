"""Bytes to SparseTaskVector (SPEC). From any bytes at all: a task, or FormatError."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from sparsetv.arrays import Bytes
from sparsetv.container import layout
from sparsetv.container.blocks import Scoped, Slice, decode_block, decoded_bytes
from sparsetv.container.envelope import open_manifest
from sparsetv.container.frames import content_size, decompress
from sparsetv.container.limits import JSON_BYTES, Limits
from sparsetv.container.manifest import MAJOR, Block, Manifest
from sparsetv.container.manifest_parse import from_json
from sparsetv.container.positions import drawn_entries
from sparsetv.csr import Corrections, SparseTensor, rows_and_columns
from sparsetv.errors import FormatError, advising
from sparsetv.task_vector import Extra, Probe, SparseTaskVector
from sparsetv.wire.fields import check_version
from sparsetv.wire.header import Header, header_size, parse_header

_THREADS = 2
_ADVICE = "fetch the file again, or pack the task anew"


@dataclass(frozen=True, slots=True)
class Opened:
    """A file whose header, manifest and payload hash have been checked; nothing of it is decoded.

    Attributes:
        manifest: The manifest.
        parts: Bytes of each stored tensor by stored name.
        header_bytes: Length of the safetensors header with its prefix.
        what: The file, for messages.
    """

    manifest: Manifest
    parts: dict[str, memoryview]
    header_bytes: int
    what: str


def open_bytes(data: bytes | memoryview, *, what: str = "task file", limits: Limits | None = None) -> Opened:
    """Check header, manifest and payload hash of a task file.

    Args:
        data: The whole file.
        what: Its name, for messages.
        limits: What decoding may spend.

    Raises:
        FormatError: Some clause of SPEC 1 to 3 does not hold.
        LimitError: Decoding it would pass `limits`.
    """
    with advising(_ADVICE):
        return _open(memoryview(data), what, limits or Limits())


def _open(view: memoryview, what: str, limits: Limits) -> Opened:
    size = header_size(bytes(view[:32]), file_size=len(view), what=what)
    limits.allow(JSON_BYTES * size, what=what)
    raw_header = bytes(view[:size])
    header = parse_header(raw_header, file_size=len(view), what=what)
    parts = {name: view[size + entry.start : size + entry.stop] for name, entry in header.tensors.items()}
    manifest, json_bytes = _manifest(header, parts, limits, what)
    _check_header(raw_header, manifest, parts, what)
    _check_payload(manifest, parts, what)
    _check_budget(manifest, JSON_BYTES * json_bytes, limits, what)
    return Opened(manifest, parts, size, what)


def decode(opened: Opened) -> SparseTaskVector:
    """Decode everything and compare the content digest.

    Raises:
        FormatError: A stream is not what the manifest says, or the content has another digest.
    """
    with advising(_ADVICE):
        return _decode(opened)


def _decode(opened: Opened) -> SparseTaskVector:
    manifest = opened.manifest
    with _naming(opened.what):
        tensors = _tensors(opened)
    names = [manifest.base.names[index] for index in manifest.scope]
    task = SparseTaskVector(
        name=manifest.name,
        base=manifest.base,
        tensors=tensors,
        norms=dict(zip(names, manifest.norms, strict=True)),
        extras=_extras(opened),
        files=read_files(opened),
        finetuned=manifest.finetuned,
        recipe=manifest.recipe,
        probe=_probe(opened),
        drawn=_seed(manifest),
        budget=manifest.budget,
    )
    if task.digest() != manifest.digest:
        raise FormatError(f"{opened.what}: content digest is {task.digest()}, the manifest says {manifest.digest}")
    return task


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Put the file's name before the message of a FormatError."""
    try:
        yield
    except FormatError as error:
        raise FormatError(f"{what}: {error}") from None


def read_files(opened: Opened) -> dict[str, bytes]:
    """The carried files by name."""
    total = sum(entry.size for entry in opened.manifest.files)
    frame = opened.parts.get(layout.FILES, memoryview(b""))
    content = decompress(frame, size=total, what=f"{opened.what}: files").tobytes()
    files, start = {}, 0
    for entry in opened.manifest.files:
        files[entry.name] = content[start : start + entry.size]
        start += entry.size
    return files


def _manifest(header: Header, parts: dict[str, memoryview], limits: Limits, what: str) -> tuple[Manifest, int]:
    """The manifest, and the bytes of JSON that were parsed to get there."""
    if header.metadata.get("format") == "sparsetv-archive":
        raise FormatError(f"{what}: a lossless archive, no sparsetv task; get its checkpoint back with `restore`")
    if header.metadata.get("format") != "sparsetv":
        raise FormatError(f"{what}: a safetensors file, but no sparsetv task; is it a model's weights?")
    with _naming(what):
        check_version(header.metadata.get("version", ""), major=MAJOR, kind="format version")
    if layout.MANIFEST not in parts:
        raise FormatError(f"{what}: stored tensor {layout.MANIFEST} is missing")
    frame, sha256 = parts[layout.MANIFEST], header.metadata.get("manifest_sha256")
    value = open_manifest(frame, sha256=sha256, what=what, limits=limits, header_bytes=header.size)
    with _naming(what):
        return from_json(value), header.size + content_size(frame, what=what)


def _check_header(raw: bytes, manifest: Manifest, parts: dict[str, memoryview], what: str) -> None:
    frame = parts[layout.MANIFEST]
    files_bytes = len(parts.get(layout.FILES, b""))
    stored = layout.stored_tensors(manifest, manifest_bytes=len(frame), files_bytes=files_bytes)
    expected = {item.name for item in stored}
    if expected != parts.keys():
        odd = min(expected ^ parts.keys())
        state = "missing" if odd in expected else "not in the manifest"
        raise FormatError(f"{what}: stored tensor {odd!r} is {state}")
    if layout.header(stored, manifest_sha256=hashlib.sha256(frame).hexdigest(), version=manifest.version) != raw:
        raise FormatError(f"{what}: header is not the canonical one of its manifest")


def _check_payload(manifest: Manifest, parts: dict[str, memoryview], what: str) -> None:
    payload = hashlib.sha256()
    for name, part in parts.items():
        if name != layout.MANIFEST:
            payload.update(part)
    if payload.hexdigest() != manifest.payload_sha256:
        raise FormatError(f"{what}: SHA-256 of the payload differs from the manifest's; damaged, fetch it again")


def _check_budget(manifest: Manifest, need: int, limits: Limits, what: str) -> None:
    with _naming(what):
        scope = Scoped.of([manifest.base.shapes[index] for index in manifest.scope])
        decoding = 32 * manifest.nnz + max((decoded_bytes(b, scope) for b in manifest.blocks), default=0) * _THREADS
        need += max(decoding, sum(drawn_entries(block, scope.places(block)) for block in manifest.blocks))
    limits.allow(need + sum(entry.size for entry in manifest.files), what=what)


def _tensors(opened: Opened) -> dict[str, SparseTensor]:
    manifest = opened.manifest
    shapes = [manifest.base.shapes[index] for index in manifest.scope]
    scope = Scoped.of(shapes)
    names = [manifest.base.names[index] for index in manifest.scope]
    jobs: list[Callable[[], list[Slice]]] = []
    at = value_at = 0
    positions = opened.parts.get(layout.POSITIONS, memoryview(b""))
    values = opened.parts.get(layout.VALUES, memoryview(b""))
    for block in manifest.blocks:
        stop, value_stop = at + block.positions.size, value_at + block.values.size
        where = f"{_members(block, names)}, positions from byte {at}, values from byte {value_at}"
        jobs.append(partial(_block, block, scope, positions[at:stop], values[value_at:value_stop], where))
        at, value_at = stop, value_stop
    with ThreadPoolExecutor(_THREADS) as pool:
        decoded = pool.map(lambda job: job(), jobs)
        slices: list[list[Slice]] = [[] for _ in shapes]
        for block_slices in decoded:
            for item in block_slices:
                slices[item.piece.tensor].append(item)
    return {
        names[number]: _tensor(slices[number], manifest.base.dtypes[index], shapes[number])
        for number, index in enumerate(manifest.scope)
    }


def _block(block: Block, scope: Scoped, positions: memoryview, values: memoryview, where: str) -> list[Slice]:
    """Decode one block; an error says which tensors and bytes it is."""
    try:
        return decode_block(block, scope, positions, values)
    except FormatError as error:
        what, _, advice = str(error).partition(";")
        raise FormatError(f"{what} (block of {where}){advice and ';'}{advice}") from None


def _members(block: Block, names: list[str]) -> str:
    first, last = (names[block.pieces[end].tensor] for end in (0, -1))
    return first if first == last else f"{first} to {last}"


def _tensor(slices: list[Slice], dtype: str, shape: tuple[int, ...]) -> SparseTensor:
    if len(slices) == 1:
        only = slices[0]
        return SparseTensor(dtype, shape, only.positions, only.values, only.corrections)
    columns = rows_and_columns(shape)[1]
    starts = np.cumsum([0, *(item.piece.nnz for item in slices[:-1])])
    index = np.concatenate([item.corrections.index + start for item, start in zip(slices, starts, strict=True)])
    return SparseTensor(
        dtype,
        shape,
        np.concatenate([item.positions + item.piece.first_row * columns for item in slices]),
        np.concatenate([item.values for item in slices]),
        Corrections(index, np.concatenate([item.corrections.amount for item in slices])),
    )


def _seed(manifest: Manifest) -> int | None:
    """The seed that all positions come from, if there is one."""
    streams = [block.positions for block in manifest.blocks]
    seeds = {stream.parameters["seed"] if stream.codec == "seeded" else None for stream in streams}
    return seeds.pop() if len(seeds) == 1 else None


def _extras(opened: Opened) -> dict[str, Extra]:
    extras = {}
    for entry in opened.manifest.extras:
        part = opened.parts.get(layout.EXTRA + entry.name, memoryview(b"")) if entry.kind != "alias" else b""
        data: Bytes = np.frombuffer(part, np.uint8)
        extras[entry.name] = Extra(entry.kind, entry.dtype, entry.shape, data, entry.source)
    return extras


def _probe(opened: Opened) -> Probe | None:
    entry = opened.manifest.probe
    if entry is None:
        return None
    outputs = np.frombuffer(opened.parts[layout.PROBE], "<f4").reshape(entry.count, entry.width)
    if not np.isfinite(outputs).all():
        raise FormatError(f"{opened.what}: a probe output is NaN or infinite")
    return Probe(
        kind=entry.kind,
        seed=entry.seed,
        count=entry.count,
        params=entry.params,
        recorded=entry.recorded,
        outputs=outputs,
        scale=entry.scale,
        distance=entry.distance,
    )
