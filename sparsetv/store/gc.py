"""Removing what no ref names any more."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

from sparsetv import atomic
from sparsetv.errors import UsageError
from sparsetv.store.config import read_config
from sparsetv.store.locking import writing
from sparsetv.store.refs import read_refs, ref_names
from sparsetv.store.survey import Survey, survey

GRACE = 3600.0
"""Seconds for which an object that no ref names stays, for those who still read it."""


@dataclass(frozen=True, slots=True)
class Removed:
    """One file that went, or would go: path below the store, bytes."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Collected:
    """What was collected.

    Attributes:
        files: Objects and left-over temporary files.
        dry_run: Whether they are still there.
    """

    files: tuple[Removed, ...]
    dry_run: bool

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return sum(file.size for file in self.files)


def collect(root: Path, *, grace: float = GRACE, dry_run: bool = False, wait: float = 0.0) -> Collected:
    """Remove objects that no ref names, and temporary files that a writer left when it died.

    An object that a ref named before (`previous`) is not kept for that.

    Args:
        root: The store.
        grace: Seconds since an object was named last, or came, before it goes.
        dry_run: Whether to only tell.
        wait: Seconds to wait for another writer.

    Raises:
        FormatError: A ref is broken, so that nobody knows what it names; nothing is removed.
        BusyError: Another process holds the lock.
    """
    if not 0 <= grace < math.inf:
        raise UsageError(f"grace is {grace}; expected seconds from 0")
    read_config(root)
    with writing(root, wait=wait):
        found = survey(root)
        # The lock is held, so no writer is still at work on a temporary file, however young.
        paths = [*found.temporaries, *_dangling(root, found, before=time.time() - grace)]
        removed = tuple(Removed(path.relative_to(root).as_posix(), path.stat().st_size) for path in paths)
        if not dry_run:
            for path in paths:
                path.unlink()
            for parent in sorted({path.parent for path in paths}):
                atomic.sync(parent)
    return Collected(removed, dry_run)


def _dangling(root: Path, found: Survey, *, before: float) -> list[Path]:
    named = {ref.object for ref in read_refs(root, ref_names(root))}
    return [path for path in found.objects if path.stem not in named and path.stat().st_mtime <= before]
