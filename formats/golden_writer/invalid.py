"""The invalid golden files."""

from collections.abc import Iterator

from golden_writer import broken_files, broken_manifests, broken_newer, broken_streams
from golden_writer.case import Case


def cases() -> Iterator[Case]:
    """Every invalid golden file, in a stable order."""
    yield from broken_files.cases()
    yield from broken_manifests.cases()
    yield from broken_streams.cases()
    yield from broken_newer.cases()
