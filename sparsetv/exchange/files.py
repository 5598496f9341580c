"""The safetensors files of this room: how they are written, and told from others."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sparsetv import atomic
from sparsetv.arrays import Bytes
from sparsetv.dtypes import SIZES
from sparsetv.errors import FormatError
from sparsetv.wire.header import encode_header, place, read_header


@dataclass(frozen=True, slots=True)
class Array:
    """One tensor of a file: name, dtype, shape, and a function that makes its bytes when their turn comes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    make: Callable[[], Bytes]


def write_arrays(path: Path, arrays: Iterable[Array], *, kind: str, metadata: Mapping[str, str]) -> int:
    """Write a safetensors file atomically, one tensor in memory at a time; returns its size in bytes.

    Tensors of wide elements come first, so that each is aligned.

    Raises:
        OutputError: The file cannot be written.
    """
    return atomic.write_file(path, _parts(arrays, kind, metadata))


def write_new_arrays(path: Path, arrays: Iterable[Array], *, metadata: Mapping[str, str]) -> int:
    """The same inside a directory that is new itself, without a kind."""
    return atomic.write_new_file(path, _parts(arrays, "", metadata))


def _parts(arrays: Iterable[Array], kind: str, metadata: Mapping[str, str]) -> Iterator[bytes | Bytes]:
    ordered = sorted(arrays, key=lambda item: (-SIZES[item.dtype], item.name))
    stored = place((item.name, item.dtype, item.shape) for item in ordered)
    named = {"kind": kind} if kind else {}
    yield encode_header(stored, {"format": "pt", **named, **metadata})
    for item in ordered:
        yield item.make()


def is_kind(path: Path | str, kind: str) -> bool:
    """Whether a file is one of this room's of a kind; nothing but its header is read."""
    try:
        return read_header(path, payload=False).metadata.get("kind") == kind
    except (FormatError, OSError):
        return False
