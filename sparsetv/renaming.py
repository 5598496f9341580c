"""A directory in place of another, in one step where the system can."""

import ctypes
import errno
import os
from pathlib import Path

from sparsetv.leftovers import aside

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def put_in_place(temporary: Path, target: Path) -> Path:
    """Give a directory its name; returns the name under which the old one, if there was one, is now."""
    if not target.exists():
        os.rename(temporary, target)
        return temporary
    if _exchange(temporary, target):
        return temporary
    # Two renames: after a crash between them the next writer finds the old one set aside, and puts it back.
    old = aside(target)
    os.rename(target, old)
    try:
        os.rename(temporary, target)
    except BaseException:
        os.rename(old, target)
        raise
    return old


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
