"""A checkpoint as named tensors, mapped from its files and read lazily; no model is ever in memory."""

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sparsetv.arrays import Bits, Bytes
from sparsetv.checkpoint.locate import Location, locate, read_config
from sparsetv.dtypes import bits_dtype
from sparsetv.errors import CheckpointError, FormatError
from sparsetv.fingerprint import TensorIdentity
from sparsetv.wire.header import Entry, header_size, parse_header

CHUNK_BYTES = 1 << 22
"""Bytes that are hashed or copied at a time."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One open weight file.

    Attributes:
        path: The file.
        data: Its bytes, mapped read-only; pages come in when they are touched.
        header_bytes: Length prefix and header as they stand in the file.
        tensors: Tensors by name in file order.
        metadata: The header's metadata.
        stamp: Size, modification time and inode at opening.
    """

    path: Path
    data: Bytes
    header_bytes: bytes
    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str]
    stamp: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Named tensors of a checkpoint.

    Attributes:
        source: What the user named.
        location: Where it lies.
        shards: Open weight files by file name.
        shard_of: File name per tensor, tensors in ascending order of names.
    """

    source: str
    location: Location
    shards: Mapping[str, Shard]
    shard_of: Mapping[str, str]
    config: Mapping[str, object] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.shard_of

    @property
    def names(self) -> tuple[str, ...]:
        """Tensor names, ascending."""
        return tuple(self.shard_of)

    def entry(self, name: str) -> Entry:
        """Dtype, shape and place of a tensor."""
        return self.shards[self.shard_of[name]].tensors[name]

    def dtype(self, name: str) -> str:
        """Dtype of a tensor."""
        return self.entry(name).dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self.entry(name).shape

    def numel(self, name: str) -> int:
        """Number of entries of a tensor."""
        return math.prod(self.entry(name).shape)

    def raw(self, name: str) -> Bytes:
        """Bytes of a tensor, uint8, mapped: a view that copies nothing."""
        shard = self.shards[self.shard_of[name]]
        entry, offset = shard.tensors[name], len(shard.header_bytes)
        return shard.data[offset + entry.start : offset + entry.stop]

    def where(self, name: str) -> tuple[Path, int]:
        """File and byte offset of a tensor."""
        shard = self.shards[self.shard_of[name]]
        return shard.path, len(shard.header_bytes) + shard.tensors[name].start

    def bits(self, name: str) -> Bits:
        """Bit patterns of a tensor, shape (numel,), mapped: a view that copies nothing.

        A file need not align its tensors; numpy reads such a view all the same, only slower.
        """
        return self.raw(name).view(bits_dtype(self.dtype(name)))

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.stop - entry.start for shard in self.shards.values() for entry in shard.tensors.values())

    def identity(self, name: str, progress: Callable[[int], None] | None = None) -> TensorIdentity:
        """Hash one tensor; `progress` gets the bytes done."""
        return identify(name, self.entry(name), self.raw(name), progress)

    def check_unchanged(self) -> None:
        """Raise CheckpointError where a weight file changed, or went, since it was opened."""
        for shard in self.shards.values():
            try:
                found = _stamp(shard.path)
            except OSError as error:
                raise CheckpointError(f"{shard.path}: went while it was read; run again when it is back") from error
            if found != shard.stamp:
                raise CheckpointError(f"{shard.path}: changed while it was read; run again when nothing writes it")


def identify(name: str, entry: Entry, raw: Bytes, progress: Callable[[int], None] | None = None) -> TensorIdentity:
    """Hash a tensor's bytes, piece by piece; `progress` gets the bytes done."""
    total = hashlib.sha256()
    for chunk in chunked(raw):
        total.update(chunk.data)
        if progress is not None:
            progress(len(chunk))
    return TensorIdentity(name, entry.dtype, entry.shape, total.digest())


def chunked(data: Bytes, size: int = CHUNK_BYTES) -> Iterator[Bytes]:
    """Consecutive views of at most `size` bytes."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def open_checkpoint(source: str | Path) -> Checkpoint:
    """Open a checkpoint: a directory, a `.safetensors` file, or a hub id `org/name@revision`.

    Raises:
        NotFoundError: Nothing is there.
        CheckpointError: It is no full, unquantized safetensors checkpoint.
        FormatError: A weight file or the shard index is broken.
    """
    location = locate(source)
    root = location.directory or location.shards[0].parent
    shards = {path.relative_to(root).as_posix(): _open_shard(path) for path in location.shards}
    shard_of: dict[str, str] = {}
    for shard_name, shard in shards.items():
        for name in shard.tensors:
            if name in shard_of:
                raise FormatError(f"{source}: tensor {name} stands in {shard_of[name]} and in {shard_name}")
            shard_of[name] = shard_name
    for name, shard_name in location.weight_map.items():
        if shard_of.get(name) != shard_name:
            raise FormatError(f"{source}: the index puts {name} into {shard_name}, which does not hold it")
    config = read_config(location.directory) if location.directory else {}
    return Checkpoint(str(source), location, shards, dict(sorted(shard_of.items())), config)


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def _open_shard(path: Path) -> Shard:
    stamp = _stamp(path)
    with path.open("rb") as file:
        first = file.read(64)
        size = header_size(first, file_size=stamp[0], what=str(path))
        file.seek(0)
        raw = file.read(size)
    header = parse_header(raw, file_size=stamp[0], what=str(path))
    if header.metadata.get("format") == "sparsetv":
        raise CheckpointError(f"{path}: a sparsetv task file where a model checkpoint is needed")
    if header.metadata.get("format") == "sparsetv-archive":
        raise CheckpointError(f"{path}: an archive where a model checkpoint is needed; get it back with `restore`")
    data = np.asarray(np.memmap(path, np.uint8, "r"))
    return Shard(path, data, raw, header.tensors, header.metadata, stamp)


def same_files(first: Checkpoint, second: Checkpoint) -> bool:
    """Whether two checkpoints are the very same files."""
    paths = [{os.path.realpath(shard.path) for shard in side.shards.values()} for side in (first, second)]
    return paths[0] == paths[1]
