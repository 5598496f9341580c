"""What a base is: names, dtypes, shapes and hashes of its tensors, and where it came from."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TensorIdentity:
    """Name, dtype, shape and SHA-256 (32 bytes, of the little-endian row-major bytes) of one tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A base as a task file knows it (SPEC 3.4).

    Attributes:
        names, dtypes, shapes: All tensors of the base, parallel, names ascending.
        tags: First four bytes of each tensor's hash as hex; they only name the tensor that differs.
        digest: Over all tensors.
        touched: Over the tensors in which the task keeps at least one entry.
        repo, commit: Hub repository and resolved commit, where the base came from the hub.
    """

    names: tuple[str, ...]
    dtypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    tags: tuple[str, ...]
    digest: str
    touched: str
    repo: str | None = None
    commit: str | None = None

    def tag_of(self) -> dict[str, str]:
        """Tag by tensor name."""
        return dict(zip(self.names, self.tags, strict=True))


def digest(tensors: Iterable[TensorIdentity]) -> str:
    """SHA-256 over identities in ascending order of names, as hex (SPEC 7.1)."""
    total = hashlib.sha256()
    for tensor in sorted(tensors, key=lambda item: item.name):
        shape = ",".join(map(str, tensor.shape))
        total.update(f"{tensor.name}\0{tensor.dtype}\0{shape}\0".encode())
        total.update(tensor.sha256)
    return total.hexdigest()


def fingerprint(
    tensors: Sequence[TensorIdentity], *, touched: Iterable[str], repo: str | None = None, commit: str | None = None
) -> Fingerprint:
    """Fingerprint of a base from the identities of all its tensors.

    Args:
        tensors: All tensors of the base, any order.
        touched: Names of the tensors in which a task keeps entries.
        repo: Hub repository, if any.
        commit: Resolved commit, if any.
    """
    ordered = sorted(tensors, key=lambda item: item.name)
    wanted = set(touched)
    return Fingerprint(
        names=tuple(item.name for item in ordered),
        dtypes=tuple(item.dtype for item in ordered),
        shapes=tuple(item.shape for item in ordered),
        tags=tuple(item.sha256[:4].hex() for item in ordered),
        digest=digest(ordered),
        touched=digest(item for item in ordered if item.name in wanted),
        repo=repo,
        commit=commit,
    )


def first_difference(expected: Fingerprint, found: Mapping[str, TensorIdentity]) -> str | None:
    """The first tensor of `found` that is not expected, or whose dtype, shape or hash tag is another."""
    columns = zip(expected.dtypes, expected.shapes, expected.tags, strict=True)
    known = dict(zip(expected.names, columns, strict=True))
    for name in sorted(found):
        item = found[name]
        if known.get(name) != (item.dtype, item.shape, item.sha256[:4].hex()):
            return name
    return None
