"""Checking everything in a store."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from sparsetv.errors import FormatError, SparseTVError
from sparsetv.store.base import StoreBase, base_from, check_base
from sparsetv.store.config import Config, check_store, read_config
from sparsetv.store.layout import ref_parts
from sparsetv.store.reading import check_hash, known_base
from sparsetv.store.refs import Ref, read_ref
from sparsetv.store.survey import survey
from sparsetv.taskfile import read_task

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Report:
    """State of a store.

    Attributes:
        problems: One line each.
        refs, objects: How many there are.
        size: Bytes of all objects.
        dangling: Objects that no ref names; `gc` removes them.
        temporaries: Files that a writer is making, or left when it died; `gc` removes those.
    """

    problems: tuple[str, ...]
    refs: int
    objects: int
    size: int
    dangling: tuple[str, ...]
    temporaries: tuple[str, ...]


def fsck(root: Path) -> Report:
    """Read everything in a store and report all that is wrong.

    Each object's bytes hash to its name and are a task of the store's base; each ref is sound and names an object of
    its digest; nothing else lies where objects and refs do. No lock is taken.

    Raises:
        NotFoundError: The directory is no store.

    Cost:
        Hashes and decodes every object, one at a time.
    """
    check_store(root)
    problems: list[str] = []
    config = _attempt(problems, root, lambda: read_config(root)) or Config()
    # Refs first: a writer puts an object in place before its ref, so one that comes meanwhile is no problem.
    refs = _refs(root, problems)
    found = survey(root)
    problems.extend(found.strange)
    digests = _digests(found.objects, _base(root, config), root, problems)
    for ref in refs:
        _check_ref(root, ref, digests, problems)
    named = {ref.object for ref in refs}
    return Report(
        problems=tuple(problems),
        refs=len(found.refs),
        objects=len(digests),
        size=sum(path.stat().st_size for path in found.objects),
        dangling=tuple(sha256 for sha256 in digests if sha256 not in named),
        temporaries=tuple(path.relative_to(root).as_posix() for path in found.temporaries),
    )


def _attempt(problems: list[str], path: Path, action: Callable[[], _T]) -> _T | None:
    """What `action` returns; where it fails, None and one more problem."""
    try:
        return action()
    except SparseTVError as error:
        problems.append(str(error))
    except OSError as error:
        problems.append(f"{path}: cannot be read ({error.strerror or error})")
    return None


def _refs(root: Path, problems: list[str]) -> list[Ref]:
    found = []
    for path in survey(root).refs:
        ref = _attempt(problems, path, partial(read_ref, root, path.stem))
        if ref is not None:
            found.append(ref)
    return found


def _base(root: Path, config: Config) -> StoreBase | None:
    with suppress(FormatError):  # the survey tells which directory is missing
        return known_base(root, config)
    return None


def _digests(objects: Sequence[Path], base: StoreBase | None, root: Path, problems: list[str]) -> dict[str, str | None]:
    """Content digest by object; None where the object is not sound."""
    return {path.stem: _attempt(problems, path, partial(_check_object, root, path, base)) for path in objects}


def _check_object(root: Path, path: Path, base: StoreBase | None) -> str:
    check_hash(path, path.stem)
    task = read_task(path)
    check_base(root, base, base_from(task.base), what=str(path))
    return task.digest()


def _check_ref(root: Path, ref: Ref, digests: Mapping[str, str | None], problems: list[str]) -> None:
    path = root.joinpath(*ref_parts(ref.name))
    found = digests.get(ref.object)
    if ref.object not in digests:
        problems.append(f"{path}: names object {ref.object[:12]}…, which is missing; add the task's file again")
    elif found is not None and found != ref.digest:
        problems.append(
            f"{path}: says digest {ref.digest[:12]}…, the object's is {found[:12]}…; add the task's file again"
        )
