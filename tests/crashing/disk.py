"""What a power cut leaves: names in the order in which they changed, and of each file what was synced.

Names are journalled in order, as ext4 and xfs do it; a file whose content was not synced since it changed is as it was
at its last sync, or as long as it is now and zero after that.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparsetv.leftovers import is_temporary

Inode = tuple[int, int]


class Disk:
    """Account of what is durable."""

    def __init__(self) -> None:
        self._synced: dict[Inode, bytes] = {}
        """Content at the last sync, of files that changed since."""
        self._names: dict[Inode, set[str]] = {}
        """Names that changed since their directory was synced."""

    @property
    def unsaved(self) -> bool:
        """Whether some file has content that is not durable."""
        return bool(self._synced)

    def coming(self, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> Callable[[Any], None]:
        """Look at what a call is about to change; returns what to do with its result."""
        if name in ("fsync", "fdatasync"):
            return lambda _: self._forget(args[0])
        if name in ("write", "pwrite", "writev", "sendfile", "ftruncate", "posix_fallocate", "mmap"):
            self._changing(args[0])
        elif name == "copy_file_range":
            self._changing(args[1])
        elif name == "truncate":
            self._changing_path(args[0])
        elif name == "open":
            return self._opening(args[0])
        elif name in ("rename", "replace", "link", "symlink"):
            return lambda _: self._named(args[1], named.get("dst_dir_fd"))
        elif name in ("unlink", "remove", "mkdir", "rmdir"):
            return lambda _: self._named(args[0], named.get("dir_fd"))
        elif name == "renameat2":
            return lambda done: self._named(args[1], None) if done else None
        return lambda _: None

    def lose(self, room: Path, *, zeros: bool) -> None:
        """Cut the power: take from every file below a directory what is not durable."""
        for path in room.rglob("*"):
            if path.is_symlink() or not path.is_file():
                continue
            status = path.stat()
            kept = self._synced.get((status.st_dev, status.st_ino))
            if kept is not None:
                path.write_bytes(kept + bytes(max(status.st_size - len(kept), 0)) if zeros else kept)

    def not_durable(self, room: Path) -> list[str]:
        """What a power cut after the end would take back: content, and names other than temporary ones."""
        found = []
        for path in [room, *room.rglob("*")]:
            status = path.stat()
            inode = status.st_dev, status.st_ino
            if inode in self._synced and not path.name.endswith("lock"):
                found.append(f"content of {path.relative_to(room)}")
            found += [f"{path.relative_to(room)}/{name}" for name in sorted(self._names.get(inode, ()))]
        return found

    def _changing(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        inode = status.st_dev, status.st_ino
        if inode not in self._synced:
            self._synced[inode] = Path(f"/proc/self/fd/{descriptor}").read_bytes()

    def _changing_path(self, path: Any) -> None:
        status = os.stat(path)
        self._synced.setdefault((status.st_dev, status.st_ino), Path(path).read_bytes())

    def _opening(self, path: Any) -> Callable[[Any], None]:
        old = Path(path).read_bytes() if os.path.lexists(path) else None

        def opened(result: Any) -> None:
            status = os.fstat(result if isinstance(result, int) else result.fileno())
            if old is None:
                self._named(path, None)
            if not isinstance(result, int):  # what is written through it is not seen
                self._synced.setdefault((status.st_dev, status.st_ino), old or b"")

        return opened

    def _forget(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        self._synced.pop((status.st_dev, status.st_ino), None)
        self._names.pop((status.st_dev, status.st_ino), None)

    def _named(self, path: Any, place: int | None) -> None:
        parent, name = os.path.split(os.fspath(path))
        if is_temporary(name) or name.endswith(("lock", ".old")):
            return
        status = os.stat(parent or ".", dir_fd=place) if parent or place is None else os.fstat(place)
        self._names.setdefault((status.st_dev, status.st_ino), set()).add(name)
