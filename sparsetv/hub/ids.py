"""Hub ids of task files: `org/task`, `org/repo/name`, each with `@revision`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparsetv.errors import NotFoundError, UsageError

SUFFIX = ".stv"
PLAIN = "task" + SUFFIX
"""The task file of a repository that holds one task."""

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_ID = re.compile(
    rf"(?P<repo>{_PART}/{_PART})(?:/(?P<name>{_PART}))?(?:@(?P<revision>[A-Za-z0-9][\w./-]{{0,249}}))?", re.A
)
_FORM = "ORG/TASK, or ORG/REPO/NAME, with @REVISION where it is not the newest"
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class TaskId:
    """A task file on the hub.

    Attributes:
        repo: Repository, `org/name`.
        name: Of the file, without `.stv`; None for the repository's only one.
        revision: Branch, tag or commit; None for the newest of the main branch.
    """

    repo: str
    name: str | None = None
    revision: str | None = None

    @property
    def file(self) -> str:
        """The file's name in the repository."""
        return PLAIN if self.name is None else self.name + SUFFIX

    def __str__(self) -> str:
        name = "" if self.name is None else f"/{self.name}"
        return self.repo + name + ("" if self.revision is None else f"@{self.revision}")


def parse_id(text: str) -> TaskId:
    """Read a hub id; `.stv` after the name may be there.

    Raises:
        UsageError: It is none.
    """
    found = _ID.fullmatch(text)
    if found is None or ".." in text or "--" in found["repo"]:
        raise UsageError(f"{text}: is no hub id; write {_FORM}")
    name = found["name"] and found["name"].removesuffix(SUFFIX)
    return TaskId(found["repo"], name, found["revision"])


def find_id(source: str | Path) -> TaskId | None:
    """The hub id that a source is, if it is one: text of that form that names nothing on this machine.

    What ends in `.stv` is a path: a typing error in a file's name asks no network.
    """
    if not isinstance(source, str) or source.endswith(SUFFIX) or _ID.fullmatch(source) is None or Path(source).exists():
        return None
    try:
        return parse_id(source)
    except UsageError:
        return None


def choose(files: Sequence[str], *, where: str, example: str) -> str:
    """The one task file among the files of a repository or directory: `task.stv`, or the only `.stv` file.

    Args:
        files: Names of all files.
        where: What messages call the place.
        example: How to name one of several; `NAME` stands for it.

    Raises:
        NotFoundError: There is none, or several and none is `task.stv`.
    """
    found = sorted(name for name in files if name.endswith(SUFFIX) and "/" not in name)
    if PLAIN in found:
        return PLAIN
    if not found:
        raise NotFoundError(f"{where}: holds no task file (.stv); is it the right one?")
    if len(found) > 1:
        names = ", ".join(name.removesuffix(SUFFIX) for name in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise NotFoundError(f"{where}: holds {len(found)} task files, {names}{more}; name one: {example}")
    return found[0]
