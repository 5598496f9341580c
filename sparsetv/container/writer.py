"""SparseTaskVector to bytes (SPEC)."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from sparsetv import __version__
from sparsetv.arrays import Bytes
from sparsetv.container import layout
from sparsetv.container.blocks import Coded, cut, encode_block, tensor_starts
from sparsetv.container.envelope import seal_manifest
from sparsetv.container.frames import compress
from sparsetv.container.manifest import (
    FEATURES,
    OLDEST,
    VERSION,
    ExtraEntry,
    FileEntry,
    Manifest,
    ProbeEntry,
    codecs_of,
)
from sparsetv.container.manifest_json import to_json
from sparsetv.container.manifest_parse import from_json
from sparsetv.csr import SparseTensor
from sparsetv.errors import NonFiniteError
from sparsetv.task_vector import Probe, SparseTaskVector

_THREADS = 2
_NO_DIGEST = hashlib.sha256().hexdigest()


@dataclass(frozen=True, slots=True)
class Encoded:
    """A task file as parts: header, then the payload's parts in order."""

    parts: tuple[bytes | Bytes, ...]

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return sum(_length(part) for part in self.parts)

    def tobytes(self) -> bytes:
        """The file."""
        return b"".join(bytes(part) for part in self.parts)


def encode(task: SparseTaskVector) -> Encoded:
    """Encode a task; the same task gives the same bytes on every machine.

    Args:
        task: The task; each block of it is stored by the codecs that make it smallest.

    Raises:
        FormatError: A name that no file may carry.
        LimitError: A limit of the format is passed.
        NonFiniteError: A value is NaN or infinite.
    """
    return _encoded(task, digest=task.digest())


def measure(task: SparseTaskVector) -> int:
    """Bytes of a task's file, but for a few that the compressed digest may differ by; cheaper than `encode`."""
    return _encoded(task, digest=_NO_DIGEST).size


def _encoded(task: SparseTaskVector, *, digest: str) -> Encoded:
    _check_finite(task)
    coded = encode_tensors(task.tensors, seed=task.drawn)
    files = compress(b"".join(content for _, content in sorted(task.files.items())))
    payload: dict[str, bytes | Bytes] = {
        layout.POSITIONS: b"".join(item.positions for item in coded),
        layout.VALUES: b"".join(item.values for item in coded),
        layout.FILES: files,
        **{layout.EXTRA + name: extra.data for name, extra in task.extras.items() if extra.kind != "alias"},
    }
    if task.probe is not None:
        payload[layout.PROBE] = np.ascontiguousarray(task.probe.outputs.astype("<f4")).view(np.uint8).reshape(-1)
    return _assemble(task, coded, payload, files_bytes=len(files), digest=digest)


def encode_tensors(tensors: Mapping[str, SparseTensor], *, seed: int | None = None) -> list[Coded]:
    """The blocks of a task: what it costs beside manifest and extras.

    Args:
        tensors: Kept deltas per tensor of the scope, names ascending.
        seed: What the mask was drawn from, where it was.
    """
    listed = list(tensors.values())
    starts = tensor_starts(tensor.shape for tensor in listed)
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda slices: encode_block(slices, starts, seed=seed), cut(listed, starts)))


def _check_finite(task: SparseTaskVector) -> None:
    for name, tensor in task.tensors.items():
        if not np.isfinite(tensor.values).all():
            raise NonFiniteError(f"{name}: a kept delta is NaN or infinite")


def _assemble(
    task: SparseTaskVector, coded: list[Coded], payload: dict[str, bytes | Bytes], *, files_bytes: int, digest: str
) -> Encoded:
    draft = _manifest(task, coded, digest=digest, payload_sha256="0" * 64)
    order = [
        item.name
        for item in layout.stored_tensors(draft, manifest_bytes=0, files_bytes=files_bytes)
        if item.name != layout.MANIFEST
    ]
    payload_hash = hashlib.sha256()
    for name in order:
        part = payload[name]
        payload_hash.update(part.data if isinstance(part, np.ndarray) else part)
    manifest = replace(draft, payload_sha256=payload_hash.hexdigest())
    frame, value = seal_manifest(to_json(manifest))
    from_json(value)
    stored = layout.stored_tensors(manifest, manifest_bytes=len(frame), files_bytes=files_bytes)
    header = layout.header(stored, manifest_sha256=hashlib.sha256(frame).hexdigest(), version=manifest.version)
    parts = [frame if item.name == layout.MANIFEST else payload[item.name] for item in stored]
    return Encoded((header, *parts))


def _manifest(task: SparseTaskVector, coded: list[Coded], *, digest: str, payload_sha256: str) -> Manifest:
    index = {name: number for number, name in enumerate(task.base.names)}
    required = tuple(sorted(codecs_of(item.block for item in coded) & set(FEATURES)))
    return Manifest(
        name=task.name,
        digest=digest,
        payload_sha256=payload_sha256,
        base=task.base,
        scope=tuple(index[name] for name in task.tensors),
        norms=tuple(task.norms[name] for name in task.tensors),
        blocks=tuple(item.block for item in coded),
        extras=tuple(
            ExtraEntry(name, extra.kind, extra.dtype, extra.shape, extra.source)
            for name, extra in sorted(task.extras.items())
        ),
        files=tuple(FileEntry(name, len(content)) for name, content in sorted(task.files.items())),
        finetuned=task.finetuned,
        recipe=task.recipe,
        probe=None if task.probe is None else _probe(task.probe),
        writer=f"sparsetv/{__version__}",
        budget=task.budget,
        version=VERSION if required or task.budget is not None else OLDEST,
        required=required,
        optional=() if task.budget is None else ("budget",),
    )


def _probe(probe: Probe) -> ProbeEntry:
    return ProbeEntry(
        kind=probe.kind,
        seed=probe.seed,
        count=probe.count,
        width=probe.outputs.shape[1],
        params=probe.params,
        recorded=probe.recorded,
        scale=probe.scale,
        distance=probe.distance,
    )


def _length(part: bytes | Bytes) -> int:
    return part.nbytes if isinstance(part, np.ndarray) else len(part)
