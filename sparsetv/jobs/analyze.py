"""Where masks fall, and what tasks share: from task files alone, without base, models or data."""

from collections.abc import Sequence
from pathlib import Path

from sparsetv import atomic
from sparsetv.analyze.overlap import Overlap, compare
from sparsetv.analyze.pictures import draw_overlap, draw_where, picture_kind
from sparsetv.analyze.where import Where, locate
from sparsetv.belonging import check_one_base
from sparsetv.errors import UsageError
from sparsetv.jobs.tasks import Source, read_tasks
from sparsetv.task_vector import SparseTaskVector


def overlap(tasks: Sequence[Source], *, plot: str | Path | None = None) -> Overlap:
    """Compare masks and masked task vectors of tasks of one base, pair by pair and all together.

    Args:
        tasks: Task files, tasks in memory, or `STORE:NAME,GLOB`.
        plot: Also draw a picture into this file, `.png` or `.svg`.

    Raises:
        UsageError: No tasks, two of one name, or a picture of another kind.
        BaseMismatchError: The tasks were packed against different bases.
        NotFoundError: A file is not there, or matplotlib (the extra `demo`) is not installed.
        FormatError: A file is broken.
        OutputError: The picture cannot be written.

    Reference:
        He et al., Localize-and-Stitch, arXiv:2408.13656, section 3.2, Figures 4 and 12.

    Cost:
        O(kept entries + meetings of two tasks at an entry), whatever the number of tasks; all tasks are held in memory.
    """
    kind = _check_picture(plot)
    found = compare(_read(tasks))
    if plot is not None:
        atomic.write_file(Path(plot), [draw_overlap(found, kind=kind)])
    return found


def where(tasks: Sequence[Source], *, plot: str | Path | None = None) -> Where:
    """Count by layer and by component which entries tasks of one base keep.

    Args:
        tasks: Task files, tasks in memory, or `STORE:NAME,GLOB`.
        plot: Also draw a picture into this file, `.png` or `.svg`.

    Raises:
        UsageError: No tasks, two of one name, or a picture of another kind.
        BaseMismatchError: The tasks were packed against different bases.
        NotFoundError: A file is not there, or matplotlib (the extra `demo`) is not installed.
        FormatError: A file is broken.
        OutputError: The picture cannot be written.

    Reference:
        He et al., Localize-and-Stitch, arXiv:2408.13656, section 3.2, Figures 5 and 10.

    Cost:
        That of reading the files.
    """
    kind = _check_picture(plot)
    found = locate(_read(tasks))
    if plot is not None:
        atomic.write_file(Path(plot), [draw_where(found, kind=kind)])
    return found


def _check_picture(plot: str | Path | None) -> str:
    """The kind of picture to draw, empty for none; refuses what would fail after the work."""
    if plot is None:
        return ""
    kind = picture_kind(plot)
    atomic.check_writable(plot)
    return kind


def _read(sources: Sequence[Source]) -> list[SparseTaskVector]:
    tasks = read_tasks(sources)
    if not tasks:
        raise UsageError("there are no tasks to look at; name one or more")
    names = [task.name for task in tasks]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two tasks are named {twice!r}; name each once, or pack one of them under another --name")
    check_one_base(tasks)
    return tasks
