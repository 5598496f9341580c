"""Refs: the small files that give an object a task's name; they change by compare-and-swap on their revision."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sparsetv import atomic
from sparsetv.errors import BusyError, FormatError, NotFoundError
from sparsetv.store.layout import REF_SUFFIX, REFS, directory, is_name, ref_parts, regular
from sparsetv.wire import canonical
from sparsetv.wire.fields import Fields, as_hex
from sparsetv.wire.small import read_small

REF_BYTES = 1 << 12
"""LIMITS 5: largest ref."""

REF_DEPTH = 1
"""LIMITS 5: deepest nesting of a ref."""


@dataclass(frozen=True, slots=True)
class Ref:
    """A name and what it stands for.

    Attributes:
        name: Name of the task in this store, whatever its file says.
        object: SHA-256 of the task file.
        digest: Content digest of the task.
        revision: 1 when the name is new, one more each time it is given to another object.
        previous: The object it stood for before; information only, its file may be gone.
    """

    name: str
    object: str
    digest: str
    revision: int
    previous: str | None


def ref_names(root: Path) -> tuple[str, ...]:
    """All names, ascending, whether or not their files are sound; files that are no refs are left out."""
    found = (path.name for path in directory(root, REFS).iterdir())
    return tuple(sorted(name.removesuffix(REF_SUFFIX) for name in found if is_ref_file(name)))


def is_ref_file(name: str) -> bool:
    """Whether a file's name is that of a ref."""
    return name.endswith(REF_SUFFIX) and is_name(name.removesuffix(REF_SUFFIX))


def read_ref(root: Path, name: str) -> Ref:
    """Read and check a ref.

    Raises:
        NotFoundError: There is no task of that name.
        FormatError: The ref is broken.
    """
    path = regular(root, *ref_parts(name))
    fields = Fields(canonical.loads(read_small(path, most=REF_BYTES), what=str(path), depth=REF_DEPTH), where=str(path))
    previous = fields.take("previous")
    ref = Ref(
        name=fields.text("name"),
        object=fields.digest("object"),
        digest=fields.digest("digest"),
        revision=fields.integer("revision"),
        previous=None if previous is None else as_hex(previous, where=f"{path}.previous", digits=64),
    )
    fields.done()
    if ref.name != name or not ref.revision:
        raise FormatError(
            f"{path}: expected name {name!r} and a revision from 1, found {ref.name!r} and "
            f"{ref.revision}; remove the name and add the task again"
        )
    return ref


def find_ref(root: Path, name: str) -> Ref | None:
    """The ref of a name, or None."""
    try:
        return read_ref(root, name)
    except NotFoundError:
        return None


def read_refs(root: Path, names: Sequence[str]) -> list[Ref]:
    """The refs of some names, without those that another process removed meanwhile."""
    return [ref for name in names if (ref := find_ref(root, name)) is not None]


def check_revision(root: Path, name: str, found: Ref | None, *, expected: int | None) -> None:
    """Compare, as in compare-and-swap; the lock is held. Revision 0 is that of a name that is not there.

    Raises:
        BusyError: Another writer changed the ref since its revision was `expected`.
    """
    revision = 0 if found is None else found.revision
    if expected is not None and revision != expected:
        raise BusyError(
            f"{root}: expected {name!r} at revision {expected}, found revision {revision}; another writer changed it, "
            "so look at it again before you do"
        )


def write_ref(root: Path, ref: Ref) -> None:
    """Put a ref in place, the old one or the new one; the lock is held, and `find_ref` found no link there."""
    parts = ref_parts(ref.name)
    path = directory(root, *parts[:-1]) / parts[-1]
    atomic.write_file(path, [canonical.dumps(asdict(ref), what=str(path)) + b"\n"])


def drop_ref(root: Path, name: str) -> None:
    """Remove a ref, sound or not; the lock is held."""
    parts = ref_parts(name)
    parent = directory(root, *parts[:-1])
    (parent / parts[-1]).unlink(missing_ok=True)
    atomic.sync(parent)
