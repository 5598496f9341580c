"""Tasks from whatever a user names them by: files, hub ids, tasks in memory, and `STORE:a,b,c*`."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from sparsetv.errors import UsageError
from sparsetv.jobs.store import Store
from sparsetv.store.layout import parse_reference
from sparsetv.task_vector import SparseTaskVector
from sparsetv.taskfile import read_all, read_task

Source = str | Path | SparseTaskVector
"""A task file, a hub id `org/task@revision`, a task in memory, or tasks of a store as `STORE:NAME,GLOB`."""


def read_tasks(sources: Sequence[Source]) -> list[SparseTaskVector]:
    """Read all tasks that are named, in order; those of a store by ascending name.

    Raises:
        NotFoundError: A file, or a task of a store or of the hub, is not there.
        HubError: The hub cannot be reached, or refuses.
        FormatError: A file is broken.
        LimitError: Together they would pass the memory limit.
    """
    return read_all(read for source in sources for read in _readers(source))


def _readers(source: Source) -> list[Callable[[], SparseTaskVector]]:
    """What gives each task that a source names."""
    if isinstance(source, SparseTaskVector):
        return [lambda: source]
    reference = _reference(source)
    if reference is None:
        return [partial(read_task, source)]
    store = Store.open(reference[0])
    return [partial(store.read, name) for name in store.select(*reference[1])]


def base_of_tasks(sources: Sequence[Source]) -> str:
    """The base that the stores of some tasks were made for.

    Raises:
        UsageError: No store is among the sources, one does not know where its base is, or they have several.
    """
    references = [reference for source in sources if (reference := _reference(source)) is not None]
    if not references:
        raise UsageError("no base is named, and none of the tasks comes from a store that knows its base")
    bases = {Store.open(root).base for root, _ in references}
    if len(bases) > 1 or None in bases:
        root = references[0][0]
        raise UsageError(
            f"{root}: does not say where one base of all tasks is; name the base: stitch BASE {root}:… -o DIR"
        )
    return str(bases.pop())


def _reference(source: Source) -> tuple[Path, tuple[str, ...]] | None:
    if not isinstance(source, str) or Path(source).is_file():
        return None
    return parse_reference(source)
