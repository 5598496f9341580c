"""The one place where archives are opened."""

from pathlib import Path

from sparsetv.archive.manifest import FORMAT
from sparsetv.archive.reader import Opened, open_bytes
from sparsetv.wire.header import is_of_format, map_file


def open_archive(path: Path | str) -> Opened:
    """Check an archive's header, manifest and data hash without decoding it; the file stays mapped.

    Raises:
        NotFoundError: There is no such file.
        FormatError: It is no valid archive.
    """
    return open_bytes(map_file(Path(path)), what=str(path))


def is_archive(path: Path | str) -> bool:
    """Whether a file's header says that it is an archive; nothing else of it is checked."""
    return is_of_format(path, FORMAT)
