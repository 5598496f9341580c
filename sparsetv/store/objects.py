"""Objects: task files under the name of their SHA-256, never changed once they are in place."""

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sparsetv import atomic
from sparsetv.container.limits import Limits
from sparsetv.container.reader import decode, open_bytes
from sparsetv.container.writer import encode
from sparsetv.errors import FormatError, NotFoundError
from sparsetv.hub.fetch import local
from sparsetv.store.base import StoreBase, base_from
from sparsetv.store.layout import directory, kind_of, object_parts, regular
from sparsetv.task_vector import SparseTaskVector


@dataclass(frozen=True, slots=True)
class Incoming:
    """A task file that was read and checked whole.

    Attributes:
        data: Its bytes; the very ones that were checked, whatever becomes of the file.
        sha256: Their hash.
        name, digest: Of the task, as the file says.
        base: The base it was packed against.
    """

    data: bytes
    sha256: str
    name: str
    digest: str
    base: StoreBase


def incoming(source: str | Path | SparseTaskVector) -> Incoming:
    """Read a task that wants to enter, and check everything about it.

    Raises:
        NotFoundError: There is no such file.
        FormatError: It is no valid task file.
        LimitError: Decoding it takes more memory than a reader may spend.
    """
    if isinstance(source, SparseTaskVector):
        data, what = encode(source).tobytes(), source.name
    else:
        data, what = _bytes_of(local(source)), str(source)
    opened = open_bytes(data, what=what)
    decode(opened)
    manifest = opened.manifest
    return Incoming(data, hashlib.sha256(data).hexdigest(), manifest.name, manifest.digest, base_from(manifest.base))


def _bytes_of(path: Path) -> bytes:
    if not path.exists():
        raise NotFoundError(f"{path}: no such file")
    if not path.is_file():
        raise FormatError(f"{path}: not a regular file; name a .stv file")
    size = path.stat().st_size
    Limits().allow(size, what=str(path))
    with path.open("rb") as file:
        return file.read(size)


def put_object(root: Path, item: Incoming) -> None:
    """Put a task file in place unless it is there, sound; the lock is held.

    A file of that name with other bytes is damaged, and is replaced.
    """
    parts = object_parts(item.sha256)
    parent = directory(root, *parts[:-2]) / parts[-2]
    if kind_of(parent) == "nothing":
        parent.mkdir()
        atomic.sync(parent.parent)
    path = directory(root, *parts[:-1]) / parts[-1]
    if kind_of(path) != "nothing" and hash_file(regular(root, *parts)) == item.sha256:
        return
    atomic.write_file(path, [item.data])


def hash_file(path: Path) -> str:
    """SHA-256 of a file as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def start_grace(root: Path, sha256: str) -> None:
    """Let the time that `gc` leaves an object for its readers begin now; the lock is held."""
    # Only the owner may set times; without it the time counts from when the object came, which is no reason to fail.
    with suppress(FormatError, NotFoundError, PermissionError):
        os.utime(regular(root, *object_parts(sha256)))
