"""The manifest of an archive as values, to JSON and from it (ARCHIVE 2 and 3)."""

from dataclasses import dataclass, field
from typing import Any

from sparsetv.archive.limits import CODED_BYTES, FILE_BYTES, FILES, HEADERS_BYTES, STORED_BYTES, WHOLE_BYTES
from sparsetv.archive.names import check_other_name, check_weights_name
from sparsetv.container.limits import TENSORS
from sparsetv.container.names import check_component, check_tensor_name
from sparsetv.dtypes import SIZES
from sparsetv.errors import FormatError
from sparsetv.wire.fields import Fields, as_hex, as_integer, as_list, as_shape, check_version
from sparsetv.wire.header import HEADER_BYTES

FORMAT = "sparsetv-archive"
VERSION = "1.0"
MAJOR = 1


@dataclass(frozen=True, slots=True)
class BaseTensor:
    """One tensor of the base that an archive needs; `sha256` as 64 hex digits."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """How one tensor of a weight file is stored.

    Attributes:
        base: Index of its base tensor; None where it is coded on its own.
        chunks: Bytes of each chunk.
    """

    base: int | None
    chunks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of the checkpoint.

    Attributes:
        kind: `weights`, `stored` or `base` (the base's directory has the same).
        size, sha256: Of the whole file.
        header: `weights`: bytes of its header, and of the header's frame.
        stored: `stored`: bytes of its frame.
        tensors: `weights`: its tensors by offset.
    """

    kind: str
    name: str
    size: int
    sha256: str
    header: tuple[int, int] = (0, 0)
    stored: int = 0
    tensors: tuple[TensorEntry, ...] = ()

    @property
    def data_bytes(self) -> int:
        """Bytes that it takes in the archive's data."""
        return self.header[1] + self.stored + sum(sum(tensor.chunks) for tensor in self.tensors)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive says of itself; `optional` are features that a reader may ignore."""

    name: str
    files: tuple[FileEntry, ...]
    base: tuple[BaseTensor, ...]
    data_sha256: str
    writer: str
    repo: str | None = None
    commit: str | None = None
    version: str = VERSION
    optional: tuple[str, ...] = field(default=())

    @property
    def data_bytes(self) -> int:
        """Bytes of the archive's data."""
        return sum(file.data_bytes for file in self.files)


