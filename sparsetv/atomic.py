"""Files and directories that are either the old ones or the new ones, never a mixture."""

import ctypes
import errno
import mmap
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from sparsetv.arrays import Bits, Bytes, Positions
from sparsetv.causes import cause
from sparsetv.errors import CheckpointError, OutputError
from sparsetv.leftovers import claimed, is_temporary, remove_dead, tidy
from sparsetv.renaming import put_in_place

_SYNC_FILE_RANGE_WRITE = 2
_WRITEBACK = 1 << 24


def write_file(path: Path, parts: Iterable[bytes | Bytes]) -> int:
    """Write a file so that a crash leaves the old one or the new one; returns its size in bytes.

    A temporary file beside the target is written, synced, renamed over it, and the directory synced. The umask decides
    the mode, and a symbolic link stays one: its target is replaced.

    Raises:
        OutputError: The target is a directory or special file, or cannot be written.
    """
    with _in_place_of(path) as descriptor:
        return _write_parts(descriptor, parts)


def write_file_behind(path: Path, parts: Iterable[bytes | Bytes], *, head: Callable[[], bytes], head_size: int) -> int:
    """Write a file as `write_file` does, where its first bytes are known last; returns its size in bytes.

    Args:
        path: File to write.
        parts: What follows the head.
        head: Gives the head, `head_size` bytes, once all parts are made.
        head_size: Bytes of the head.

    Raises:
        OutputError: The target is a directory or special file, or cannot be written.
    """
    with _in_place_of(path) as descriptor:
        size = _write_parts(descriptor, chain([bytes(head_size)], parts))
        os.lseek(descriptor, 0, os.SEEK_SET)
        write_all(descriptor, memoryview(head()))
        os.fsync(descriptor)
        return size


