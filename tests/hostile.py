"""Builders for broken and hostile input: checkpoints, task files taken apart and put together again, listings."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard
from click.testing import CliRunner, Result

from sparsetv.cli import group
from sparsetv.container.limits import Limits
from sparsetv.container.reader import open_bytes
from sparsetv.errors import LimitError, SparseTVError
from sparsetv.jobs.options import PackOptions
from sparsetv.jobs.pack import pack
from sparsetv.localize.scope import Scope
from sparsetv.taskfile import write_task

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]

DTYPES = {
    np.dtype("f4"): "F32", np.dtype("f2"): "F16", np.dtype("f8"): "F64", np.dtype("u1"): "U8", np.dtype("i8"): "I64",
    np.dtype("u2"): "BF16", np.dtype("?"): "BOOL", np.dtype("i1"): "I8",
}  # fmt: skip
"""safetensors dtype by numpy dtype; uint16 arrays are bfloat16 bit patterns."""
SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "BF16": 2, "F16": 2, "F32": 4, "F64": 8, "I64": 8}

QUERY = "encoder.layer.0.attention.query.weight"
DENSE = "encoder.layer.1.dense.weight"
BIAS = "encoder.layer.1.dense.bias"
WORDS = "embeddings.word_embeddings.weight"


@dataclass(frozen=True, slots=True)
class Raw:
    """A tensor as a header may describe it, true or not."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def raw(array: Array) -> Raw:
    return Raw(DTYPES[array.dtype], array.shape, np.ascontiguousarray(array).tobytes())


def framed(header: bytes, payload: bytes = b"") -> bytes:
    """Length prefix, header, payload."""
    return len(header).to_bytes(8, "little") + header + payload


def safetensors(tensors: Mapping[str, Array | Raw], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file, written without the package."""
    entries: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    payload = b""
    for name, tensor in tensors.items():
        item = tensor if isinstance(tensor, Raw) else raw(tensor)
        stop = len(payload) + len(item.data)
        entries[name] = {"dtype": item.dtype, "shape": list(item.shape), "data_offsets": [len(payload), stop]}
        payload += item.data
    return framed(json.dumps(entries, separators=(",", ":")).encode(), payload)


def base_tensors(seed: int = 0, dtype: str = "f4") -> dict[str, Array]:
    random = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        WORDS: (12, 4), QUERY: (8, 8), "encoder.layer.0.attention.query.bias": (8,), DENSE: (6, 5), BIAS: (7,),
        "encoder.layer.1.gain": (), "pooler.dense.weight": (4, 4),
    }  # fmt: skip
    return {name: np.asarray(random.normal(size=shape), dtype) for name, shape in shapes.items()}


def tuned_tensors(base: Tensors, seed: int = 1) -> dict[str, Array]:
    """The base with noise everywhere but in its embeddings."""
    random = np.random.default_rng(seed)
    return {
        name: value.copy() if name == WORDS else np.asarray(value + 0.1 * random.normal(size=value.shape), value.dtype)
        for name, value in base.items()
    }


def checkpoint(path: Path, tensors: Mapping[str, Array | Raw], config: Mapping[str, Any] | None = None) -> Path:
    """A checkpoint directory of one file."""
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(safetensors(tensors, {"format": "pt"}))
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    return path


def sharded(path: Path, shards: Mapping[str, Tensors], weight_map: Mapping[str, Any] | None = None) -> Path:
    """A checkpoint directory of several files and an index."""
    path.mkdir(parents=True)
    true_map = {name: shard for shard, tensors in shards.items() for name in tensors}
    for shard, tensors in shards.items():
        (path / shard).write_bytes(safetensors(tensors, {"format": "pt"}))
    index = {"metadata": {}, "weight_map": dict(true_map if weight_map is None else weight_map)}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return path


@dataclass(frozen=True, slots=True)
class Pair:
    """A base and its fine-tune on disk."""

    base: Path
    tuned: Path


def make_pair(room: Path, *, config: Mapping[str, Any] | None = None) -> Pair:
    base = base_tensors()
    return Pair(
        checkpoint(room / "base", base, config or {"kind": "base"}),
        checkpoint(room / "tuned", tuned_tensors(base), config or {"kind": "tuned"}),
    )


def pack_to(path: Path, base: Path, tuned: Path, *, name: str | None = None, density: float = 0.2) -> Path:
    options = PackOptions(density=density, scope=Scope("all"))
    write_task(path, pack(base, tuned, name=name, options=options))
    return path


def run(*words: object) -> Result:
    """A command in this process; a known error becomes its exit code and one line, as `main` does."""
    result = CliRunner().invoke(group, [str(word) for word in words], standalone_mode=False)
    if result.exception is not None and not isinstance(result.exception, SparseTVError | OSError):
        raise result.exception
    return result


def listing(*roots: Path) -> dict[str, str]:
    """Everything below some directories: kind, mode and content of each entry; lock files are left out."""
    found = {}
    for root in roots:
        for path in sorted(root.rglob("*")):
            if not path.name.endswith(".sparsetv-lock"):
                found[str(path)] = _describe(path)
    return found


def _describe(path: Path) -> str:
    if path.is_symlink():
        return f"link {path.readlink()}"
    if path.is_dir():
        return "directory"
    if not path.is_file():
        return "special"
    return f"file {path.stat().st_mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"


# Task files taken apart and put together again, without the package's own writer.


@dataclass(frozen=True, slots=True)
class Parts:
    """A task file: manifest, stored tensors other than the manifest's, and the version in its header."""

    manifest: dict[str, Any]
    stored: dict[str, bytes]
    version: str = "1.0"


def take_apart(data: bytes) -> Parts:
    size = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:size])
    version = header.pop("__metadata__")["version"]
    stored = {
        name: data[size + item["data_offsets"][0] : size + item["data_offsets"][1]] for name, item in header.items()
    }
    manifest = json.loads(zstandard.ZstdDecompressor().decompress(stored.pop("__sparsetv__")))
    return Parts(manifest, stored, version)


