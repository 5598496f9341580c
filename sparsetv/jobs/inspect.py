"""What a task file holds."""

from dataclasses import asdict, dataclass
from math import fsum, prod
from pathlib import Path
from typing import Any

import numpy as np

from sparsetv.container.reader import Opened, decode
from sparsetv.dtypes import SIZES
from sparsetv.task_vector import SparseTaskVector
from sparsetv.taskfile import Sizes, open_task, sizes


@dataclass(frozen=True, slots=True)
class TensorSummary:
    """One tensor of the scope: shape, kept entries, share kept, norms of its whole task vector."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nnz: int
    density: float
    l1: float
    l2: float


@dataclass(frozen=True, slots=True)
class Summary:
    """A task file at a glance.

    Attributes:
        scope_entries, kept_entries: Entries in scope, entries kept.
        scope_bytes: Bytes of the scope in the base's dtypes.
        checkpoint_bytes: Bytes of the whole base in its dtypes.
        bits: Bits per kept entry for positions, values and the rest (framing).
        sizes: Bytes by what they are for.
        budget: What was asked for, its largest size, and the share of the task vector's energy that is kept; None where
            no size was asked for.
        energy: Share of the scope's whole task vector, by squared L2 norm, that is kept: the budget's where there is
            one, else by the norm of the stored values; None where values were trained, nothing changed, or nothing was
            decoded.
    """

    path: str
    name: str
    digest: str
    writer: str
    base: dict[str, Any]
    recipe: dict[str, Any]
    scope_entries: int
    kept_entries: int
    density: float
    scope_bytes: int
    checkpoint_bytes: int
    sizes: Sizes
    bits: dict[str, float]
    extras: tuple[dict[str, Any], ...]
    files: tuple[str, ...]
    outside: tuple[tuple[str, float], ...]
    missing: tuple[str, ...]
    prefix: tuple[str, str]
    scale: float | None
    probe: dict[str, Any] | None
    budget: dict[str, Any] | None
    energy: float | None
    tensors: tuple[TensorSummary, ...]


def inspect(path: str | Path, *, decoded: bool = True) -> Summary:
    """Summarise a task file.

    Args:
        path: The file, or a hub id.
        decoded: Decode and check all of it, to say what was lost; else header, manifest and payload hash alone.

    Raises:
        NotFoundError: There is no such file.
        FormatError: It is no valid task file.
    """
    opened = open_task(path)
    return summarise(opened, path=path, task=decode(opened) if decoded else None)


def summarise(opened: Opened, *, path: str | Path, task: SparseTaskVector | None) -> Summary:
    """Summarise a task file that is open.

    Args:
        opened: The file.
        path: What it is called.
        task: What it holds, decoded, to say what was lost; else only what its manifest says is told.
    """
    manifest, base, split = opened.manifest, opened.manifest.base, sizes(opened)
    counts = [0] * len(manifest.scope)
    for block in manifest.blocks:
        for piece in block.pieces:
            counts[piece.tensor] += piece.nnz
    numels = [prod(base.shapes[index]) for index in manifest.scope]
    kept, entries = sum(counts), sum(numels)
    probe = manifest.probe
    return Summary(
        path=str(path),
        name=manifest.name,
        digest=manifest.digest,
        writer=manifest.writer,
        base={"repo": base.repo, "commit": base.commit, "digest": base.digest, "tensors": len(base.names)},
        recipe={key: getattr(manifest.recipe, key) for key in manifest.recipe.__slots__},
        scope_entries=entries,
        kept_entries=kept,
        density=kept / entries if entries else 0.0,
        scope_bytes=sum(SIZES[base.dtypes[i]] * numel for i, numel in zip(manifest.scope, numels, strict=True)),
        checkpoint_bytes=sum(SIZES[d] * prod(shape) for d, shape in zip(base.dtypes, base.shapes, strict=True)),
        sizes=split,
        bits=_bits(split, kept),
        extras=tuple({"name": e.name, "kind": e.kind, "dtype": e.dtype, "shape": e.shape} for e in manifest.extras),
        files=tuple(entry.name for entry in manifest.files),
        outside=manifest.finetuned.outside,
        missing=manifest.finetuned.missing,
        prefix=manifest.finetuned.prefix,
        scale=None if probe is None else probe.scale,
        probe=None if probe is None else {"kind": probe.kind, "seed": probe.seed, "count": probe.count,
                                          "recorded": probe.recorded, "distance": probe.distance},
        budget=None if manifest.budget is None else asdict(manifest.budget),
        energy=None if task is None else _energy(task),
        tensors=tuple(
            TensorSummary(base.names[i], base.dtypes[i], base.shapes[i], nnz, nnz / numel if numel else 0.0, n.l1, n.l2)
            for i, nnz, numel, n in zip(manifest.scope, counts, numels, manifest.norms, strict=True)
        ),
    )  # fmt: skip


def _energy(task: SparseTaskVector) -> float | None:
    if task.budget is not None:
        return task.budget.energy
    whole = fsum(norm.l2**2 for norm in task.norms.values())
    if task.refitted or not whole:
        return None
    kept = fsum(float(np.square(t.values, dtype=np.float64).sum()) for t in task.tensors.values())
    return round(min(kept / whole, 1.0), 6)


def _bits(split: Sizes, kept: int) -> dict[str, float]:
    parts = {"positions": split.positions, "values": split.values, "rest": split.framing}
    return {name: 8 * size / kept if kept else 0.0 for name, size in parts.items()}
