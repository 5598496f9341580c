"""The safetensors header of an archive: of fixed length, so that a writer can stream what follows (ARCHIVE 1)."""

from sparsetv.archive.manifest import FORMAT
from sparsetv.wire.header import encode_header, place

DATA = "sparsetv.data"
MANIFEST = "__sparsetv__"
HEADER_BYTES = 512
"""ARCHIVE 1.2: length prefix and header."""


def header(*, data_bytes: int, manifest_bytes: int, manifest_sha256: str, version: str) -> bytes:
    """Length prefix and header, `HEADER_BYTES` bytes."""
    stored = place([(DATA, "U8", (data_bytes,)), (MANIFEST, "U8", (manifest_bytes,))])
    metadata = {"format": FORMAT, "manifest_sha256": manifest_sha256, "version": version}
    text = encode_header(stored, metadata)[8:].ljust(HEADER_BYTES - 8)
    return len(text).to_bytes(8, "little") + text