def frame(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=19, write_checksum=True, write_content_size=True).compress(content)


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def put_together(parts: Parts, *, text: bytes | None = None) -> bytes:
    """A task file whose hashes and header fit its manifest; `text` stands in for the manifest's canonical JSON."""
    kinds = _kinds(parts)
    order = sorted(kinds, key=lambda name: (-SIZES.get(kinds[name][0], 1), name))
    payload_hash = hashlib.sha256()
    for name in order:
        payload_hash.update(parts.stored.get(name, b""))
    manifest = {**parts.manifest, "payload_sha256": payload_hash.hexdigest()}
    head = frame(canonical(manifest) if text is None else text)
    kinds["__sparsetv__"] = ("U8", [len(head)])
    order = sorted(kinds, key=lambda name: (-SIZES.get(kinds[name][0], 1), name))
    metadata = {"format": "sparsetv", "manifest_sha256": hashlib.sha256(head).hexdigest(), "version": parts.version}
    header: dict[str, Any] = {"__metadata__": metadata}
    start, payload = 0, []
    for name in order:
        content = head if name == "__sparsetv__" else parts.stored.get(name, b"")
        dtype, shape = kinds[name]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + len(content)]}
        start += len(content)
        payload.append(content)
    encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    return framed(encoded + b" " * (-len(encoded) % 8), b"".join(payload))


def _kinds(parts: Parts) -> dict[str, tuple[str, Any]]:
    """Dtype and shape of each stored tensor: from the manifest where it says so, else from the bytes."""
    kinds: dict[str, tuple[str, Any]] = {name: ("U8", [len(data)]) for name, data in parts.stored.items()}
    probe = parts.manifest.get("probe")
    if "sparsetv.probe" in kinds and isinstance(probe, dict):
        kinds["sparsetv.probe"] = ("F32", [probe.get("count"), probe.get("width")])
    extras = parts.manifest.get("extras")
    for extra in extras if isinstance(extras, list) else []:
        if isinstance(extra, dict) and f"extra.{extra.get('name')}" in kinds:
            dtype = extra.get("dtype")
            kinds[f"extra.{extra['name']}"] = (dtype if isinstance(dtype, str) else "U8", extra.get("shape"))
    return kinds


def with_manifest(data: bytes, path: Sequence[str | int], value: Any) -> bytes:
    """A task file with one value of its manifest replaced and every hash repaired."""
    parts = take_apart(data)
    place: Any = parts.manifest
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return put_together(parts)


def least_budget(data: bytes) -> int:
    """The smallest memory limit under which a task file is opened: the last of the needs that its reader names."""
    limit = 1
    while True:
        try:
            open_bytes(data, limits=Limits(limit))
            return limit
        except LimitError as error:
            found = re.search(r"decoding needs up to (\d+) bytes, limit \d+; raise the limit", str(error))
            assert found is not None
            assert int(found[1]) > limit
            limit = int(found[1])


DIGEST = re.compile(r"content digest is (\w{64}), the manifest says")
"""What a reader says of a file whose content is not that of its digest."""


def outcome(action: Callable[[], object]) -> Exception | None:
    """The known error that `action` ends with, or None where it ends well."""
    try:
        action()
    except (SparseTVError, OSError) as error:
        return error
    return None
