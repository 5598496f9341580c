"""JSON values to a manifest; whatever is off is a FormatError (SPEC 3 and 4)."""

import math
from itertools import pairwise
from typing import Any

from sparsetv.container.limits import BLOCK_ENTRIES_READ, CARRIED_BYTES, FRAME_BYTES, NORM, PROBE_SIDE, TENSORS
from sparsetv.container.manifest import FEATURES, Block, ExtraEntry, FileEntry, Manifest, Piece, ProbeEntry, Stream
from sparsetv.container.manifest_json import row_count
from sparsetv.container.names import check_component, check_file_name, check_tensor_name
from sparsetv.csr import rows_and_columns
from sparsetv.dtypes import SIZES, WEIGHT_DTYPES
from sparsetv.errors import FormatError
from sparsetv.fingerprint import Fingerprint
from sparsetv.task_vector import Budget, FineTuned, Norms, Recipe
from sparsetv.wire.fields import Fields, as_hex, as_integer, as_list, as_number, as_shape, as_text

PARAMETERS = (
    *("shifts", "high_size", "bias", "corrections", "gap_size", "magnitudes"),
    *("row_classes", "column_classes", "high_sizes", "seed", "least", "counts"),
)
"""Parameters of all codecs; which belong to one, it says itself."""


def from_json(value: Any) -> Manifest:
    """Check every field and every relation between fields that needs no stream.

    Raises:
        FormatError: Some clause of SPEC 3 or 4 does not hold; the message names the place.
    """
    top = Fields(value, where="manifest")
    features = top.fields("features")
    required, optional = features.texts("required"), features.texts("optional")
    features.done()
    if list(required) != sorted(set(required)) or list(optional) != sorted(set(optional)):
        raise FormatError("manifest.features: names not in strictly ascending order")
    unknown = sorted(set(required) - set(FEATURES))
    if unknown:
        raise FormatError(
            f"the file requires feature {unknown[0]!r}, which this version does not know; update sparsetv"
        )
    base = _base(top.fields("base"))
    scope = _scope(top.items("scope"), base)
    manifest = Manifest(
        name=check_component(top.text("name"), what="task name"),
        digest=top.digest("digest"),
        payload_sha256=top.digest("payload_sha256"),
        base=base,
        scope=scope,
        norms=_norms(top.fields("tensors"), len(scope)),
        blocks=_blocks(top.items("blocks"), [base.shapes[index] for index in scope]),
        extras=_extras(top.items("extras"), base),
        files=_files(top.items("files")),
        finetuned=_finetuned(top.fields("finetuned"), base),
        recipe=_recipe(top.fields("recipe")),
        probe=_probe(top.take("probe")),
        writer=top.text("writer"),
        budget=_budget(top.fields("budget")) if "budget" in optional and top.has("budget") else None,
        version=top.text("version"),
        required=required,
        optional=optional,
    )
    top.done(ignore=frozenset(optional))
    unnamed = sorted(manifest.codecs & set(FEATURES) - set(required))
    if unnamed:
        raise FormatError(f"manifest.features: codec `{unnamed[0]}` is used, and not required")
    return manifest


def _base(fields: Fields) -> Fingerprint:
    names, dtypes = fields.texts("names"), fields.texts("dtypes")
    shapes = tuple(as_shape(item, where="manifest.base.shapes") for item in fields.items("shapes"))
    tags = as_hex(fields.take("tags"), where="manifest.base.tags", digits=8 * len(names))
    if len(names) > TENSORS:
        raise FormatError(f"manifest.base: {len(names)} tensors, limit {TENSORS}")
    if not len(names) == len(dtypes) == len(shapes):
        raise FormatError(f"manifest.base: {len(names)} names, {len(dtypes)} dtypes, {len(shapes)} shapes")
    for name in names:
        check_tensor_name(name)
    for dtype in dtypes:
        _check_dtype(dtype, where="manifest.base.dtypes")
    if any(first >= second for first, second in pairwise(names)):
        raise FormatError("manifest.base.names: not in strictly ascending order")
    result = Fingerprint(
        names=names,
        dtypes=dtypes,
        shapes=shapes,
        tags=tuple(tags[i : i + 8] for i in range(0, len(tags), 8)),
        digest=fields.digest("digest"),
        touched=fields.digest("touched"),
        repo=fields.optional_text("repo"),
        commit=fields.optional_text("commit"),
    )
    fields.done()
    return result


def _check_dtype(dtype: str, *, where: str) -> str:
    if dtype not in SIZES:
        raise FormatError(f"{where}: unknown dtype {dtype!r}")
    return dtype


