"""Limits of the format, each with its clause of formats/SPEC.md."""

from dataclasses import dataclass

MANIFEST_BYTES = 1 << 26
"""SPEC 3.1: largest decompressed manifest."""

MANIFEST_DEPTH = 12
"""SPEC 3.1: deepest nesting of the manifest."""

NAME_CHARS = 128
"""SPEC 6.2: longest task or file name."""

NAME_BYTES = 200
"""SPEC 6.2: longest task or file name in UTF-8."""

TENSOR_NAME_CHARS = 512
"""SPEC 6.1: longest tensor name."""

TENSORS = 1_000_000
"""SPEC 6.1: most tensors of a base."""

BLOCK_ENTRIES = 1 << 17
"""SPEC 4.4: kept entries at which a writer closes a block."""

BLOCK_ENTRIES_READ = (1 << 31) - 1
"""SPEC 4.4: most kept entries of a block that a reader accepts."""

WINDOW_BYTES = 1 << 27
"""SPEC 5.1: largest zstd window."""

DECODED_BYTES = 8 << 30
"""SPEC 5.2: default memory budget of a reader."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reader may spend.

    Attributes:
        decoded_bytes: Most bytes that decoding one file may allocate.
    """

    decoded_bytes: int = DECODED_BYTES
