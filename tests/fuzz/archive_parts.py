"""Archives taken apart and put together again, without the package's own writer."""

import hashlib
import json
from typing import Any

import zstandard


def take_apart(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Manifest and data of an archive."""
    size = int.from_bytes(data[:8], "little")
    start, stop = json.loads(data[8 : 8 + size])["__sparsetv__"]["data_offsets"]
    frame = data[8 + size + start : 8 + size + stop]
    return json.loads(zstandard.ZstdDecompressor().decompress(frame)), data[8 + size : 8 + size + start]


def put_together(manifest: dict[str, Any], data: bytes, *, text: bytes | None = None) -> bytes:
    """An archive whose hashes and header fit its manifest; `text` stands in for the manifest's canonical JSON."""
    manifest = {**manifest, "data_sha256": hashlib.sha256(data).hexdigest()}
    frame = zstandard.ZstdCompressor(write_checksum=True, write_content_size=True).compress(
        canonical(manifest) if text is None else text
    )
    version = manifest.get("version")
    metadata = {
        "format": "sparsetv-archive", "manifest_sha256": hashlib.sha256(frame).hexdigest(),
        "version": version if isinstance(version, str) else "1.0",
    }  # fmt: skip
    ends = [len(data), len(data) + len(frame)]
    header = {
        "__metadata__": metadata,
        "sparsetv.data": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]},
        "__sparsetv__": {"dtype": "U8", "shape": [len(frame)], "data_offsets": ends},
    }
    raw = canonical(header, sort=False)
    raw = raw.ljust(max(504, len(raw) + -len(raw) % 8))
    return len(raw).to_bytes(8, "little") + raw + data + frame


def canonical(value: Any, *, sort: bool = True) -> bytes:
    """Canonical JSON, lone surrogates let through."""
    text = json.dumps(value, sort_keys=sort, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")