def _scope(runs: list[Any], base: Fingerprint) -> tuple[int, ...]:
    indices: list[int] = []
    for run in runs:
        pair = [as_integer(item, where="manifest.scope", most=TENSORS) for item in as_list(run, where="manifest.scope")]
        if len(pair) != 2 or pair[1] == 0 or (indices and pair[0] <= indices[-1] + 1):
            raise FormatError(f"manifest.scope: run {pair} is empty, touches or precedes the one before")
        if sum(pair) > len(base.names):
            raise FormatError(f"manifest.scope: run {pair} leaves the {len(base.names)} tensors of the base")
        indices.extend(range(pair[0], sum(pair)))
    for index in indices:
        if base.dtypes[index] not in WEIGHT_DTYPES:
            raise FormatError(
                f"manifest.scope: {base.names[index]} has dtype {base.dtypes[index]}, not F32, BF16 or F16"
            )
    return tuple(indices)


def _norms(fields: Fields, count: int) -> tuple[Norms, ...]:
    l1, l2 = fields.numbers("l1"), fields.numbers("l2")
    fields.done()
    if not len(l1) == len(l2) == count:
        raise FormatError(f"manifest.tensors: {len(l1)} and {len(l2)} norms for {count} tensors")
    if max((*l1, *l2), default=0.0) > NORM:
        raise FormatError("manifest.tensors: a norm larger than any tensor can have")
    return tuple(Norms(*pair) for pair in zip(l1, l2, strict=True))


def _blocks(items: list[Any], shapes: list[tuple[int, ...]]) -> tuple[Block, ...]:
    cover = _Cover(shapes)
    blocks = []
    for number, item in enumerate(items):
        where = f"manifest.blocks[{number}]"
        fields = Fields(item, where=where)
        pieces = cover.pieces(as_list(fields.take("pieces"), where=where), where)
        block = Block(pieces, _stream(fields.fields("positions")), _stream(fields.fields("values")))
        fields.done()
        if block.nnz > BLOCK_ENTRIES_READ:
            raise FormatError(f"{where}: {block.nnz} kept entries, limit {BLOCK_ENTRIES_READ}")
        blocks.append(block)
    cover.finish()
    return tuple(blocks)


class _Cover:
    """Walks through all rows of the scope once, in order (SPEC 4.2)."""

    def __init__(self, shapes: list[tuple[int, ...]]) -> None:
        self._shapes = shapes
        self._tensor = 0
        self._row = 0

    def pieces(self, value: list[Any], where: str) -> tuple[Piece, ...]:
        if len(value) == 2 and type(value[0]) is int:
            first = as_integer(value[0], where=where)
            counts = as_list(value[1], where=where)
            if first + len(counts) > len(self._shapes):
                raise FormatError(f"{where}: pieces leave the {len(self._shapes)} tensors of the scope")
            value = [[first + i, row_count(self._shapes[first + i]), nnz] for i, nnz in enumerate(counts)]
        if not value:
            raise FormatError(f"{where}: no pieces")
        return tuple(self._piece(item, where) for item in value)

    def _piece(self, item: Any, where: str) -> Piece:
        numbers = [as_integer(number, where=where) for number in as_list(item, where=where)]
        if len(numbers) != 3 or numbers[0] != self._tensor or self._tensor >= len(self._shapes):
            raise FormatError(f"{where}: piece {numbers} does not continue at tensor {self._tensor}")
        tensor, rows, nnz = numbers
        shape = self._shapes[tensor]
        total, columns = row_count(shape), rows_and_columns(shape)[1]
        piece = Piece(tensor, self._row, rows, nnz)
        self._row += rows
        if total and not columns and rows != total:
            raise FormatError(f"{where}: a tensor without entries is one piece")
        if self._row > total or (rows == 0 and total):
            raise FormatError(f"{where}: piece {numbers} leaves the {total} rows of its tensor")
        if nnz > rows * columns:
            raise FormatError(f"{where}: piece {numbers} keeps more than its {rows * columns} entries")
        if self._row == total:
            self._tensor, self._row = tensor + 1, 0
        return piece

    def finish(self) -> None:
        if self._tensor != len(self._shapes):
            raise FormatError(f"manifest.blocks: end at tensor {self._tensor} of {len(self._shapes)}")


def _stream(fields: Fields) -> Stream:
    codec, frames = fields.text("codec"), fields.integers("frames", most=FRAME_BYTES)
    parameters = {key: fields.take(key) for key in PARAMETERS if fields.has(key)}
    fields.done()
    return Stream(codec, frames, parameters)


