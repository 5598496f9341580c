"""Mask files: which entries of a base a task keeps (formats/MASK.md)."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sparsetv import atomic
from sparsetv.arrays import Bytes, Positions
from sparsetv.container.limits import TENSORS
from sparsetv.container.names import check_tensor_name
from sparsetv.errors import FormatError, NotFoundError, ShapeError, advising
from sparsetv.masks import Mask
from sparsetv.wire import canonical
from sparsetv.wire.fields import as_shape, check_version
from sparsetv.wire.header import HEADER_DEPTH, Entry, encode_header, is_of_format, place, read_header

FORMAT = "sparsetv-mask"
VERSION = "1.0"
MAJOR = 1

Shapes = Mapping[str, tuple[int, ...]]


def write_mask(path: Path | str, mask: Mask, *, localizer: Mapping[str, object] | None = None) -> int:
    """Write a mask file atomically; returns its size in bytes.

    Args:
        path: File to write.
        mask: The mask.
        localizer: How it was made; information only.

    Raises:
        FormatError: A tensor has a name that no file may carry.
        OutputError: The target cannot be written.
    """
    for name in mask.shapes:
        _check_name(Path(path), name)
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


@advising("make the mask again with `sparsetv localize`")
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
    for name, entry in header.tensors.items():
        _check_name(file, name)
        _check_form(f"{file}: {name}", entry)
        if name not in shapes and _keeps(entry, payload):
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
    try:
        check_version(metadata.get("version", ""), major=MAJOR, kind="mask file of version")
    except FormatError as error:
        raise FormatError(f"{file}: {error}") from None


def _check_shapes(file: Path, text: str | None, shapes: Shapes) -> None:
    if text is None:
        return
    what = f"{file}: shapes"
    known = canonical.loads(text.encode(), what=what, depth=HEADER_DEPTH)
    if not isinstance(known, dict):
        raise FormatError(f"{what} is no object")
    if len(known) > TENSORS:
        raise FormatError(f"{what}: {len(known)} tensors, limit {TENSORS}")
    for name, value in known.items():
        _check_name(file, name)
        _check_shape(f"{file}: {name}", as_shape(value, where=what), shapes.get(name))


def _check_name(file: Path, name: str) -> None:
    try:
        check_tensor_name(name)
    except FormatError as error:
        raise FormatError(f"{file}: {error}") from None


def _check_form(what: str, entry: Entry) -> None:
    if entry.dtype != "BOOL" and (entry.dtype != "I64" or len(entry.shape) != 1):
        raise FormatError(f"{what}: {entry.dtype} {entry.shape} is neither I64 positions nor a BOOL mask")


def _keeps(entry: Entry, payload: Bytes) -> bool:
    """Whether a tensor keeps any entry, of whatever shape its base tensor is."""
    data = payload[entry.start : entry.stop]
    return bool(data.any()) if entry.dtype == "BOOL" else len(data) > 0


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
    positions = np.frombuffer(bytearray(data), "<i8").astype(np.int64)
    falls = (positions[1:] <= positions[:-1]).any()  # a difference could wrap
    if falls or (len(positions) and (positions[0] < 0 or positions[-1] >= math.prod(shape))):
        raise FormatError(f"{what}: positions do not increase within 0 to {math.prod(shape) - 1}")
    return positions
