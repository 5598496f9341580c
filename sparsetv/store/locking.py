"""One writer at a time."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sparsetv.causes import cause
from sparsetv.errors import BusyError, OutputError, UsageError
from sparsetv.store.layout import LOCK, kind_of


@contextmanager
def writing(root: Path, *, wait: float) -> Iterator[None]:
    """Hold the lock of a store; a lock file whose process is gone is not a held lock.

    Args:
        root: The store.
        wait: Seconds to wait for another writer.

    Raises:
        BusyError: Another process holds the lock.
        OutputError: The store cannot be written; what was written is complete or ignored.
    """
    if not 0 <= wait < math.inf:
        raise UsageError(f"wait is {wait}; expected seconds from 0")
    lock, kind = FileLock(root / LOCK), kind_of(root / LOCK)
    if kind not in ("nothing", "regular file"):
        raise OutputError(f"{root / LOCK}: expected a lock file, found {kind}; remove it")
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        raise BusyError(
            f"{root}: another process is changing the store (waited {wait:g} s); try again when it is done, "
            "or wait for it with --wait SECONDS"
        ) from None
    except (OSError, NotImplementedError) as error:
        raise OutputError(f"{root}: cannot be locked: {cause(error)}") from error
    try:
        yield
    except OSError as error:
        raise OutputError(f"{root}: cannot be changed: {cause(error)}") from error
    finally:
        lock.release()
