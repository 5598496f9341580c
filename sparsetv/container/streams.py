"""One codec's frames in a block: made, and taken apart again (SPEC 4.3 and 5)."""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from sparsetv.arrays import Bytes
from sparsetv.container.frames import compress, decompress
from sparsetv.container.manifest import Stream
from sparsetv.errors import FormatError


def make_stream(codec: str, raw: Sequence[Bytes], parameters: Mapping[str, object]) -> tuple[Stream, bytes]:
    """A stream's manifest entry and its bytes."""
    frames = [compress(part) for part in raw]
    return Stream(codec, tuple(map(len, frames)), parameters), b"".join(frames)


class Frames:
    """A stream's frames, opened in order as their decompressed sizes become known."""

    def __init__(self, stream: Stream, data: memoryview, *, count: int, what: str) -> None:
        """Take a stream's manifest entry and bytes.

        Raises:
            FormatError: It has not `count` frames.
        """
        if len(stream.frames) != count:
            raise FormatError(f"{what}: codec `{stream.codec}` has {count} frames, found {len(stream.frames)}")
        self._lengths, self._data, self._what = stream.frames, data, what
        self._number = self._start = 0

    def take(self, size: int) -> Bytes:
        """The next frame, uint8, shape (size,).

        Raises:
            FormatError: It is not as SPEC 5.1 says, or holds another number of bytes.
        """
        stop = self._start + self._lengths[self._number]
        what = f"{self._what} frame {self._number}"
        raw = decompress(self._data[self._start : stop], size=size, what=what)
        self._start, self._number = stop, self._number + 1
        return raw


def open_stream(stream: Stream, sizes: Sequence[int], data: memoryview, what: str) -> list[Bytes]:
    """All frames of a stream, from their decompressed sizes.

    Raises:
        FormatError: It has another number of frames, or one is not as SPEC 5.1 says.
    """
    frames = Frames(stream, data, count=len(sizes), what=what)
    return [frames.take(size) for size in sizes]


def check_keys(stream: Stream, names: set[str], what: str) -> None:
    """Refuse parameters that the codec does not have.

    Raises:
        FormatError: One is missing, or is of another codec.
    """
    if stream.parameters.keys() != names:
        listed = " and ".join(f"`{name}`" for name in sorted(names))
        raise FormatError(f"{what}: codec `{stream.codec}` has the parameters {listed}")


def integers(value: object, *, count: int, most: int, least: int = 0, what: str) -> list[int]:
    """A list of `count` integers in `least` … `most`.

    Raises:
        FormatError: It is something else.
    """
    if isinstance(value, list) and len(value) == count and all(type(x) is int and least <= x <= most for x in value):
        return cast(list[int], value)
    raise FormatError(f"{what} must be {count} integers in {least}…{most}")


def planes(numbers: np.ndarray, width: int) -> Bytes:
    """Numbers as bytes: the least significant of all, then the next; shape (width * n,)."""
    octets = numbers.astype(f"<u{width}").view(np.uint8).reshape(-1, width)
    return np.ascontiguousarray(octets.T).reshape(-1)


def from_planes(data: Bytes, width: int) -> np.ndarray:
    """Inverse of `planes`, unsigned, shape (n,)."""
    return np.ascontiguousarray(data.reshape(width, -1).T).reshape(-1).view(f"<u{width}")