@contextmanager
def _in_place_of(path: Path) -> Iterator[int]:
    """A new file beside the target, open, which replaces it when the block ends well."""
    target = Path(os.path.realpath(path))
    _check_target(target)
    try:
        remove_dead(target)
        with claimed(target, _create) as (temporary, descriptor):
            try:
                yield descriptor
                os.replace(temporary, target)
            except BaseException:
                with suppress(OSError):  # what went wrong first is what is told
                    os.unlink(temporary)
                raise
            sync(target.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {cause(error)}") from error


def check_writable(path: Path | str) -> None:
    """Raise OutputError at once where `write_file` could only fail later."""
    target = Path(os.path.realpath(path))
    _check_target(target)
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {path}: directory {target.parent} is not writable")


@dataclass(frozen=True, slots=True)
class CopiedRange:
    """A run of bytes of another file, copied inside the kernel, and what is put over it afterwards.

    Attributes:
        source: The other file.
        start, size: The run, in bytes.
        over: Which elements of the run get new bits, and the bits, both of shape (n,), positions int64; elements are as
            wide as their bits. Of several pairs later ones win.
    """

    source: Path
    start: int
    size: int
    over: Sequence[tuple[Positions, Bits]] = ()

    def __len__(self) -> int:
        return self.size


Part = bytes | Bytes | CopiedRange
"""What a file is written from."""


def write_new_file(path: Path, parts: Iterable[Part]) -> int:
    """Create a file that does not exist, write and sync it; returns its size in bytes."""
    descriptor = _create(path)
    try:
        return _write_parts(descriptor, parts)
    finally:
        os.close(descriptor)


def _create(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)


def _write_parts(descriptor: int, parts: Iterable[Part]) -> int:
    """Write and sync a file that is open and empty; returns its size in bytes."""
    size = started = 0
    with ExitStack() as stack:
        sources: dict[Path, int] = {}
        for part in parts:
            if isinstance(part, CopiedRange):
                if part.source not in sources:
                    sources[part.source] = stack.enter_context(part.source.open("rb")).fileno()
                size += _copy_range(descriptor, sources[part.source], part, at=size)
            else:
                size += write_all(descriptor, _view(part))
            if size - started >= _WRITEBACK:
                _start_writeback(descriptor, started, size - started)
                started = size
        os.fsync(descriptor)
    return size


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file of one's own, which is about to go, a second name; copied and synced where the system cannot.

    The copy shares its blocks with the source where the file system can.
    """
    try:
        os.link(source, target)
    except OSError:
        write_new_file(target, [CopiedRange(source, 0, source.stat().st_size)])


def _copy_range(descriptor: int, source: int, part: CopiedRange, *, at: int) -> int:
    done = 0
    while done < part.size:
        sent = _send(descriptor, source, part.start + done, min(part.size - done, _WRITEBACK))
        if not sent:
            raise CheckpointError(f"{part.source}: became shorter while it was read; run again when nothing writes it")
        done += sent
    over = [(positions, bits) for positions, bits in part.over if len(positions)]
    if over:
        page = at // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        with mmap.mmap(descriptor, at + part.size - page, offset=page) as mapped:
            for positions, bits in over:
                elements = np.frombuffer(mapped, bits.dtype, offset=at - page)
                elements[positions] = bits
                del elements  # the map cannot close while an array looks into it
    return part.size


def _send(descriptor: int, source: int, start: int, count: int) -> int:
    """Copy up to `count` bytes from `source` to the end of `descriptor`; through memory where the kernel cannot."""
    try:
        return os.sendfile(descriptor, source, start, count)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSOCK):
            raise
        return os.write(descriptor, os.pread(source, count, start))


def _start_writeback(descriptor: int, start: int, length: int) -> None:
    """Tell the kernel to begin writing, so that the sync at the end has little left; does nothing where it cannot."""
    begin = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if begin is not None:
        begin(descriptor, ctypes.c_int64(start), ctypes.c_int64(length), _SYNC_FILE_RANGE_WRITE)


def _view(part: bytes | Bytes) -> memoryview:
    return np.ascontiguousarray(part).data if isinstance(part, np.ndarray) else memoryview(part)


def write_all(descriptor: int, view: memoryview) -> int:
    """Write all of it, however often the system stops short; returns its size in bytes."""
    data = view.cast("B") if view.nbytes else memoryview(b"")
    done = 0
    while done < data.nbytes:
        done += os.write(descriptor, data[done : done + (1 << 24)])
    return done


def _check_target(target: Path) -> None:
    if not target.parent.is_dir():
        raise OutputError(f"cannot write {target}: directory {target.parent} does not exist; create it first")
    if target.is_dir():
        raise OutputError(f"cannot write {target}: it is a directory; name a file")
    if target.exists() and not stat.S_ISREG(target.stat().st_mode):
        raise OutputError(f"cannot write {target}: it is not a regular file")


def sync(path: Path) -> None:
    """Make a file's content, or renames inside a directory, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A temporary directory beside `path` that takes its place when the block ends well and vanishes otherwise.

    An existing directory at `path` is exchanged with the new one in one system call where the system has it (Linux),
    and removed afterwards. Files in it must be durable by then: see `write_new_file` and `durable.sync_files`.

    Raises:
        OutputError: The directory cannot be created or put in place.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise OutputError(f"cannot write {path}: directory {target.parent} does not exist; create it first")
    try:
        tidy(target)
        with claimed(target, _make) as (temporary, _):
            old = temporary
            try:
                yield temporary
                _sync_tree(temporary)
                old = put_in_place(temporary, target)
                sync(target.parent)
            finally:
                shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {_other_file(error, target)}{cause(error)}") from error


def _make(path: Path) -> int:
    path.mkdir()
    return os.open(path, os.O_RDONLY)


def _other_file(error: OSError, target: Path) -> str:
    """The file that an error is about, where it is none of those that are written."""
    if not isinstance(error.filename, str | bytes):
        return ""
    path = Path(os.fsdecode(error.filename))
    if path.is_relative_to(target.parent):
        first = path.relative_to(target.parent).parts[:1]
        if not first or first[0] == target.name or is_temporary(first[0]):
            return ""
    return f"{path}: "


def _sync_tree(root: Path) -> None:
    for directory, _, _ in os.walk(root):
        sync(Path(directory))
