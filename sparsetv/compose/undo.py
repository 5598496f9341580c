"""What a stitched directory remembers of its base: headers, dropped tensors, and bits at touched positions.

`sparsetv/base.safetensors` inside the directory holds the base's shard index (`index`) and per weight file its header
(`header.FILE`); the SHA-256 of every tensor of the base, 32 bytes each in ascending order of names (`hashes`); per
touched tensor, positions and the base's bits there (`positions.NAME`, `bits.NAME`); and whole what the merged weights
lack (`tensor.NAME`). With the merged weights it gives the base back, bit for bit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from sparsetv import atomic
from sparsetv.arrays import Bits, Bytes, Positions
from sparsetv.checkpoint.locate import is_plain_shard
from sparsetv.checkpoint.reading import Checkpoint, open_checkpoint
from sparsetv.compose.base import ShardLayout, Standing
from sparsetv.dtypes import SIZES, bits_dtype
from sparsetv.errors import FormatError
from sparsetv.fingerprint import TensorIdentity
from sparsetv.wire.header import Entry, encode_header, parse_header, place

_UNSIGNED = {1: "U8", 2: "U16", 4: "U32", 8: "U64"}


@dataclass(slots=True)
class Undo:
    """Collected while the merged weights are written."""

    headers: dict[str, bytes] = field(default_factory=dict)
    index: bytes | None = None
    saved: dict[str, tuple[Positions, Bits]] = field(default_factory=dict)
    dropped: dict[str, tuple[Entry, Bytes]] = field(default_factory=dict)
    identities: Mapping[str, TensorIdentity] = field(default_factory=dict)

    def write(self, path: Path) -> int:
        """Write to a new file; returns its size."""
        parts = sorted(self._parts(), key=lambda part: (-SIZES[part[1]], part[0]))
        header = encode_header(place(part[:3] for part in parts), {"format": "sparsetv-base"})
        return atomic.write_new_file(path, [header, *(data.reshape(-1).view(np.uint8) for *_, data in parts)])

    def _parts(self) -> Iterator[tuple[str, str, tuple[int, ...], Bits]]:
        for shard, header in self.headers.items():
            yield f"header.{shard}", "U8", (len(header),), np.frombuffer(header, np.uint8)
        if self.index is not None:
            yield "index", "U8", (len(self.index),), np.frombuffer(self.index, np.uint8)
        hashes = b"".join(self.identities[name].sha256 for name in sorted(self.identities))
        yield "hashes", "U8", (len(self.identities), 32), np.frombuffer(hashes, np.uint8)
        for name, (positions, bits) in self.saved.items():
            yield f"positions.{name}", "I64", positions.shape, positions.astype("<i8")
            yield f"bits.{name}", _UNSIGNED[bits.itemsize], bits.shape, bits
        for name, (entry, data) in self.dropped.items():
            yield f"tensor.{name}", entry.dtype, entry.shape, data


@dataclass(frozen=True, slots=True)
class Memory:
    """An undo file, open."""

    file: Checkpoint

    def layouts(self) -> dict[str, ShardLayout]:
        """Layout of the base's weight files.

        Raises:
            FormatError: A name that would leave the directory.
        """
        result = {}
        for name in self.file.names:
            if name.startswith("header."):
                shard = name.removeprefix("header.")
                if not is_plain_shard(shard):
                    raise FormatError(f"{self.file.source}: {shard!r} is no name of a weight file")
                result[shard] = _layout(self.file.raw(name).tobytes(), name)
        return result

    def index(self) -> bytes | None:
        """The base's shard index as it stood, if it had one."""
        return self.file.raw("index").tobytes() if "index" in self.file else None

    def dropped(self, name: str) -> Standing | None:
        """A base tensor that the merged weights lack."""
        key = f"tensor.{name}"
        return Standing(*self.file.where(key), self.file.raw(key)) if key in self.file else None

    def identities(self) -> dict[str, TensorIdentity] | None:
        """The base's tensors; None where an older version of sparsetv wrote the file.

        Raises:
            FormatError: There are more or fewer hashes than tensors.
        """
        if "hashes" not in self.file:
            return None
        entries = {name: entry for shard in self.layouts().values() for name, entry in shard.tensors.items()}
        raw = self.file.raw("hashes").tobytes()
        if len(raw) != 32 * len(entries):
            raise FormatError(f"{self.file.source}: {len(raw)} bytes of hashes for {len(entries)} tensors")
        return {
            name: TensorIdentity(name, entries[name].dtype, entries[name].shape, raw[32 * place : 32 * place + 32])
            for place, name in enumerate(sorted(entries))
        }

    def saved(self, name: str) -> tuple[Positions, Bits] | None:
        """Touched positions of a tensor and the base's bits there.

        Raises:
            FormatError: The positions are no integers, or there are no bits.
        """
        positions, bits = f"positions.{name}", f"bits.{name}"
        if positions not in self.file:
            return None
        if self.file.dtype(positions) != "I64" or bits not in self.file:
            raise FormatError(f"{self.file.source}: saved values of {name} are not I64 positions and bits")
        return self.file.bits(positions).view(np.int64), self.file.bits(bits)

    def under(self, merged: Standing, name: str, dtype: str) -> Standing:
        """The base's tensor under the merged one: where that stands, but for what tasks touched.

        Raises:
            FormatError: The saved positions do not fit the tensor.
        """
        saved = self.saved(name)
        if saved is None:
            return merged
        positions, bits = saved
        size = len(merged.data) // SIZES[dtype]
        fits = len(bits) == len(positions) and bits.dtype == bits_dtype(dtype)
        if not fits or (len(positions) and not 0 <= int(positions.min()) <= int(positions.max()) < size):
            raise FormatError(f"{self.file.source}: saved values of {name} do not fit the tensor")
        return replace(merged, positions=positions, bits=bits)


def _layout(raw: bytes, name: str) -> ShardLayout:
    header = parse_header(raw, file_size=None, what=name)
    return ShardLayout(raw, header.tensors, header.metadata)


def open_memory(path: Path) -> Memory:
    """Open an undo file.

    Raises:
        FormatError: It is broken.
    """
    return Memory(open_checkpoint(path))
