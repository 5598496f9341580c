"""Numbers with units, for people."""

import re

BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
"""Bytes per unit, in lower case."""

_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-z]*)\s*", re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """Bytes from text such as `4GB`, `500 MiB` or `1000`, rounded down.

    Raises:
        ValueError: It is no size.
    """
    found = _SIZE.fullmatch(text)
    if found is None or found[2].lower() not in BYTES:
        raise ValueError(f"{text!r} is no size; write 4GB, 500MiB or a number of bytes")
    return int(float(found[1]) * BYTES[found[2].lower()])


def human_bytes(size: float) -> str:
    """Bytes with a decimal unit, three digits: 403 kB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.95 else f"{size:.3g} {unit}"
        size /= 1000
    raise AssertionError  # the loop returns at GB
