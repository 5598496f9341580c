"""For every limit of formats/LIMITS.md something that takes an amount: the limit passes, one more is refused."""

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import zstandard
from evidence import GOLDEN, second_writer
from hostile import least_budget
from raw import repeated

from sparsetv.archive import manifest as archives
from sparsetv.checkpoint.locate import read_config as read_config_json
from sparsetv.checkpoint.locate import read_index
from sparsetv.compose.record import read_record
from sparsetv.container import manifest_parse
from sparsetv.container.envelope import open_manifest
from sparsetv.container.frames import check_text, decompress
from sparsetv.container.limits import DECODED_BYTES, TEXT_FREE, Limits
from sparsetv.container.names import check_component, check_tensor_name
from sparsetv.container.reader import decode, open_bytes
from sparsetv.maskfile import read_mask
from sparsetv.store.config import read_config
from sparsetv.store.refs import read_ref
from sparsetv.wire.fields import as_shape, check_version
from sparsetv.wire.header import header_size, parse_header

Amount = Any
Attempt = Callable[[Amount, Path], object]


def taken_apart(name: str) -> dict[str, Any]:
    """The manifest of a golden file."""
    stored = safetensors.deserialize((GOLDEN / name).read_bytes())  # type: ignore[no-untyped-call]
    manifest: dict[str, Any] = json.loads(zstandard.decompress(bytes(dict(stored)["__sparsetv__"]["data"])))
    return manifest


def edited(name: str, path: str, value: Any) -> dict[str, Any]:
    """The manifest of a golden file with one item changed."""
    manifest = copy.deepcopy(taken_apart(name))
    second_writer("case").put(path, value)(manifest)
    return manifest


def task_with(path: str, value: Callable[[Amount], Any], name: str = "extras") -> Attempt:
    return lambda n, _: manifest_parse.from_json(edited(f"valid/{name}.stv", path, value(n)))


def archive_with(path: str, value: Callable[[Amount], Any]) -> Attempt:
    return lambda n, _: archives.from_json(edited("archives/files.stv", path, value(n)))


