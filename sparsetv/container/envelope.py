"""The manifest as a frame, in task files and archives alike (SPEC 3.1 and 5)."""

import hashlib
from typing import Any

from sparsetv.container.frames import check_text, compress_hard, content_size, decompress, longest_text
from sparsetv.container.limits import JSON_BYTES, MANIFEST_BYTES, MANIFEST_DEPTH, TEXT_RATIO, Limits
from sparsetv.errors import FormatError, LimitError
from sparsetv.wire import canonical


def seal_manifest(value: dict[str, Any]) -> tuple[bytes, Any]:
    """(frame, the value as a reader will find it).

    Raises:
        LimitError: The manifest would be longer than SPEC 3.1 allows.
    """
    text = canonical.dumps(value)
    if len(text) > MANIFEST_BYTES:
        raise LimitError(f"the manifest would take {len(text)} bytes, limit {MANIFEST_BYTES}")
    frame = compress_hard(text)
    if len(text) > longest_text(len(frame)):
        raise LimitError(
            f"the manifest would take {len(text)} bytes in a frame of {len(frame)}, limit {TEXT_RATIO} to 1"
        )
    return frame, canonical.loads(text, what="manifest", depth=MANIFEST_DEPTH)


def open_manifest(
    frame: memoryview, *, sha256: str | None, what: str, limits: Limits | None = None, header_bytes: int = 0
) -> Any:
    """The JSON value of a manifest's frame.

    Args:
        frame: The frame.
        sha256: Its SHA-256, as the file's header says.
        what: The file, for messages.
        limits: What parsing it may spend.
        header_bytes: Length of the header that was parsed before, which counts, too.

    Raises:
        FormatError: The hash is another, or it is no frame of canonical JSON.
        LimitError: Parsing it would pass `limits`.
    """
    if hashlib.sha256(frame).hexdigest() != sha256:
        raise FormatError(f"{what}: SHA-256 of the manifest differs from the header's; damaged, fetch it again")
    size = content_size(frame, what=f"{what}: manifest")
    if not 0 < size <= MANIFEST_BYTES:
        raise FormatError(f"{what}: manifest of {size} bytes, limit {MANIFEST_BYTES}")
    check_text(frame, size=size, what=f"{what}: manifest")
    (limits or Limits()).allow(JSON_BYTES * (header_bytes + size), what=what)
    text = decompress(frame, size=size, what=f"{what}: manifest").tobytes()
    value = canonical.loads(text, what=f"{what}: manifest", depth=MANIFEST_DEPTH)
    if canonical.dumps(value, what=f"{what}: manifest") != text:
        raise FormatError(f"{what}: manifest is not in canonical form")
    return value
