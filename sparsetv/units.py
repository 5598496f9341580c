"""Numbers with units, for people."""


def human_bytes(size: float) -> str:
    """Bytes with a decimal unit, three digits: 403 kB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.95 else f"{size:.3g} {unit}"
        size /= 1000
    raise AssertionError  # the loop returns at GB
