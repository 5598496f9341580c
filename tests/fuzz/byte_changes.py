"""Changes to bytes and to zstd frames."""

import random
from typing import Any

import zstandard
from hostile import frame, framed

_LARGEST = 1 << 20
_SKIPPABLE = b"\x50\x2a\x4d\x18"


def scramble(source: random.Random, data: bytes) -> bytes:
    """Some bytes changed, cut, doubled or swapped."""
    kind, place = source.randrange(8), source.randrange(len(data) + 1)
    if kind == 0 or not data:
        return data + source.randbytes(source.randrange(1, 40))
    if kind == 1:
        return data[:place]
    if kind == 2:
        return data[:place] + data[source.randrange(len(data)) :]
    if kind == 3:
        return bytes(len(data)) if source.randrange(2) else b"\xff" * len(data)
    changed = bytearray(data)
    for _ in range(source.choice([1, 1, 1, 4])):
        changed[source.randrange(len(data))] = source.choice([0, 1, 0x7F, 0x80, 0xFE, 0xFF, source.randrange(256)])
    return bytes(changed)


def scramble_header(source: random.Random, blob: bytes) -> bytes:
    """A safetensors file whose header alone is scrambled, with a length that fits again."""
    size = 8 + int.from_bytes(blob[:8], "little")
    return framed(scramble(source, blob[8:size]), blob[size:])


def reframe(source: random.Random, old: bytes) -> bytes:
    """The content of a frame, or how it is framed, changed."""
    try:
        content = _content(old) if old else b""
    except zstandard.ZstdError:  # an earlier change left no frame
        return scramble(source, old)
    kind = source.randrange(10)
    if kind < 6:
        return frame(scramble(source, content))
    if kind == 6:
        return _framed_otherwise(source, content)
    skippable = _SKIPPABLE + len(content).to_bytes(4, "little") + content
    return source.choice([b"", old + b"\0", old + old, skippable, skippable + old, old[:-1]])


def _content(old: bytes) -> bytes:
    """What a frame holds; an earlier change may have left one that declares any size, which is set aside at once."""
    declared = zstandard.get_frame_parameters(old).content_size
    if _LARGEST < declared != zstandard.CONTENTSIZE_UNKNOWN:
        raise zstandard.ZstdError("no frame of a seed is so large")
    return zstandard.ZstdDecompressor().decompress(old, max_output_size=_LARGEST)


def _framed_otherwise(source: random.Random, content: bytes) -> bytes:
    options: list[dict[str, Any]] = [
        {"write_checksum": False}, {"write_content_size": False},
        {"compression_params": zstandard.ZstdCompressionParameters.from_level(1, window_log=28)},
    ]  # fmt: skip
    chosen = source.choice(options)
    if "compression_params" in chosen:
        return zstandard.ZstdCompressor(**chosen).compress(content)
    return zstandard.ZstdCompressor(**{"write_checksum": True, **chosen}).compress(content)
