"""The base that tasks are put onto: an untouched checkpoint, or what a stitched directory remembers of one."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sparsetv.arrays import Bits, Bytes, Positions
from sparsetv.belonging import Structure
from sparsetv.checkpoint.locate import INDEX_NAME
from sparsetv.checkpoint.reading import Checkpoint, identify
from sparsetv.dtypes import bits_dtype
from sparsetv.fingerprint import TensorIdentity
from sparsetv.wire.header import Entry


@dataclass(frozen=True, slots=True)
class ShardLayout:
    """One weight file of the base: its header as it stood, tensors in file order, metadata."""

    header_bytes: bytes
    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Standing:
    """A tensor of the base where it stands: in a file, where some of its elements may be others' for now.

    Attributes:
        path, start: The file, and the byte at which the tensor starts.
        data: The tensor's bytes as they stand there, uint8, mapped.
        positions: Shape (n,), int64, distinct: elements that are not the base's there.
        bits: Shape (n,): the base's bits at them.
    """

    path: Path
    start: int
    data: Bytes
    positions: Positions = field(default_factory=lambda: np.zeros(0, np.int64))
    bits: Bits = field(default_factory=lambda: np.zeros(0, np.uint8))

    def whole(self) -> Bytes:
        """The base's bytes, uint8: a view where they stand as they are, else a copy."""
        if not len(self.positions):
            return self.data
        bits = np.frombuffer(bytearray(self.data), self.bits.dtype)
        bits[self.positions] = self.bits
        return bits.view(np.uint8)

    def at(self, positions: Positions, dtype: str) -> Bits:
        """The base's bits at increasing positions; takes time by their number, not by the tensor's size."""
        found = self.data.view(bits_dtype(dtype))[positions]
        if len(self.positions) and len(positions):
            places = np.searchsorted(positions, self.positions)
            asked = positions[np.minimum(places, len(positions) - 1)] == self.positions
            found[places[asked]] = self.bits[asked]
        return found


@dataclass(frozen=True, slots=True)
class Base:
    """A base as stitching sees it.

    Attributes:
        source: What to call it in messages.
        shards: Layout per weight file name.
        stands: Says where a tensor stands.
        files: Other files that belong to it, by path relative to its directory.
        index: Its shard index as it stands, if it has one.
        repo, commit: Where it came from, if from the hub.
        check_unchanged: Raises CheckpointError where the files changed since they were opened.
    """

    source: str
    shards: Mapping[str, ShardLayout]
    stands: Callable[[str], Standing]
    files: Mapping[str, Path]
    index: bytes | None = None
    repo: str | None = None
    commit: str | None = None
    check_unchanged: Callable[[], None] = field(default=lambda: None)

    def raw(self, name: str) -> Bytes:
        """The bytes of a tensor, uint8; a view where it can be one."""
        return self.stands(name).whole()

    @property
    def entries(self) -> dict[str, Entry]:
        """Dtype and shape by tensor name."""
        return {name: entry for shard in self.shards.values() for name, entry in shard.tensors.items()}

    @property
    def structure(self) -> Structure:
        """Dtype and shape by tensor name, without places."""
        return {name: (entry.dtype, entry.shape) for name, entry in self.entries.items()}


def base_of(checkpoint: Checkpoint, files: Mapping[str, Path]) -> Base:
    """An untouched checkpoint as a base."""
    return Base(
        source=checkpoint.source,
        shards={
            name: ShardLayout(shard.header_bytes, shard.tensors, shard.metadata)
            for name, shard in checkpoint.shards.items()
        },
        stands=lambda name: Standing(*checkpoint.where(name), checkpoint.raw(name)),
        files=files,
        index=_index(checkpoint),
        repo=checkpoint.location.repo,
        commit=checkpoint.location.commit,
        check_unchanged=checkpoint.check_unchanged,
    )


def _index(checkpoint: Checkpoint) -> bytes | None:
    directory = checkpoint.location.directory
    return (directory / INDEX_NAME).read_bytes() if directory is not None and checkpoint.location.weight_map else None


class Hashing:
    """Hashes all tensors of a base in a thread beside other work."""

    def __init__(self, base: Base, *, known: Mapping[str, TensorIdentity]) -> None:
        """Start hashing what is not known."""
        self._pool = ThreadPoolExecutor(1)
        self._known = known
        self._jobs: dict[str, Future[TensorIdentity]] = {
            name: self._pool.submit(_hash, base, name, entry)
            for name, entry in sorted(base.entries.items())
            if name not in known
        }

    def result(self) -> dict[str, TensorIdentity]:
        """Wait for all of them."""
        return {**self._known, **{name: job.result() for name, job in self._jobs.items()}}

    def close(self) -> None:
        """Drop what has not started."""
        self._pool.shutdown(cancel_futures=True)


def _hash(base: Base, name: str, entry: Entry) -> TensorIdentity:
    """Restores the tensor only when its turn comes."""
    return identify(name, entry, base.raw(name))
