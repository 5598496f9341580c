"""Entries from other tools, checked against the base before anything uses them, and the task that they make."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from sparsetv.arrays import Positions, Values
from sparsetv.checkpoint.reading import Checkpoint
from sparsetv.container.limits import ENTRY_BYTES, Limits
from sparsetv.csr import SparseTensor
from sparsetv.dtypes import WEIGHT_DTYPES, from_float32, to_float32
from sparsetv.errors import CheckpointError, FormatError, NamesError, NonFiniteError, ShapeError
from sparsetv.fingerprint import fingerprint
from sparsetv.norms import NormSum, partial_sums
from sparsetv.task_vector import IMPORTED, Extra, FineTuned, Norms, Recipe, SparseTaskVector

CHUNK = 1 << 19
"""Entries that are looked at at a time; a multiple of 8, so that packed bits split between bytes."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a file of another tool holds.

    Attributes:
        tensors: Entries by base name.
        extras: Whole tensors that the base lacks, by the fine-tune's name.
        prefix: (from, to) from base names to the fine-tune's.
    """

    tensors: Mapping[str, SparseTensor]
    extras: Mapping[str, Extra] = field(default_factory=dict)
    prefix: tuple[str, str] = ("", "")


class Collector:
    """Checks and keeps the entries of one tensor after the other."""

    def __init__(self, base: Checkpoint, *, what: str) -> None:
        """Collect entries for a base; `what` names their source in messages."""
        self.base = base
        self.what = what
        self._kept = 0
        self._tensors: dict[str, SparseTensor] = {}

    def check(self, name: str, shape: tuple[int, ...] | None = None) -> None:
        """Refuse a tensor that the base lacks, or has in another shape or a dtype that takes no deltas.

        Raises:
            NamesError, ShapeError, CheckpointError: It is such a tensor.
        """
        if name not in self.base:
            raise NamesError(f"{self.what}: holds {name}, which {self.base.source} lacks; pass the base it belongs to")
        if shape is not None and shape != self.base.shape(name):
            raise ShapeError(
                f"{self.what}: {name} has shape {shape}, but {self.base.shape(name)} in {self.base.source}; "
                "pass the base it belongs to"
            )
        if self.base.dtype(name) not in WEIGHT_DTYPES:
            raise CheckpointError(
                f"{self.what}: {name} is {self.base.dtype(name)} in {self.base.source}; "
                f"deltas need {', '.join(WEIGHT_DTYPES)}"
            )

    def allow(self, count: int) -> None:
        """Refuse so many entries more before they are made.

        Raises:
            LimitError: The memory limit has no room for them.
        """
        Limits().allow(ENTRY_BYTES * (self._kept + count), what=self.what)

    def add(self, name: str, positions: Positions, values: Values) -> None:
        """Take a tensor's entries, in any order; zeros that change nothing are dropped.

        Args:
            name: A base tensor that `check` let pass.
            positions: Shape (n,), int64, flat and row-major.
            values: Shape (n,), float32 deltas.

        Raises:
            FormatError: A position lies outside the tensor, or stands there twice.
            NonFiniteError: A value, or base plus value, is NaN or infinite.
        """
        where, dtype, shape = f"{self.what}: {name}", self.base.dtype(name), self.base.shape(name)
        positions, values = _ordered(where, positions, values, self.base.numel(name))
        bits = self.base.bits(name)[positions]
        with np.errstate(over="ignore", invalid="ignore"):
            reached = from_float32(to_float32(bits, dtype) + values, dtype)
        bad = np.flatnonzero(~(np.isfinite(values) & np.isfinite(to_float32(reached, dtype))))
        if len(bad):
            raise NonFiniteError(
                f"{where}: the delta at position {int(positions[bad[0]])}, or base plus delta in {dtype}, is NaN or "
                "infinite; repair it where it was made"
            )
        kept = (values != 0) | (reached != bits)
        self._kept += int(kept.sum())
        self._tensors[name] = SparseTensor(dtype, shape, positions[kept], values[kept])

    def tensors(self) -> dict[str, SparseTensor]:
        """All that were added, names ascending."""
        return dict(sorted(self._tensors.items()))


def _ordered(where: str, positions: Positions, values: Values, numel: int) -> tuple[Positions, Values]:
    outside = np.flatnonzero((positions < 0) | (positions >= numel))
    if len(outside):
        raise FormatError(
            f"{where}: position {int(positions[outside[0]])} of entry {int(outside[0])} lies outside 0 to {numel - 1}; "
            "make it again"
        )
    if (positions[1:] <= positions[:-1]).any():
        order = np.argsort(positions, kind="stable")
        positions, values = positions[order], values[order]
        twice = np.flatnonzero(positions[1:] == positions[:-1])
        if len(twice):
            raise FormatError(f"{where}: position {int(positions[twice[0]])} stands there twice; make it again")
    return positions, values


def chunks(count: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of consecutive runs of at most `CHUNK` entries."""
    for start in range(0, count, CHUNK):
        yield start, min(start + CHUNK, count)


def imported(name: str, base: Checkpoint, found: Found, *, what: str) -> SparseTaskVector:
    """A task of what was found: its recipe says that another tool chose, its norms are those of the kept entries.

    Raises:
        FormatError: No delta is left that changes anything.

    Cost:
        One pass over the base, to hash it.
    """
    tensors = found.tensors
    touched = [key for key, tensor in tensors.items() if tensor.nnz]
    if not touched:
        raise FormatError(f"{what}: holds no delta that changes the base; nothing to import")
    kept, entries = sum(t.nnz for t in tensors.values()), sum(t.numel for t in tensors.values())
    where = base.location
    identities = [base.identity(key) for key in base.names]
    return SparseTaskVector(
        name=name,
        base=fingerprint(identities, touched=touched, repo=where.repo, commit=where.commit),
        tensors=tensors,
        norms={key: _norms(tensor.values) for key, tensor in tensors.items()},
        extras=dict(sorted(found.extras.items())),
        files={},
        finetuned=FineTuned(prefix=found.prefix),
        recipe=Recipe(IMPORTED, kept / entries, IMPORTED, IMPORTED, (), (), "exact"),
    )


def _norms(values: Values) -> Norms:
    total = NormSum()
    for start, stop in chunks(len(values)):
        total.add(partial_sums(np.abs(values[start:stop])))
    return total.result()
