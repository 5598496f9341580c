"""A second writer of task files, from SPEC.md alone: it shares no code with sparsetv.

`seal` builds a file in layers. A caller may change a layer; all that lies above it (frame lengths, checksums, header)
is then built from the changed one, so that a broken file is wrong in one place only.
"""

import json
import struct
from collections.abc import Callable, Mapping
from itertools import groupby
from math import fsum
from typing import Any

from golden_writer.blocks import Block, Plan, encode_blocks, whole
from golden_writer.codecs import Stream
from golden_writer.content import SIZES, Content, Extra, base_hash, digest, list_digest, number, sha256, touched
from golden_writer.frames import frame

Stored = dict[str, tuple[str, list[int], bytes]]
"""Stored tensors in payload order: dtype, shape, bytes."""

Change = Callable[[Any], Any]

MANIFEST = "__sparsetv__"


def seal(
    content: Content,
    *,
    changes: Mapping[str, Change] | None = None,
    plans: list[Plan] | None = None,
    version: str | None = None,
) -> bytes:
    """A task file.

    Args:
        content: What it holds.
        changes: By layer (`streams`, `frames`, `stored`, `manifest`, `text`, `manifest_frame`, `header`, `header_text`,
            `file`): takes the layer's value and changes it in place, or returns another.
        plans: The blocks; one block of all tensors unless given.
        version: The version; the least that has all that the file uses unless given.
    """

    def at(name: str, value: Any) -> Any:
        changed = (changes or {}).get(name, lambda value: value)(value)
        return value if changed is None else changed

    blocks = at("streams", encode_blocks(content, [whole(content)] if plans is None else plans))
    for stream in (stream for block in blocks for stream in (block.positions, block.values)):
        stream.frames = [frame(raw) for raw in stream.raw]
    blocks = at("frames", blocks)
    if version is None:
        version = "1.1" if _required(blocks) or "budget" in content.changes else "1.0"
    stored = at("stored", _stored(content, blocks))
    text = at("text", canonical(at("manifest", _manifest(content, blocks, stored, version))))
    packed = at("manifest_frame", frame(text))
    stored = _in_order({MANIFEST: ("U8", [len(packed)], packed)}, stored)
    header = at("header_text", pad(canonical(at("header", _header(stored, sha256(packed), version)), sort=False)))
    return bytes(at("file", struct.pack("<Q", len(header)) + header + b"".join(data for _, _, data in stored.values())))


def canonical(value: Any, *, sort: bool = True) -> bytes:
    """JSON without whitespace (SPEC 1.3), keys sorted (3.1)."""
    return json.dumps(value, sort_keys=sort, separators=(",", ":"), ensure_ascii=False).encode()


def pad(header: bytes) -> bytes:
    """The header, padded (SPEC 1.3)."""
    return header + b" " * (-len(header) % 8)


def _stored(content: Content, blocks: list[Block]) -> Stored:
    flat = {
        "sparsetv.positions": b"".join(data for block in blocks for data in block.positions.frames),
        "sparsetv.values": b"".join(data for block in blocks for data in block.values.frames),
        "sparsetv.files": frame(b"".join(content.files.values())),
    }
    stored: Stored = {name: ("U8", [len(data)], data) for name, data in flat.items() if data}
    stored |= {f"extra.{x.name}": (x.dtype, x.shape, x.data) for x in content.extras if x.kind != "alias"}
    if content.probe is not None:
        flat_outputs = [output for row in content.probe for output in row]
        shape = [len(content.probe), len(content.probe[0])]
        stored["sparsetv.probe"] = ("F32", shape, struct.pack(f"<{len(flat_outputs)}f", *flat_outputs))
    return dict(sorted(stored.items(), key=lambda item: (-SIZES[item[1][0]], item[0])))


def _in_order(manifest: Stored, stored: Stored) -> Stored:
    """The manifest in its place among the others (SPEC 1.5), whatever their order."""
    wide = {name: item for name, item in stored.items() if SIZES.get(item[0], 1) > 1}
    return wide | manifest | {name: item for name, item in stored.items() if name not in wide}


def _header(stored: Stored, manifest_sha256: str, version: str) -> dict[str, Any]:
    metadata = {"format": "sparsetv", "manifest_sha256": manifest_sha256, "version": version}
    header: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    for name, (dtype, shape, data) in stored.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    return header


def _manifest(content: Content, blocks: list[Block], stored: Stored, version: str) -> dict[str, Any]:
    probe = {
        "count": len(content.probe), "distance": 0.25, "kind": "pixels", "outputs": "logits", "scale": 1.5, "seed": 7,
        "params": {"channels": 1, "height": 2, "width": 2}, "width": len(content.probe[0]),
    } if content.probe is not None else None  # fmt: skip
    return {
        "base": _base(content),
        "blocks": [
            {"pieces": block.pieces, "positions": _stream(block.positions), "values": _stream(block.values)}
            for block in blocks
        ],
        "digest": digest(content),
        "extras": [_extra(extra) for extra in content.extras],
        "features": {"optional": ["budget"] if "budget" in content.changes else [], "required": _required(blocks)},
        "files": [{"name": name, "size": len(data)} for name, data in content.files.items()],
        "finetuned": {"dtype": None, "missing": [], "outside": [], "prefix": list(content.prefix)},
        "name": "golden",
        "payload_sha256": sha256(b"".join(data for _, _, data in stored.values())),
        "probe": probe,
        "recipe": {
            "allocation": "global", "density": 0.5, "exclude": [], "include": [], "localizer": "dataless",
            "preset": "all", "values": "exact",
        },
        "scope": _runs([i for i, tensor in enumerate(content.tensors) if tensor.scope]),
        "tensors": {
            "l1": [_six(fsum(abs(number(value)) for value in tensor.kept.values())) for tensor in content.scope],
            "l2": [_six(fsum(number(value) ** 2 for value in tensor.kept.values()) ** 0.5) for tensor in content.scope],
        },
        "version": version, "writer": "golden/1",
        **content.changes,
    }  # fmt: skip


def _required(blocks: list[Block]) -> list[str]:
    """Features (SPEC 9.2) that some blocks need."""
    return sorted(
        {s.codec for block in blocks for s in (block.positions, block.values)} & {"cells", "levels", "seeded"}
    )


def _six(value: float) -> float:
    return float(f"{value:.6g}")


def _runs(indices: list[int]) -> list[list[int]]:
    runs = groupby(enumerate(indices), key=lambda pair: pair[1] - pair[0])
    lists = [[index for _, index in run] for _, run in runs]
    return [[run[0], len(run)] for run in lists]


def _base(content: Content) -> dict[str, Any]:
    return {
        "commit": None,
        "digest": list_digest(content.tensors),
        "dtypes": [tensor.dtype for tensor in content.tensors],
        "names": [tensor.name for tensor in content.tensors],
        "repo": None,
        "shapes": [tensor.shape for tensor in content.tensors],
        "tags": "".join(base_hash(tensor)[:4].hex() for tensor in content.tensors),
        "touched": touched(content),
    }


def _stream(stream: Stream) -> dict[str, Any]:
    return {"codec": stream.codec, "frames": [len(data) for data in stream.frames], **stream.parameters}


def _extra(extra: Extra) -> dict[str, Any]:
    source = {"rows": {"base": extra.source}, "alias": {"of": extra.source}}.get(extra.kind, {})
    return {"dtype": extra.dtype, "kind": extra.kind, "name": extra.name, "shape": extra.shape, **source}
