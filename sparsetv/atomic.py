"""Files and directories that are either the old ones or the new ones, never a mixture."""

import ctypes
import errno
import hashlib
import mmap
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from sparsetv.arrays import Bits, Bytes, Positions
from sparsetv.errors import OutputError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_SYNC_FILE_RANGE_WRITE = 2
_WRITEBACK = 1 << 24
_TEMPORARY = re.compile(r"\.sparsetv-[0-9a-f]{16}\.tmp")


def write_file(path: Path, parts: Iterable[bytes | Bytes]) -> int:
    """Write a file so that a crash leaves the old one or the new one; returns its size in bytes.

    A temporary file beside the target is written, synced, renamed over it, and the directory synced. The umask decides
    the mode, and a symbolic link stays one: its target is replaced.

    Raises:
        OutputError: The target is a directory or special file, or cannot be written.
    """
    with _in_place_of(path) as temporary:
        return write_new_file(temporary, parts)


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
    with _in_place_of(path) as temporary:
        size = write_new_file(temporary, chain([bytes(head_size)], parts))
        with temporary.open("r+b", buffering=0) as file:
            _write_all(file.fileno(), memoryview(head()))
            os.fsync(file.fileno())
        return size


@contextmanager
def _in_place_of(path: Path) -> Iterator[Path]:
    """A new file's name beside the target, which the file replaces when the block ends well."""
    target = Path(os.path.realpath(path))
    _check_target(target)
    temporary = _beside(target)
    try:
        yield temporary
        os.replace(temporary, target)
        sync(target.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


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
    size = started = 0
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    with os.fdopen(descriptor, "r+b", buffering=0) as file, ExitStack() as stack:
        sources: dict[Path, int] = {}
        for part in parts:
            if isinstance(part, CopiedRange):
                if part.source not in sources:
                    sources[part.source] = stack.enter_context(part.source.open("rb")).fileno()
                size += _copy_range(file.fileno(), sources[part.source], part, at=size)
            else:
                size += _write_all(file.fileno(), _view(part))
            if size - started >= _WRITEBACK:
                _start_writeback(file.fileno(), started, size - started)
                started = size
        os.fsync(file.fileno())
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
            raise OSError(errno.EIO, f"{part.source} ends early")
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


def _write_all(descriptor: int, view: memoryview) -> int:
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


def _beside(target: Path) -> Path:
    return target.with_name(f".sparsetv-{_mark(target)}{secrets.token_hex(4)}.tmp")


def _mark(target: Path) -> str:
    return hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]


def remove_leftovers(path: Path) -> None:
    """Remove temporary directories that a killed `new_directory` left beside its target; the caller holds its lock."""
    target = Path(os.path.realpath(path))
    for item in target.parent.glob(f".sparsetv-{_mark(target)}*.tmp"):
        if is_temporary(item.name) and item.is_dir() and not item.is_symlink():
            shutil.rmtree(item, ignore_errors=True)


def is_temporary(name: str) -> bool:
    """Whether a file's name is one that is given here to what is not yet in place."""
    return _TEMPORARY.fullmatch(name) is not None


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
    and removed afterwards.

    Raises:
        OutputError: The directory cannot be created or put in place.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise OutputError(f"cannot write {path}: directory {target.parent} does not exist; create it first")
    temporary = _beside(target)
    try:
        temporary.mkdir()
        yield temporary
        _sync_tree(temporary)
        _put_in_place(temporary, target)
        sync(target.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync_tree(root: Path) -> None:
    for directory, _, _ in os.walk(root):
        sync(Path(directory))


def _put_in_place(temporary: Path, target: Path) -> None:
    if not target.exists():
        os.rename(temporary, target)
    elif not _exchange(temporary, target):
        # Two renames: a crash between them leaves `target` under its old-name and the new one complete beside it.
        old = _beside(target)
        os.rename(target, old)
        try:
            os.rename(temporary, target)
        except OSError:
            os.rename(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two directories in one step; False where the system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code))
