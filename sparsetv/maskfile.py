"""Mask files: which entries of a base a task keeps (formats/MASK.md)."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sparsetv import atomic
from sparsetv.arrays import Bytes, Positions
from sparsetv.container.names import check_tensor_name
from sparsetv.errors import FormatError, NotFoundError, ShapeError
from sparsetv.masks import Mask
from sparsetv.wire import canonical
from sparsetv.wire.fields import as_shape
from sparsetv.wire.header import Entry, encode_header, is_of_format, place, read_header

FORMAT = "sparsetv-mask"
VERSION = "1.0"

Shapes = Mapping[str, tuple[int, ...]]


def write_mask(path: Path | str, mask: Mask, *, localizer: Mapping[str, object] | None = None) -> int:
    """Write a mask file atomically; returns its size in bytes.

    Args:
        path: File to write.
        mask: The mask.
        localizer: How it was made; information only.

    Raises:
        OutputError: The target cannot be written.
    """
    names = sorted(name for name, positions in mask.positions.items() if len(positions))
    metadata = {
        "format": FORMAT,
        "localizer": json.dumps(dict(localizer or {}), sort_keys=True, separators=(",", ":")),
        "shapes": canonical.dumps({name: list(shape) for name, shape in mask.shapes.items()}).decode(),
        "version": VERSION,
    }
    stored = place((name, "I64", (len(mask.positions[name]),)) for name in names)
    parts = [np.ascontiguousarray(mask.positions[name], "<i8").view(np.uint8) for name in names]
    return atomic.write_file(Path(path), [encode_header(stored, metadata), *parts])


def read_mask(path: Path | str, shapes: Shapes) -> Mask:
    """Read a mask file for the tensors of a scope.

    Args:
        path: The file.
        shapes: Shape per tensor of the scope, names ascending.

    Raises:
        NotFoundError: There is no such file.
        FormatError: It is no valid mask file, keeps nothing, or names a tensor outside the scope.
        ShapeError: A tensor of it has another shape than the base's.
    """
    file = Path(path)
    if not file.is_file():
        raise NotFoundError(f"{file}: no such file")
    header = read_header(file)
    _check_kind(file, header.metadata)
    _check_shapes(file, header.metadata.get("shapes"), shapes)
    payload = (
        np.memmap(file, np.uint8, "r", offset=header.size)
        if any(entry.stop for entry in header.tensors.values())
        else np.zeros(0, np.uint8)
    )
    for name in sorted(header.tensors.keys() - shapes.keys()):
        entry = header.tensors[name]
        if entry.dtype != "BOOL" or payload[entry.start : entry.stop].any():
            raise FormatError(f"{file}: keeps entries of {name}, which the scope does not cover; widen it with --scope")
    positions = {
        name: _positions(f"{file}: {name}", header.tensors[name], payload, shape)
        if name in header.tensors
        else np.zeros(0, np.int64)
        for name, shape in shapes.items()
    }
    mask = Mask(dict(shapes), positions)
    if not mask.nnz:
        raise FormatError(f"{file}: keeps no entry of the scope")
    return mask


def is_mask_file(path: Path | str) -> bool:
    """Whether a file's header says that it is a mask file; nothing else of it is checked."""
    return is_of_format(path, FORMAT)


def _check_kind(file: Path, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise FormatError(f"{file}: is no mask file (its metadata lack format={FORMAT}); make one with `localize`")
    major, _, minor = metadata.get("version", "").partition(".")
    if not (major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()):
        raise FormatError(f"{file}: version {metadata.get('version')!r} is not MAJOR.MINOR")
    if int(major[:6]) > int(VERSION.partition(".")[0]):
        raise FormatError(f"{file}: mask file of version {major}.{minor}, newer than {VERSION}; update sparsetv")


def _check_shapes(file: Path, text: str | None, shapes: Shapes) -> None:
    if text is None:
        return
    what = f"{file}: shapes"
    known = canonical.loads(text.encode(), what=what, depth=4)
    if not isinstance(known, dict):
        raise FormatError(f"{what} is no object")
    for name, value in known.items():
        check_tensor_name(name)
        _check_shape(f"{file}: {name}", as_shape(value, where=what), shapes.get(name))


def _check_shape(what: str, found: tuple[int, ...], expected: tuple[int, ...] | None) -> None:
    if expected is not None and found != expected:
        raise ShapeError(f"{what} has shape {found} in the mask, but {expected} in the base; is it this base's mask?")


def _positions(what: str, entry: Entry, payload: Bytes, shape: tuple[int, ...]) -> Positions:
    data = payload[entry.start : entry.stop]
    if entry.dtype == "BOOL":
        _check_shape(what, entry.shape, shape)
        if len(data) and int(data.max()) > 1:
            raise FormatError(f"{what}: a boolean that is neither 0 nor 1")
        return np.flatnonzero(data)
    if entry.dtype != "I64" or len(entry.shape) != 1:
        raise FormatError(f"{what}: {entry.dtype} {entry.shape} is neither I64 positions nor a BOOL mask")
    positions = np.frombuffer(bytearray(data), "<i8").astype(np.int64)
    if len(positions) and (positions[0] < 0 or positions[-1] >= math.prod(shape) or (np.diff(positions) <= 0).any()):
        raise FormatError(f"{what}: positions do not increase within 0 to {math.prod(shape) - 1}")
    return positions
