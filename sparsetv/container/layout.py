"""The safetensors header of a task file, which follows from its manifest (SPEC 1 and 2)."""

from sparsetv.container.manifest import Manifest
from sparsetv.dtypes import SIZES
from sparsetv.wire.header import Stored, encode_header, place

MANIFEST = "__sparsetv__"
POSITIONS = "sparsetv.positions"
VALUES = "sparsetv.values"
FILES = "sparsetv.files"
PROBE = "sparsetv.probe"
EXTRA = "extra."


def stored_tensors(manifest: Manifest, *, manifest_bytes: int, files_bytes: int) -> list[Stored]:
    """Every stored tensor in payload order.

    Args:
        manifest: The manifest.
        manifest_bytes: Length of the manifest's frame.
        files_bytes: Length of the frame of the carried files; 0 where there is none.
    """
    sizes = {
        POSITIONS: sum(block.positions.size for block in manifest.blocks),
        VALUES: sum(block.values.size for block in manifest.blocks),
        FILES: files_bytes,
    }
    entries: list[tuple[str, str, tuple[int, ...]]] = [(MANIFEST, "U8", (manifest_bytes,))]
    entries += [(name, "U8", (size,)) for name, size in sizes.items() if size]
    entries += [(EXTRA + extra.name, extra.dtype, extra.shape) for extra in manifest.extras if extra.kind != "alias"]
    if manifest.probe is not None:
        entries.append((PROBE, "F32", (manifest.probe.count, manifest.probe.width)))
    entries.sort(key=lambda entry: (-SIZES[entry[1]], entry[0]))
    return place(entries)


def header(stored: list[Stored], *, manifest_sha256: str, version: str) -> bytes:
    """Length prefix and canonical header.

    Raises:
        LimitError: It would be longer than a safetensors header may be.
    """
    metadata = {"format": "sparsetv", "manifest_sha256": manifest_sha256, "version": version}
    return encode_header(stored, metadata)
