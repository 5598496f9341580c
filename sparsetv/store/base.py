"""The base that all tasks of a store belong to."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsetv.errors import BaseMismatchError
from sparsetv.fingerprint import Fingerprint
from sparsetv.wire.fields import Fields, as_hex, as_shape

_TAG_DIGITS = 8


@dataclass(frozen=True, slots=True)
class KnownTensor:
    """What task files say of one tensor of their base: dtype, shape, first four bytes of its hash as hex."""

    dtype: str
    shape: tuple[int, ...]
    tag: str


@dataclass(frozen=True, slots=True)
class StoreBase:
    """A base as a store knows it.

    Attributes:
        source: What to open to get it: a path, or hub repository and commit; None where no task file told.
        repo, commit: Hub repository and resolved commit, where it came from the hub.
        digest: Over all tensors (SPEC 7.1).
        tensors: All tensors by name.
    """

    source: str | None
    repo: str | None
    commit: str | None
    digest: str
    tensors: Mapping[str, KnownTensor]

    def to_json(self) -> dict[str, Any]:
        """As it stands in the store's file."""
        tensors = {name: [item.dtype, list(item.shape), item.tag] for name, item in self.tensors.items()}
        known = {"source": self.source, "repo": self.repo, "commit": self.commit, "digest": self.digest}
        return {**known, "tensors": tensors}


def base_from(fingerprint: Fingerprint, *, source: str | None = None) -> StoreBase:
    """A base from what a task file or a checkpoint says of it; the hub's name is its source where none is given."""
    repo, commit = fingerprint.repo, fingerprint.commit
    hub = f"{repo}@{commit}" if repo and commit else repo
    columns = zip(fingerprint.dtypes, fingerprint.shapes, fingerprint.tags, strict=True)
    tensors = {name: KnownTensor(*column) for name, column in zip(fingerprint.names, columns, strict=True)}
    return StoreBase(source or hub, repo, commit, fingerprint.digest, tensors)


def base_from_json(fields: Fields) -> StoreBase:
    """Parse what `to_json` gave; FormatError where it is something else."""
    tensors = Fields(fields.take("tensors"), where=f"{fields.where}.tensors").rest()
    base = StoreBase(
        source=fields.optional_text("source"),
        repo=fields.optional_text("repo"),
        commit=fields.optional_text("commit"),
        digest=fields.digest("digest"),
        tensors={name: _tensor(value, f"{fields.where}.tensors.{name}") for name, value in tensors.items()},
    )
    fields.done()
    return base


def _tensor(value: Any, where: str) -> KnownTensor:
    columns = value if isinstance(value, list) and len(value) == len(KnownTensor.__slots__) else [None] * 3
    fields = Fields(dict(zip(KnownTensor.__slots__, columns, strict=True)), where=where)
    dtype, shape = fields.text("dtype"), as_shape(fields.take("shape"), where=where)
    return KnownTensor(dtype, shape, as_hex(fields.take("tag"), where=where, digits=_TAG_DIGITS))


def check_base(store: Path, known: StoreBase | None, found: StoreBase, *, what: str) -> None:
    """Refuse a task of another base.

    Raises:
        BaseMismatchError: `found` is not the base of the store; the message names both and a tensor that differs.
    """
    if known is None or known.digest == found.digest:
        return
    origin = f" ({known.source})" if known.source else ""
    raise BaseMismatchError(
        f"{what}: was packed against base {found.digest[:12]}…, but {store} holds tasks of base {known.digest[:12]}…"
        f"{origin} (first difference: {_first_difference(known, found)}); make a store for the other base with "
        "`sparsetv store init`, or pack against this one"
    )


def _first_difference(known: StoreBase, found: StoreBase) -> str:
    names = sorted(known.tensors.keys() | found.tensors.keys())
    different = (name for name in names if known.tensors.get(name) != found.tensors.get(name))
    return next(different, "none of the recorded hash tags")
