"""Why the system refused, and what to do about it."""

import errno

_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "raise the limit on the size of files",
    errno.EIO: "check the disk",
    errno.EROFS: "choose a place that can be written",
    errno.EACCES: "make it writable or choose another place",
    errno.EPERM: "make it writable or choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit on open files",
}
_REMEDY = "see to that"


def cause(error: OSError | NotImplementedError) -> str:
    """What the system said and the remedy, as the end of a message."""
    code = error.errno if isinstance(error, OSError) else None
    said = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"{said}; {_REMEDIES.get(code or 0, _REMEDY)} and run again"
