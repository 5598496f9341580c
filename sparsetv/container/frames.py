"""zstd frames whose size is known before they are opened (SPEC 5)."""

import numpy as np
import zstandard

from sparsetv.arrays import Bytes
from sparsetv.container.limits import TEXT_FREE, TEXT_RATIO, WINDOW_BYTES
from sparsetv.errors import FormatError

_SMALL = 1 << 17  # at or below this size a slow level costs milliseconds


def compress(raw: bytes | Bytes) -> bytes:
    """One frame with content size and checksum; empty input gives empty output, no frame.

    Small inputs take the smaller of level 1 (Huffman only, best on dense gaps) and level 19.
    """
    data = np.ascontiguousarray(raw).data if isinstance(raw, np.ndarray) else memoryview(raw)
    if not data.nbytes:
        return b""
    levels = (1, 19) if data.nbytes <= _SMALL else (1,)
    return min((_compress(data, level) for level in levels), key=len)


def compress_hard(raw: bytes) -> bytes:
    """One frame at zstd's slow level, for what is small and read by every reader: headers and manifests."""
    return _compress(memoryview(raw), 19)


def _compress(data: memoryview, level: int) -> bytes:
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)
    return compressor.compress(data)


def decompress(frame: bytes | memoryview, *, size: int, what: str) -> Bytes:
    """The content of one frame, checked before anything is allocated.

    Args:
        frame: The frame, all of it and nothing else; empty where `size` is 0.
        size: Decompressed size that the caller has computed.
        what: Name of the stream, for the message.

    Returns:
        uint8 array of `size` bytes, read-only.

    Raises:
        FormatError: Anything about the frame is not as SPEC 5.1 says.
    """
    if not size:
        if len(frame):
            raise FormatError(f"{what}: expected no frame for an empty stream, found {len(frame)} bytes")
        return np.zeros(0, np.uint8)
    _check_parameters(frame, size=size, what=what)
    decoder = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES)
    try:
        content = decoder.decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FormatError(f"{what}: damaged zstd frame ({error}); fetch the file again") from None
    if len(content) != size:
        raise FormatError(f"{what}: frame holds {len(content)} bytes, expected {size}")
    return np.frombuffer(content, np.uint8)


def longest_text(frame_bytes: int) -> int:
    """Most bytes of JSON that a frame of some length may hold (SPEC 3.1)."""
    return TEXT_FREE + TEXT_RATIO * frame_bytes


def check_text(frame: bytes | memoryview, *, size: int, what: str) -> None:
    """Refuse a frame whose JSON takes far longer to parse than to send.

    Raises:
        FormatError: `size` bytes are more than such a frame may hold.
    """
    most = longest_text(len(frame))
    if size > most:
        raise FormatError(f"{what} of {size} bytes in a frame of {len(frame)}, which may hold {most}")


def content_size(frame: bytes | memoryview, *, what: str) -> int:
    """Decompressed size that the frame declares; for the manifest alone, whose size nothing else tells."""
    return int(_parameters(frame, what=what).content_size)


def _parameters(frame: bytes | memoryview, *, what: str) -> zstandard.FrameParameters:
    try:
        parameters = zstandard.get_frame_parameters(frame)
    except zstandard.ZstdError as error:
        raise FormatError(f"{what}: not a zstd frame ({error})") from None
    if parameters.content_size in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR):
        raise FormatError(f"{what}: frame does not declare its content size")
    return parameters


def _check_parameters(frame: bytes | memoryview, *, size: int, what: str) -> None:
    parameters = _parameters(frame, what=what)
    if parameters.content_size != size:
        raise FormatError(f"{what}: frame declares {parameters.content_size} bytes, expected {size}")
    if not parameters.has_checksum:
        raise FormatError(f"{what}: frame has no content checksum")
    if parameters.dict_id:
        raise FormatError(f"{what}: frame needs dictionary {parameters.dict_id}; none is allowed")
    if parameters.window_size > WINDOW_BYTES:
        raise FormatError(f"{what}: frame needs a window of {parameters.window_size} bytes, limit {WINDOW_BYTES}")
