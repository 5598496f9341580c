"""From a ref to the task it names."""

from dataclasses import replace
from pathlib import Path

from sparsetv.container.reader import Opened
from sparsetv.errors import FormatError, NotFoundError
from sparsetv.store.base import StoreBase, base_from
from sparsetv.store.config import Config
from sparsetv.store.layout import object_parts, regular
from sparsetv.store.objects import hash_file
from sparsetv.store.refs import Ref, read_refs, ref_names
from sparsetv.task_vector import SparseTaskVector
from sparsetv.taskfile import open_task, read_task


def object_path(root: Path, ref: Ref) -> Path:
    """The file that a ref names.

    Raises:
        FormatError: It is not there, or no regular file.
    """
    try:
        return regular(root, *object_parts(ref.object))
    except NotFoundError:
        raise FormatError(
            f"{root}: {ref.name!r} names object {ref.object[:12]}…, which is missing; add the task's file again"
        ) from None


def open_object(root: Path, ref: Ref) -> Opened:
    """Check header, manifest and payload hash of the file that a ref names; nothing is decoded.

    Raises:
        FormatError: It is broken, or holds another task.
    """
    opened = open_task(object_path(root, ref))
    if opened.manifest.digest != ref.digest:
        raise FormatError(
            f"{opened.what}: {ref.name!r} is a task of digest {ref.digest[:12]}…, the file's is "
            f"{opened.manifest.digest[:12]}…; add the task's file again"
        )
    return opened


def read_object(root: Path, ref: Ref) -> SparseTaskVector:
    """Read and check the whole task that a ref names; it takes the ref's name.

    Raises:
        FormatError: The file is not the one that was added.
    """
    path = object_path(root, ref)
    check_hash(path, ref.object)
    task = read_task(path)
    if task.digest() != ref.digest:
        raise FormatError(
            f"{path}: {ref.name!r} is a task of digest {ref.digest[:12]}…, the file holds another; "
            "add the task's file again"
        )
    return replace(task, name=ref.name)


def check_hash(path: Path, expected: str) -> None:
    """Raise FormatError where an object's bytes do not hash to its name."""
    found = hash_file(path)
    if found != expected:
        raise FormatError(
            f"{path}: the file's SHA-256 is {found[:12]}…, its name says {expected[:12]}…; it is damaged, "
            "add the task's file again"
        )


def known_base(root: Path, config: Config) -> StoreBase | None:
    """The base of a store: the recorded one, else that of its tasks.

    A ref that is in place makes a task part of the store; a process that dies before it records the base leaves that
    to the next writer.
    """
    if config.base is not None:
        return config.base
    for name in ref_names(root):
        try:
            for ref in read_refs(root, [name]):
                return base_from(open_object(root, ref).manifest.base)
        except FormatError:
            continue  # `fsck` reports it; another task may tell
    return None
