"""The sparse task vector: what one task file holds, decoded."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparsetv.arrays import Bytes, Values
from sparsetv.csr import SparseTensor
from sparsetv.fingerprint import Fingerprint
from sparsetv.masks import Mask

if TYPE_CHECKING:
    from sparsetv.jobs.hub import Pushed

_WRAPPERS = ("module.", "_orig_mod.", "base_model.model.")


REFITTED = ("refit", "sign-refit", "budget-refit")
"""`values` of recipes whose values were trained."""

IMPORTED = "imported"
"""`localizer` and `preset` of recipes whose entries another tool chose (SPEC 3.10)."""


@dataclass(frozen=True, slots=True)
class Extra:
    """A dense tensor that travels because the base lacks it.

    Attributes:
        kind: `tensor` (whole), `rows` (appended to the base tensor `source`), or `alias` (same bits as `source`).
        dtype: safetensors dtype.
        shape: Shape of what is stored; of the whole tensor for an alias.
        data: Little-endian bytes, row-major, uint8; empty for an alias.
        source: Base tensor for `rows`, fine-tuned tensor for `alias`, else empty.
    """

    kind: str
    dtype: str
    shape: tuple[int, ...]
    data: Bytes
    source: str = ""


@dataclass(frozen=True, slots=True)
class FineTuned:
    """How the fine-tune relates to the base beside the kept entries (SPEC 3.8).

    Attributes:
        prefix: (from, to): a base name becomes the fine-tune's by replacing the leading `from` with `to`.
        dtype: Dtype of the fine-tune's scope where it differs from the base's; it was cast to the base's.
        missing: Base tensors that the fine-tune lacks.
        outside: Changed tensors outside the scope, with their share of the task vector's squared L2 norm.
    """

    prefix: tuple[str, str] = ("", "")
    dtype: str | None = None
    missing: tuple[str, ...] = ()
    outside: tuple[tuple[str, float], ...] = ()

    @property
    def wrapper(self) -> str:
        """What the fine-tuned names begin with because the model was saved while wrapped for training."""
        rest = self.prefix[1]
        while wrapped := next((word for word in _WRAPPERS if rest.startswith(word)), ""):
            rest = rest.removeprefix(wrapped)
        return self.prefix[1].removesuffix(rest) if rest else self.prefix[1]

    @property
    def model_prefix(self) -> tuple[str, str]:
        """(from, to) from base names to those of the fine-tuned model's class, which no wrapper precedes."""
        return self.prefix[0], self.prefix[1].removeprefix(self.wrapper)

    def model_name(self, name: str) -> str:
        """A fine-tuned name as the model's class spells it."""
        return name.removeprefix(self.wrapper)


@dataclass(frozen=True, slots=True)
class Norms:
    """L1 and L2 norm of the whole task vector in one tensor, rounded to 6 significant digits."""

    l1: float
    l2: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """How mask and values were chosen; information only."""

    localizer: str
    density: float
    allocation: str
    preset: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    values: str


@dataclass(frozen=True, slots=True)
class Probe:
    """The fine-tuned model's outputs on seeded random inputs, and the scale found with them (SPEC 8).

    Attributes:
        outputs: Shape (count, width), float32.
        scale: Scale at which the graft's outputs come closest to `outputs`.
        distance: Squared distance there, relative to the base's.
    """

    kind: str
    seed: int
    count: int
    params: Mapping[str, int | float | str]
    recorded: str
    outputs: Values
    scale: float
    distance: float


@dataclass(frozen=True, slots=True)
class Budget:
    """The size that was asked for (SPEC 3.11); information only.

    Attributes:
        asked: As the user wrote it.
        of: What shares of a checkpoint refer to, `fp32` or `stored`.
        bytes: Largest file that this allows.
        fixed: Bytes of the file that no choice of entries and bits changes, as estimated.
        energy: Share of the squared L2 norm of the scope's task vector that the stored values keep; None where values
            were trained.
    """

    asked: str
    of: str
    bytes: int
    fixed: int
    energy: float | None