def _extras(items: list[Any], base: Fingerprint) -> tuple[ExtraEntry, ...]:
    extras = tuple(_extra(Fields(item, where=f"manifest.extras[{i}]"), base) for i, item in enumerate(items))
    names = [extra.name for extra in extras]
    if any(first >= second for first, second in pairwise(names)):
        raise FormatError("manifest.extras: names not in strictly ascending order")
    return extras


def _extra(fields: Fields, base: Fingerprint) -> ExtraEntry:
    kind = fields.text("kind")
    key = {"tensor": None, "rows": "base", "alias": "of"}.get(kind, "")
    if key == "":
        raise FormatError(f"{fields.where}: unknown kind {kind!r}")
    extra = ExtraEntry(
        name=check_tensor_name(fields.text("name")),
        kind=kind,
        dtype=_check_dtype(fields.text("dtype"), where=fields.where),
        shape=as_shape(fields.take("shape"), where=fields.where),
        source=check_tensor_name(fields.text(key)) if key else "",
    )
    fields.done()
    if kind == "rows":
        _check_rows(extra, base, where=fields.where)
    return extra


def _check_rows(extra: ExtraEntry, base: Fingerprint, *, where: str) -> None:
    known = dict(zip(base.names, base.shapes, strict=True))
    shape = known.get(extra.source)
    if shape is None or not shape or len(extra.shape) != len(shape) or extra.shape[1:] != shape[1:]:
        raise FormatError(f"{where}: rows of shape {extra.shape} do not continue base tensor {extra.source!r} {shape}")


def _files(items: list[Any]) -> tuple[FileEntry, ...]:
    files = []
    for number, item in enumerate(items):
        fields = Fields(item, where=f"manifest.files[{number}]")
        files.append(FileEntry(check_file_name(fields.text("name")), fields.integer("size", most=CARRIED_BYTES)))
        fields.done()
    names = [entry.name for entry in files]
    if names != sorted(names) or len({name.casefold() for name in names}) != len(names):
        raise FormatError("manifest.files: names not ascending, or equal after case folding")
    return tuple(files)


def _finetuned(fields: Fields, base: Fingerprint) -> FineTuned:
    prefix = fields.texts("prefix")
    dtype = fields.optional_text("dtype")
    missing = fields.texts("missing")
    outside = [as_list(item, where="manifest.finetuned.outside") for item in fields.items("outside")]
    fields.done()
    if len(prefix) != 2 or any(len(pair) != 2 for pair in outside):
        raise FormatError("manifest.finetuned: `prefix` and each item of `outside` have two parts")
    if dtype is not None:
        _check_dtype(dtype, where="manifest.finetuned.dtype")
    known = set(base.names)
    unknown = [name for name in missing if name not in known]
    if unknown or list(missing) != sorted(set(missing)):
        raise FormatError(f"manifest.finetuned.missing: not ascending names of the base {unknown[:1]}")
    where = "manifest.finetuned.outside"
    shares = tuple(
        (check_tensor_name(as_text(name, where=where)), as_number(share, where=where)) for name, share in outside
    )
    return FineTuned((prefix[0], prefix[1]), dtype, missing, shares)


def _recipe(fields: Fields) -> Recipe:
    recipe = Recipe(
        localizer=fields.text("localizer"),
        density=fields.number("density"),
        allocation=fields.text("allocation"),
        preset=fields.text("preset"),
        include=fields.texts("include"),
        exclude=fields.texts("exclude"),
        values=fields.text("values"),
    )
    fields.done()
    return recipe


def _budget(fields: Fields) -> Budget:
    energy = fields.take("energy")
    budget = Budget(
        asked=fields.text("asked"),
        of=fields.text("of"),
        bytes=fields.integer("bytes"),
        fixed=fields.integer("fixed"),
        energy=None if energy is None else as_number(energy, where=f"{fields.where}.energy"),
    )
    fields.done()
    return budget


def _probe(value: Any) -> ProbeEntry | None:
    if value is None:
        return None
    fields = Fields(value, where="manifest.probe")
    params = fields.fields("params").rest()
    for key, item in params.items():
        if type(item) not in (int, float, str) or (type(item) is float and not math.isfinite(item)):
            raise FormatError(f"manifest.probe.params.{key}: expected a number or a string")
    kind = fields.text("kind")
    if kind not in ("tokens", "causal", "pixels"):
        raise FormatError(f"manifest.probe: unknown kind {kind!r}")
    probe = ProbeEntry(
        kind=kind,
        seed=fields.integer("seed"),
        count=fields.integer("count", most=PROBE_SIDE),
        width=fields.integer("width", most=PROBE_SIDE),
        params=params,
        recorded=fields.text("outputs"),
        scale=fields.number("scale"),
        distance=fields.number("distance"),
    )
    fields.done()
    return probe
