"""zstd frames (SPEC 5), and how to put another header on one; shares no code with sparsetv."""

import struct

import zstandard


def frame(raw: bytes, *, level: int = 19) -> bytes:
    """One zstd frame (SPEC 5.1); nothing for an empty stream (4.3)."""
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)
    return compressor.compress(raw) if raw else b""


def reframe(
    original: bytes,
    *,
    size: int | None = None,
    checksum: bool = True,
    dictionary: bytes = b"",
    window: int | None = None,
) -> bytes:
    """A frame with another frame header (RFC 8878, 3.1.1.1) and the same blocks and checksum.

    Args:
        original: The frame.
        size: Content size to declare, as 8 bytes; the true one unless given.
        checksum: Whether the frame says that it ends in a checksum.
        dictionary: Dictionary id, 0 or 1 bytes.
        window: Base-2 logarithm of a window to declare; else the frame is a single segment.
    """
    true_size = zstandard.get_frame_parameters(original).content_size
    descriptor = 3 << 6 | (window is None) << 5 | checksum << 2 | len(dictionary)
    window_byte = b"" if window is None else bytes([(window - 10) << 3])
    size_bytes = struct.pack("<Q", true_size if size is None else size)
    blocks = original[zstandard.frame_header_size(original) :]
    return original[:4] + bytes([descriptor]) + window_byte + dictionary + size_bytes + blocks
