"""A directory whose files are what a mutator says; only those that changed are written."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory


class Room:
    """A directory that goes with the process."""

    def __init__(self) -> None:
        self._owner = TemporaryDirectory(prefix="sparsetv-fuzz-")
        self.path = Path(self._owner.name) / "room"
        self.path.mkdir()
        self._laid: dict[str, bytes] = {}

    def lay(self, files: Mapping[str, bytes]) -> Path:
        """Make the directory hold just these files, and return it.

        A file that changes is a new file: a mapping of the old one may still be alive.
        """
        for name in self._laid.keys() - files.keys():
            self._drop(self.path / name)
        for name, content in files.items():
            if self._laid.get(name) != content:
                self._put(self.path / name, content)
        self._laid = dict(files)
        return self.path

    def _drop(self, path: Path) -> None:
        path.unlink()
        while path.parent != self.path and not any(path.parent.iterdir()):
            path = path.parent
            path.rmdir()

    def _put(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content)


@cache
def room(target: str) -> Room:
    """The directory of a target in this process."""
    return Room()


def files_below(path: Path) -> dict[str, bytes]:
    """All files of a directory, by relative path."""
    return {item.relative_to(path).as_posix(): item.read_bytes() for item in sorted(path.rglob("*")) if item.is_file()}
