"""Mask files from MASK.md alone, in plain Python; shares no code with sparsetv."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from golden_writer.writer import Change, canonical, pad

Shapes = dict[str, list[int]]
"""Shape per tensor of the scope."""


@dataclass
class Stored:
    """One stored tensor."""

    name: str
    dtype: str
    shape: list[int]
    data: bytes


def positions(name: str, kept: list[int]) -> Stored:
    """Form 2.2."""
    return Stored(name, "I64", [len(kept)], struct.pack(f"<{len(kept)}q", *kept))


def boolean(name: str, shape: list[int], kept: list[int]) -> Stored:
    """Form 2.3."""
    entries = 1
    for side in shape:
        entries *= side
    return Stored(name, "BOOL", shape, bytes(place in kept for place in range(entries)))


def marked(**more: str) -> dict[str, str]:
    """Metadata, and what else is in it."""
    return {"format": "sparsetv-mask", "version": "1.0", **more}


def seal(tensors: list[Stored], metadata: dict[str, str], *, changes: Mapping[str, Change] | None = None) -> bytes:
    """A mask file in layers that a caller may change: `header`, `text`, `payload`, `file`."""

    def at(name: str, value: Any) -> Any:
        changed = (changes or {}).get(name, lambda value: value)(value)
        return value if changed is None else changed

    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for tensor in tensors:
        offsets = [end, end := end + len(tensor.data)]
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets}
    text = at("text", pad(canonical(at("header", header), sort=False)))
    payload = at("payload", b"".join(tensor.data for tensor in tensors))
    return bytes(at("file", struct.pack("<Q", len(text)) + text + payload))


def as_sparsetv_writes(kept: dict[str, list[int]], scope: Shapes, localizer: dict[str, Any]) -> bytes:
    """A mask as clause 4.1 says."""
    metadata = {
        "format": "sparsetv-mask",
        "localizer": json.dumps(localizer, sort_keys=True, separators=(",", ":")),
        "shapes": canonical(scope).decode(),
        "version": "1.0",
    }
    return seal([positions(name, places) for name, places in sorted(kept.items()) if places], metadata)
