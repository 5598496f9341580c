"""The one place where archives are opened."""

from pathlib import Path

import numpy as np

from sparsetv.archive.manifest import FORMAT
from sparsetv.archive.reader import Opened, open_bytes
from sparsetv.errors import FormatError, NotFoundError
from sparsetv.wire.header import is_of_format


def open_archive(path: Path | str) -> Opened:
    """Check an archive's header, manifest and data hash without decoding it; the file stays mapped.

    Raises:
        NotFoundError: There is no such file.
        FormatError: It is no valid archive.
    """
    file = Path(path)
    if not file.exists():
        raise NotFoundError(f"{file}: no such file")
    if not file.is_file():
        raise FormatError(f"{file}: not a regular file; name a .stv file")
    if file.stat().st_size == 0:
        raise FormatError(f"{file}: empty file; fetch it again")
    return open_bytes(np.memmap(file, np.uint8, "r").data, what=str(file))


def is_archive(path: Path | str) -> bool:
    """Whether a file's header says that it is an archive; nothing else of it is checked."""
    return is_of_format(path, FORMAT)
