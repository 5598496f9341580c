"""Byte streams inside a chunk: raw, or one zstd frame where that is shorter (ARCHIVE 4.4)."""

import numpy as np
import zstandard

from sparsetv.archive.estimate import UNIT, bits_of
from sparsetv.arrays import Bytes
from sparsetv.container.frames import decompress
from sparsetv.errors import FormatError

_LENGTH = 4
_SAMPLE = 1 << 12
_WORTH = _SAMPLE * 79 * UNIT // 10  # 7.9 bits per byte, above which compressing wins nothing worth its time


class Out:
    """Collects the bytes of one chunk."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def number(self, value: int, *, size: int) -> None:
        """An unsigned little-endian integer of `size` bytes."""
        self.parts.append(value.to_bytes(size, "little"))

    def stream(self, data: Bytes) -> None:
        """A stream whose length the reader knows; nothing at all where it is empty."""
        if not len(data):
            return
        raw = np.ascontiguousarray(data)
        packed = _compress(raw)
        stored = raw.tobytes() if packed is None else packed
        self.number(len(stored), size=_LENGTH)
        self.parts.append(stored)

    def planes(self, numbers: np.ndarray) -> None:
        """Byte planes of unsigned integers, lowest first, one stream each."""
        matrix = np.ascontiguousarray(numbers).view(np.uint8).reshape(len(numbers), numbers.itemsize)
        for column in range(numbers.itemsize):
            self.stream(matrix[:, column])

    def tobytes(self) -> bytes:
        """All of it."""
        return b"".join(self.parts)


def _compress(raw: Bytes) -> bytes | None:
    """A frame where it is shorter than the bytes, else None. Level 1: Huffman, which is all that noise allows."""
    if len(raw) >= 2 * _SAMPLE and min(bits_of(raw[:_SAMPLE]), bits_of(raw[-_SAMPLE:])) > _WORTH:
        return None
    compressor = zstandard.ZstdCompressor(level=1, write_checksum=True, write_content_size=True)
    packed: bytes = compressor.compress(raw.data)
    return packed if len(packed) < len(raw) else None


class In:
    """Reads the bytes of one chunk, front to back."""

    def __init__(self, data: memoryview, *, what: str) -> None:
        self._left = data
        self.what = what

    def number(self, *, size: int) -> int:
        """An unsigned little-endian integer of `size` bytes."""
        return int.from_bytes(self.take(size), "little")

    def stream(self, size: int) -> Bytes:
        """A stream of `size` bytes; read-only, perhaps a view of the chunk."""
        if not size:
            return np.zeros(0, np.uint8)
        stored = self.number(size=_LENGTH)
        if stored > size:
            raise FormatError(f"{self.what}: a stream of {size} bytes is stored in {stored}")
        data = self.take(stored)
        if stored == size:
            return np.frombuffer(data, np.uint8)
        return decompress(data, size=size, what=self.what)

    def planes(self, count: int, bits: np.dtype) -> np.ndarray:
        """Inverse of `Out.planes`; shape (count,)."""
        numbers = np.empty(count, bits)
        matrix = numbers.view(np.uint8).reshape(count, bits.itemsize)
        for column in range(bits.itemsize):
            matrix[:, column] = self.stream(count)
        return numbers

    def done(self) -> None:
        """Refuse what is left over."""
        if len(self._left):
            raise FormatError(f"{self.what}: {len(self._left)} bytes are left over")

    def take(self, size: int) -> memoryview:
        """The next `size` bytes as they are."""
        if size > len(self._left):
            raise FormatError(f"{self.what}: ends early: {size} bytes are wanted, {len(self._left)} are left")
        taken, self._left = self._left[:size], self._left[size:]
        return taken