def framed(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


def header_of(shape: bytes) -> None:
    data = framed(b'{"a":{"dtype":"U8","shape":%b,"data_offsets":[0,1]}}' % shape)
    parse_header(data, file_size=len(data) + 1, what="x")


def nested(depth: int, value: bytes = b"0") -> bytes:
    return b"[" * depth + value + b"]" * depth


def manifest_text(text: bytes) -> object:
    frame = second_writer("frames").frame(text)
    return open_manifest(memoryview(frame), sha256=hashlib.sha256(frame).hexdigest(), what="x")


def windowed(size: int) -> object:
    frames = second_writer("frames")
    return decompress(frames.reframe(frames.frame(b"abc"), window=(size - 1).bit_length()), size=3, what="x")


def budgeted(amount: int, path: Path) -> object:
    """The default of the budget stands for what a small file needs."""
    data = (GOLDEN / "valid" / "minimal.stv").read_bytes()
    return open_bytes(data, limits=Limits(decoded_bytes=least_budget(data) + DECODED_BYTES - amount))


def tensors_of_a_base(count: int, path: Path) -> object:
    manifest = taken_apart("valid/no_scope.stv")
    names = [f"{i:03}" for i in range(count)]
    lists = {"names": names, "dtypes": ["F32"] * count, "shapes": [[1]] * count, "tags": "0" * 8 * count}
    return manifest_parse.from_json({**manifest, "base": {**manifest["base"], **lists}})


def tensors_of_an_archive(count: int, path: Path) -> object:
    manifest = taken_apart("archives/files.stv")
    lists = {"names": [f"{i:03}" for i in range(count)], "dtypes": ["F32"] * count, "shapes": [[1]] * count}
    return archives.from_json({**manifest, "base": {**manifest["base"], **lists, "sha256": ["0" * 64] * count}})


def mask_with(shapes: bytes, path: Path) -> object:
    masks = second_writer("masks")
    data = masks.seal([masks.positions("b", [0])], masks.marked(shapes=shapes.decode()))
    (path / "m").write_bytes(data)
    return read_mask(path / "m", {"b": (5,)})


def archived_files(count: int, path: Path) -> object:
    manifest = taken_apart("archives/same.stv")
    more = [{"kind": "base", "name": f"{i}.txt", "sha256": "0" * 64, "size": 0} for i in range(count - 1)]
    return archives.from_json({**manifest, "files": more + manifest["files"]})


def headers_in_all(size: int, path: Path) -> object:
    manifest = taken_apart("archives/same.stv")
    parts = [25_000_000, 25_000_000, size - 50_000_000]
    files = [{**manifest["files"][0], "name": f"{i}.safetensors", "header": [n, 9]} for i, n in enumerate(parts)]
    return archives.from_json({**manifest, "files": files})


def coded(change: Callable[[int, Any, Any], dict[str, Any]]) -> Attempt:
    """A small task whose only block is coded as `change` says of an amount, the codecs and what the task holds."""

    def attempt(amount: int, path: Path) -> object:
        module, blocks = second_writer("content"), second_writer("blocks")
        content = module.Content([module.Tensor("w", "F32", [2, 4], {1: module.bits(1.0), 6: module.bits(1.0)})])
        options = change(amount, second_writer("newer"), content)
        sealed = second_writer("writer").seal(content, plans=[blocks.whole(content, **options)])
        return decode(open_bytes(sealed))

    return attempt


def with_parameter(kind: str, stream: Callable[[Any, Any], Any], name: str) -> Attempt:
    def options(amount: int, newer: Any, content: Any) -> dict[str, Any]:
        def make(cuts: Any) -> Any:
            made = stream(newer, cuts)
            made.parameters[name] = [amount]
            return made

        return {kind: make}

    return coded(options)


def multiples(amount: int, newer: Any, content: Any) -> dict[str, Any]:
    content.tensors[0].kept[6] = second_writer("content").bits(float(amount))
    return {"valued": lambda cuts: newer.level_stream(cuts, [1.0])}


def index_of(text: bytes, path: Path) -> object:
    (path / "index.json").write_bytes(text)
    return read_index(path / "index.json")


def long_config(size: int, path: Path) -> object:
    (path / "config.json").write_bytes(b"{}" + b" " * (size - 2))
    return read_config_json(path)


def shard_named(name: str, path: Path) -> object:
    """An index that names a shard as long as `name`."""
    file = path / "model.safetensors.index.json"
    file.write_text(json.dumps({"weight_map": {"a": name[: -len(".safetensors")] + ".safetensors"}}))
    return read_index(file)


def large_index(size: int, path: Path) -> object:
    with (path / "index.json").open("wb") as file:
        file.truncate(size)
    return read_index(path / "index.json")


def ref_of(text: bytes, path: Path) -> object:
    (path / "refs").mkdir(exist_ok=True)
    (path / "refs" / "a.json").write_bytes(text)
    return read_ref(path, "a")


def store_of(text: bytes, path: Path) -> object:
    (path / "sparsetv-store.json").write_bytes(text)
    return read_config(path)


def record_of(text: bytes, path: Path) -> object:
    (path / "sparsetv.json").write_bytes(text)
    return read_record(path)


def deep(read: Callable[[bytes, Path], object]) -> Attempt:
    """An object that holds lists, as deep as is asked for."""
    return lambda n, path: read(b'{"format":%b}' % nested(n - 1), path)


def long(read: Callable[[bytes, Path], object]) -> Attempt:
    return lambda n, path: read(b"{}" + b" " * (n - 2), path)


CELLS = lambda newer, cuts: newer.cell_stream(cuts, [newer.Classes([], [])])  # noqa: E731
READ: dict[str, list[tuple[Attempt, str]]] = {
    "wire.header.HEADER_BYTES": [
        (lambda n, _: header_size(n.to_bytes(8, "little") + b"{", file_size=n + 8, what="x"), "exceeds 25000000"),
        (archive_with("files.1.header", lambda n: [n + 8, 9]), "outside 0…25000008"),
    ],
    "wire.header.HEADER_DEPTH": [
        (lambda n, _: header_of(nested(n - 2)), "nested deeper than 4"),
        (lambda n, path: mask_with(b'{"b":%b}' % nested(n - 1, b"5"), path), "nested deeper than 4"),
    ],
    "wire.canonical.INTEGER_DIGITS": [
        (lambda n, _: header_of(b"[%b]" % (b"1" * n)), "integer of 21 digits"),
        (lambda n, _: manifest_text(b"1" * n), "integer of 21 digits"),
        (lambda n, path: mask_with(b'{"b":[%b]}' % (b"1" * n), path), "integer of 21 digits"),
    ],
    "container.limits.MANIFEST_BYTES": [
        (lambda n, _: manifest_text(b'"%b"' % (b"x" * (n - 2))), "manifest of .* limit")
    ],
    "container.limits.TEXT_FREE": [(lambda n, _: check_text(b"", size=n, what="x"), "may hold 1048576$")],
    "container.limits.TEXT_RATIO": [
        (lambda n, _: check_text(b"1", size=TEXT_FREE + n, what="x"), "in a frame of 1, which may hold 1048704$")
    ],
    "container.limits.MANIFEST_DEPTH": [(lambda n, _: manifest_text(nested(n)), "nested deeper than 12")],
    "wire.fields.DIMENSIONS": [(lambda n, _: as_shape([1] * n, where="x"), "too large")],
    "wire.fields.ENTRIES": [(lambda n, _: as_shape([n], where="x"), "too large")],
    "container.limits.NORM": [(task_with("tensors.l1.0", lambda n: n), "a norm larger than any tensor")],
    "container.limits.CARRIED_BYTES": [(task_with("files", lambda n: [{"name": "a", "size": n}]), "outside 0…")],
    "container.limits.FRAME_BYTES": [(task_with("blocks.0.positions.frames", lambda n: [n, 0]), "outside 0…")],
    "container.limits.BLOCK_ENTRIES_READ": [
        (task_with("blocks.0.pieces", lambda n: [0, [n - 1, 1]], "huge_shapes"), "kept entries, limit 2147483647")
    ],
    "container.limits.WINDOW_BYTES": [(lambda n, _: windowed(n), "a window of 268435456 bytes, limit")],
    "container.limits.DECODED_BYTES": [(budgeted, "decoding needs up to")],
    "container.limits.TENSOR_NAME_CHARS": [(lambda n, _: check_tensor_name("n" * n), "name of 513 characters")],
    "container.limits.TENSORS": [
        (tensors_of_a_base, "3 tensors, limit 2"),
        (tensors_of_an_archive, "more than 2 tensors"),
        (lambda n, path: mask_with(json.dumps({str(i): [1] for i in range(n)}).encode(), path), "3 tensors, limit 2"),
    ],
    "container.limits.NAME_CHARS": [(lambda n, _: check_component("n" * n, what="task name"), "129 characters")],
    "container.limits.NAME_BYTES": [
        (lambda n, _: check_component("é" * (n // 2) + "n" * (n % 2), what="task name"), "201 bytes")
    ],
    "container.limits.PROBE_SIDE": [
        (task_with("probe.count", lambda n: n, "probe"), "probe.count: 16777217 lies outside"),
        (task_with("probe.width", lambda n: n, "probe"), "probe.width: 16777217 lies outside"),
    ],
    "wire.fields.VERSION_DIGITS": [
        (lambda n, _: check_version("1".zfill(n) + ".0", major=1, kind="x"), "is not MAJOR.MINOR"),
        (lambda n, _: check_version("1." + "0" * n, major=1, kind="x"), "is not MAJOR.MINOR"),
    ],
    "container.gaps.LARGEST_SHIFT": [(coded(lambda n, newer, content: {"shifts": [n]}), "`shifts`")],
    "container.grid.CLASSES": [
        (with_parameter("placed", CELLS, "row_classes"), "`row_classes`"),
        (with_parameter("placed", CELLS, "column_classes"), "`column_classes`"),
    ],
    "container.levels.MOST": [
        (with_parameter("valued", lambda newer, cuts: newer.level_stream(cuts, [1.0]), "counts"), "`counts`")
    ],
    "container.levels.LARGEST_MULTIPLE": [(coded(multiples), "do not rise within 65535 units")],
    "container.positions.LARGEST_SEED": [
        (coded(lambda n, newer, content: {"placed": lambda cuts: newer.seeded_stream(cuts, n, [0])}), "`seed`")
    ],
    "draws.LARGEST": [
        (coded(lambda n, newer, content: {"placed": lambda cuts: newer.seeded_stream(cuts, 7, [n])}), "`least`")
    ],
    "archive.limits.FILES": [(archived_files, "10001 files; allowed are 1 to 10000")],
    "archive.limits.WHOLE_BYTES": [(archive_with("files.1.size", lambda n: n), "outside 0…")],
    "archive.limits.STORED_BYTES": [(archive_with("files.3.stored", lambda n: n), "outside 0…")],
    "archive.limits.FILE_BYTES": [(archive_with("files.3.size", lambda n: n), "limit 67108864")],
    "archive.limits.HEADERS_BYTES": [(headers_in_all, "headers of 67108865 bytes in all, limit 67108864")],
    "archive.limits.CODED_BYTES": [(archive_with("files.1.tensors.0.chunks", lambda n: [n]), "outside 0…")],
    "checkpoint.locate.INDEX_BYTES": [(large_index, "limit 10485760")],
    "checkpoint.locate.JSON_FILE_BYTES": [(long_config, "config.json: more than 10485760 bytes")],
    "checkpoint.locate.PART_BYTES": [(lambda n, path: shard_named("a" * n, path), "a shard is a .safetensors file")],
    "checkpoint.locate.PATH_BYTES": [
        (lambda n, path: shard_named("a/" * (n // 2) + "a" * (n % 2), path), "a shard is a .safetensors file")
    ],
    "checkpoint.locate.INDEX_DEPTH": [(deep(index_of), "nested deeper than 6")],
    "store.refs.REF_BYTES": [(long(ref_of), "more than 4096 bytes")],
    "store.refs.REF_DEPTH": [(deep(ref_of), "nested deeper than 1")],
    "store.config.CONFIG_BYTES": [(long(store_of), "more than 100 bytes")],
    "store.config.CONFIG_DEPTH": [(deep(store_of), "nested deeper than 6")],
    "compose.record.RECORD_BYTES": [(long(record_of), "more than 100 bytes")],
    "compose.record.RECORD_DEPTH": [(deep(record_of), "nested deeper than 6")],
    "jobs.convert.COPIES": [(repeated, "would become .*, limit 64 times; .* save them once")],
}
SMALLER: dict[str, tuple[int, list[str]]] = {
    "container.limits.MANIFEST_BYTES": (100, ["container.envelope.MANIFEST_BYTES"]),
    "container.limits.TENSORS": (
        2,
        ["container.manifest_parse.TENSORS", "archive.manifest.TENSORS", "maskfile.TENSORS"],
    ),
    "store.config.CONFIG_BYTES": (100, ["store.config.CONFIG_BYTES"]),
    "compose.record.RECORD_BYTES": (100, ["compose.record.RECORD_BYTES"]),
}
"""Limits that are tried at a smaller value, put into the modules that use them."""