def to_json(manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON values."""
    base = manifest.base
    return {
        "base": {
            "commit": manifest.commit,
            "dtypes": [tensor.dtype for tensor in base],
            "names": [tensor.name for tensor in base],
            "repo": manifest.repo,
            "sha256": [tensor.sha256 for tensor in base],
            "shapes": [list(tensor.shape) for tensor in base],
        },
        "data_sha256": manifest.data_sha256,
        "features": {"optional": list(manifest.optional), "required": []},
        "files": [_file_json(file) for file in manifest.files],
        "name": manifest.name,
        "version": manifest.version,
        "writer": manifest.writer,
    }


def _file_json(file: FileEntry) -> dict[str, Any]:
    value: dict[str, Any] = {"kind": file.kind, "name": file.name, "sha256": file.sha256, "size": file.size}
    if file.kind == "weights":
        tensors = [{"base": tensor.base, "chunks": list(tensor.chunks)} for tensor in file.tensors]
        return value | {"header": list(file.header), "tensors": tensors}
    return value | ({"stored": file.stored} if file.kind == "stored" else {})


def from_json(value: Any) -> Manifest:
    """Parse a manifest.

    Raises:
        FormatError: Some clause of ARCHIVE 2 does not hold.
    """
    fields = Fields(value, where="manifest")
    features = fields.fields("features")
    required, optional = features.texts("required"), features.texts("optional")
    features.done()
    _check_features(required, optional)
    origin = fields.fields("base")
    repo, commit = origin.optional_text("repo"), origin.optional_text("commit")
    base = _base(origin)
    files = tuple(_file(item, len(base), f"manifest.files.{i}") for i, item in enumerate(fields.items("files")))
    manifest = Manifest(
        name=check_component(fields.text("name"), what="task name"),
        files=files,
        base=base,
        data_sha256=fields.digest("data_sha256"),
        writer=fields.text("writer"),
        repo=repo,
        commit=commit,
        version=check_archive_version(fields.text("version")),
        optional=optional,
    )
    fields.done(ignore=frozenset(optional))
    _check_files(files)
    _check_needed(manifest)
    return manifest


def check_archive_version(version: str) -> str:
    """Return MAJOR.MINOR, or raise FormatError where it is none or newer than this reader."""
    return check_version(version, major=MAJOR, kind="archive of version")


def _check_features(required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    for names in (required, optional):
        if list(names) != sorted(set(names)):
            raise FormatError("manifest.features: names are not strictly ascending")
    if required:
        raise FormatError(f"manifest.features: needs {required[0]!r}, which this sparsetv does not know; update it")


def _base(fields: Fields) -> tuple[BaseTensor, ...]:
    names, dtypes = fields.texts("names"), fields.texts("dtypes")
    shapes = [as_shape(shape, where="manifest.base.shapes") for shape in fields.items("shapes")]
    hashes = [as_hex(item, where="manifest.base.sha256", digits=64) for item in fields.items("sha256")]
    fields.done()
    if not len(names) == len(dtypes) == len(shapes) == len(hashes) <= TENSORS:
        raise FormatError(f"manifest.base: lists of different lengths, or more than {TENSORS} tensors")
    if list(names) != sorted(set(names)):
        raise FormatError("manifest.base.names: not strictly ascending")
    for name, dtype in zip(names, dtypes, strict=True):
        check_tensor_name(name)
        if dtype not in SIZES:
            raise FormatError(f"manifest.base: {name}: unknown dtype {dtype!r}")
    return tuple(BaseTensor(*item) for item in zip(names, dtypes, shapes, hashes, strict=True))


def _file(value: Any, bases: int, where: str) -> FileEntry:
    fields = Fields(value, where=where)
    kind, name = fields.text("kind"), fields.text("name")
    size, sha256 = fields.integer("size", most=WHOLE_BYTES), fields.digest("sha256")
    if kind == "weights":
        header = fields.integers("header", most=HEADER_BYTES + 8)
        if len(header) != 2:
            raise FormatError(f"{where}.header: expected two sizes, found {len(header)}")
        tensors = tuple(_tensor(item, bases, f"{where}.tensors") for item in fields.items("tensors"))
        found = FileEntry(kind, check_weights_name(name), size, sha256, (header[0], header[1]), tensors=tensors)
    elif kind in {"stored", "base"}:
        stored = fields.integer("stored", most=STORED_BYTES) if kind == "stored" else 0
        found = FileEntry(kind, check_other_name(name), size, sha256, stored=stored)
        if size > FILE_BYTES:
            raise FormatError(f"{where}: a file of {size} bytes, limit {FILE_BYTES}")
    else:
        raise FormatError(f"{where}: unknown kind {kind!r}; a newer sparsetv may know it")
    fields.done()
    return found


def _tensor(value: Any, bases: int, where: str) -> TensorEntry:
    fields = Fields(value, where=where)
    base = fields.take("base")
    if base is not None:
        as_integer(base, where=f"{where}.base", most=bases - 1)
    chunks = tuple(as_integer(n, where=where, most=CODED_BYTES) for n in as_list(fields.take("chunks"), where=where))
    fields.done()
    return TensorEntry(base, chunks)


def _check_files(files: tuple[FileEntry, ...]) -> None:
    names = [file.name for file in files]
    if not 1 <= len(names) <= FILES:
        raise FormatError(f"manifest.files: {len(names)} files; allowed are 1 to {FILES}")
    if names != sorted(names) or len({name.casefold() for name in names}) < len(names):
        raise FormatError("manifest.files: names are not ascending, or equal after case folding")
    headers = sum(file.header[0] for file in files)
    if headers > HEADERS_BYTES:
        raise FormatError(f"manifest.files: headers of {headers} bytes in all, limit {HEADERS_BYTES}")


def _check_needed(manifest: Manifest) -> None:
    used = {tensor.base for file in manifest.files for tensor in file.tensors}
    spare = [tensor.name for number, tensor in enumerate(manifest.base) if number not in used]
    if spare:
        raise FormatError(f"manifest.base: {spare[0]} is named, but no tensor needs it")
