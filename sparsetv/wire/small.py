"""A whole file that has a largest size."""

import os
from pathlib import Path

from sparsetv.errors import FormatError


def read_small(path: Path, *, most: int) -> bytes:
    """The bytes of a file.

    Raises:
        FormatError: It is larger than `most`.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size  # asked for less than it may hold, `read` sets aside only that
        data = file.read(min(size, most) + 1)
    if len(data) > most:
        raise FormatError(f"{path}: more than {most} bytes; nothing that writes such files makes them so large")
    return data