@dataclass(frozen=True, slots=True)
class SparseTaskVector:
    """One task: kept deltas per tensor, what the base lacks, and what is needed to check both.

    Attributes:
        name: Name of the task.
        base: The base that the deltas belong to.
        tensors: Every tensor of the scope by base name, ascending, kept entries or not.
        norms: Norms of the whole task vector per tensor of the scope.
        extras: Tensors that the base lacks, by the fine-tune's name.
        files: Files of the fine-tune's directory that travel, by name.
        finetuned: Prefix, dtype, missing and changed tensors.
        recipe: How mask and values were chosen.
        probe: Outputs to fit scales to, if the model could be run.
        drawn: Seed that the mask was drawn from, for masks drawn at random; it is stored instead of positions.
        budget: The size that was asked for, if one was.
    """

    name: str
    base: Fingerprint
    tensors: Mapping[str, SparseTensor]
    norms: Mapping[str, Norms]
    extras: Mapping[str, Extra]
    files: Mapping[str, bytes]
    finetuned: FineTuned
    recipe: Recipe
    probe: Probe | None = None
    drawn: int | None = None
    budget: Budget | None = None

    @classmethod
    def from_pretrained(cls, source: str | Path) -> "SparseTaskVector":
        """Read a task from a hub id, a directory or a file; see `sparsetv.load_pretrained`."""
        from sparsetv import load_pretrained  # noqa: PLC0415  a noun does no I/O: the package finds who does

        return load_pretrained(source)

    def save_pretrained(self, directory: str | Path, *, accuracy: Mapping[str, float] | None = None) -> Path:
        """Write `task.stv` and its card into a directory; see `sparsetv.save_pretrained`."""
        from sparsetv import save_pretrained  # noqa: PLC0415

        return save_pretrained(self, directory, accuracy=accuracy)

    def push_to_hub(
        self,
        repo: str,
        *,
        private: bool = False,
        message: str | None = None,
        create_pr: bool = False,
        parent_commit: str | None = None,
        accuracy: Mapping[str, float] | None = None,
    ) -> "Pushed":
        """Commit the task and its card to a repository of the hub; see `sparsetv.push`."""
        from sparsetv import push  # noqa: PLC0415

        how = {"private": private, "create_pr": create_pr}
        return push(self, repo, message=message, parent_commit=parent_commit, accuracy=accuracy, **how)

    @property
    def nnz(self) -> int:
        """Number of kept entries."""
        return sum(tensor.nnz for tensor in self.tensors.values())

    @property
    def numel(self) -> int:
        """Number of entries of the scope."""
        return sum(tensor.numel for tensor in self.tensors.values())

    @property
    def nbytes(self) -> int:
        """Bytes of memory of kept entries and carried files; carried tensors may be mapped, and do not count."""
        kept = [a for t in self.tensors.values() for a in (t.positions, t.values, t.corrections.index)]
        return sum(array.nbytes for array in kept) + sum(len(content) for content in self.files.values())

    @property
    def density(self) -> float:
        """Fraction of the scope that is kept."""
        return self.nnz / self.numel if self.numel else 0.0

    @property
    def mask(self) -> Mask:
        """Which entries are kept."""
        return Mask(
            {name: tensor.shape for name, tensor in self.tensors.items()},
            {name: tensor.positions for name, tensor in self.tensors.items()},
        )

    @property
    def exact(self) -> bool:
        """Whether kept entries come out as the fine-tuned bits at scale 1."""
        return self.recipe.values == "exact"

    @property
    def refitted(self) -> bool:
        """Whether values were trained to be used at scale 1, and are no longer the fine-tune's."""
        return self.recipe.values in REFITTED

    @property
    def imported(self) -> bool:
        """Whether another tool chose the entries, so that nobody knows what it dropped."""
        return self.recipe.localizer == IMPORTED

    def norm_ratios(self) -> tuple[float, float]:
        """(r1, r2): L1 and L2 norm of the whole task vector over those of its kept entries, over the scope.

        1 where nothing was dropped, or nobody knows what was.
        """
        if self.imported or (self.exact and self.nnz == self.numel):
            return 1.0, 1.0
        kept_l1 = math.fsum(float(np.abs(t.values).sum(dtype=np.float64)) for t in self.tensors.values())
        kept_l2 = math.fsum(float(np.square(t.values, dtype=np.float64).sum()) for t in self.tensors.values())
        whole_l1 = math.fsum(norm.l1 for norm in self.norms.values())
        whole_l2 = math.fsum(norm.l2**2 for norm in self.norms.values())
        if not kept_l1 or not kept_l2:
            return 1.0, 1.0
        return whole_l1 / kept_l1, math.sqrt(whole_l2 / kept_l2)

    def scaled(self, factors: Mapping[str, float]) -> "SparseTaskVector":
        """The task with tensors multiplied by factors, 1 where none is given, in float32."""
        tensors = {name: tensor.scaled(factors.get(name, 1.0)) for name, tensor in self.tensors.items()}
        return replace(self, tensors=tensors)

    def digest(self) -> str:
        """Identity of the content, independent of encoder settings and of the task's name (SPEC 7.2)."""
        total = _Hasher()
        total.text("sparsetv task 1", self.base.touched, *self.finetuned.prefix)
        for name, tensor in self.tensors.items():
            total.text(name, tensor.dtype)
            total.numbers(len(tensor.shape), *tensor.shape, tensor.nnz)
            total.raw(tensor.positions.astype("<i8"), tensor.values.astype("<f4"))
            total.numbers(len(tensor.corrections.index))
            total.raw(tensor.corrections.index.astype("<i8"), tensor.corrections.amount.astype("<u4"))
        total.numbers(len(self.extras))
        for name, extra in sorted(self.extras.items()):
            total.text(name, extra.kind, extra.source, extra.dtype)
            total.numbers(len(extra.shape), *extra.shape)
            total.raw(bytes(32) if extra.kind == "alias" else hashlib.sha256(extra.data.data).digest())
        total.numbers(len(self.files))
        for name, content in sorted(self.files.items()):
            total.text(name)
            total.raw(hashlib.sha256(content).digest())
        return total.hexdigest()


class _Hasher:
    """SHA-256 over length-prefixed strings, 64-bit integers and raw bytes."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def numbers(self, *numbers: int) -> None:
        for number in numbers:
            self._hash.update(number.to_bytes(8, "little"))

    def text(self, *texts: str) -> None:
        for text in texts:
            data = text.encode()
            self.numbers(len(data))
            self._hash.update(data)

    def raw(self, *blocks: bytes | np.ndarray) -> None:
        for block in blocks:
            self._hash.update(np.ascontiguousarray(block).data if isinstance(block, np.ndarray) else block)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()
