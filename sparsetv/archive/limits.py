"""Limits of archives, each with its clause of formats/ARCHIVE.md."""

FILES = 10_000
"""ARCHIVE 2.4: most files of a checkpoint."""

WHOLE_BYTES = 1 << 62
"""ARCHIVE 2.4: largest file of a checkpoint."""

STORED_BYTES = 1 << 27
"""ARCHIVE 2.4: longest frame of a file that is no weights."""

FILE_BYTES = 1 << 26
"""ARCHIVE 2.5: largest file that is no weights."""

HEADERS_BYTES = 1 << 26
"""ARCHIVE 3.3: bytes of the headers of all weight files together."""

CODED_BYTES = 1 << 40
"""ARCHIVE 3.4: longest chunk."""

CHUNK_ELEMENTS = 1 << 18
"""ARCHIVE 4.1: elements of a chunk; sorting so many by class stays inside a processor's cache."""
