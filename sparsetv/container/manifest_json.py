"""Manifest to JSON values (SPEC 3)."""

from dataclasses import asdict
from itertools import groupby
from typing import Any

from sparsetv.container.manifest import Block, ExtraEntry, Manifest, ProbeEntry, Stream


def to_json(manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON values."""
    base = manifest.base
    budget = {} if manifest.budget is None else {"budget": asdict(manifest.budget)}
    return {
        **budget,
        "base": {
            "commit": base.commit,
            "digest": base.digest,
            "dtypes": list(base.dtypes),
            "names": list(base.names),
            "repo": base.repo,
            "shapes": [list(shape) for shape in base.shapes],
            "tags": "".join(base.tags),
            "touched": base.touched,
        },
        "blocks": [_block(block, manifest) for block in manifest.blocks],
        "digest": manifest.digest,
        "extras": [_extra(extra) for extra in manifest.extras],
        "features": {"optional": list(manifest.optional), "required": list(manifest.required)},
        "files": [{"name": entry.name, "size": entry.size} for entry in manifest.files],
        "finetuned": {
            "dtype": manifest.finetuned.dtype,
            "missing": list(manifest.finetuned.missing),
            "outside": [list(item) for item in manifest.finetuned.outside],
            "prefix": list(manifest.finetuned.prefix),
        },
        "name": manifest.name,
        "payload_sha256": manifest.payload_sha256,
        "probe": None if manifest.probe is None else _probe(manifest.probe),
        "recipe": {
            "allocation": manifest.recipe.allocation,
            "density": manifest.recipe.density,
            "exclude": list(manifest.recipe.exclude),
            "include": list(manifest.recipe.include),
            "localizer": manifest.recipe.localizer,
            "preset": manifest.recipe.preset,
            "values": manifest.recipe.values,
        },
        "scope": _runs(manifest.scope),
        "tensors": {"l1": [norm.l1 for norm in manifest.norms], "l2": [norm.l2 for norm in manifest.norms]},
        "version": manifest.version,
        "writer": manifest.writer,
    }


def _runs(indices: tuple[int, ...]) -> list[list[int]]:
    grouped = groupby(enumerate(indices), key=lambda pair: pair[1] - pair[0])
    runs = [[index for _, index in group] for _, group in grouped]
    return [[run[0], len(run)] for run in runs]


def _block(block: Block, manifest: Manifest) -> dict[str, Any]:
    shapes = manifest.base.shapes
    whole = all(
        piece.first_row == 0
        and piece.rows == row_count(shapes[manifest.scope[piece.tensor]])
        and piece.tensor == block.pieces[0].tensor + offset
        for offset, piece in enumerate(block.pieces)
    )
    pieces: list[Any] = [[piece.tensor, piece.rows, piece.nnz] for piece in block.pieces]
    if whole:
        pieces = [block.pieces[0].tensor, [piece.nnz for piece in block.pieces]]
    return {"pieces": pieces, "positions": _stream(block.positions), "values": _stream(block.values)}


def row_count(shape: tuple[int, ...]) -> int:
    """Rows of a tensor as blocks count them (SPEC 4.1)."""
    return shape[0] if len(shape) >= 2 else 1


def _stream(stream: Stream) -> dict[str, Any]:
    return {"codec": stream.codec, "frames": list(stream.frames), **stream.parameters}


def _extra(extra: ExtraEntry) -> dict[str, Any]:
    entry = {"dtype": extra.dtype, "kind": extra.kind, "name": extra.name, "shape": list(extra.shape)}
    source_key = {"rows": "base", "alias": "of"}.get(extra.kind)
    return {**entry, source_key: extra.source} if source_key else entry


def _probe(probe: ProbeEntry) -> dict[str, Any]:
    return {
        "count": probe.count,
        "distance": probe.distance,
        "kind": probe.kind,
        "outputs": probe.recorded,
        "params": dict(probe.params),
        "scale": probe.scale,
        "seed": probe.seed,
        "width": probe.width,
    }
