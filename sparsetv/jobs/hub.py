"""Tasks from and to the hub, and to and from directories that look like a hub's repository."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sparsetv import atomic
from sparsetv.container.reader import Opened, decode, open_bytes
from sparsetv.container.writer import encode
from sparsetv.errors import OutputError
from sparsetv.hub.fetch import fetch
from sparsetv.hub.ids import PLAIN, SUFFIX, TaskId, choose, parse_id
from sparsetv.hub.send import Branch, check_parent, fetch_text, prepare, send
from sparsetv.jobs.card import check_accuracy, task_card
from sparsetv.jobs.card_text import MARK
from sparsetv.jobs.outputs import check_file
from sparsetv.task_vector import SparseTaskVector
from sparsetv.taskfile import is_task_file, open_task, read_task
from sparsetv.wire.header import map_file

README = "README.md"


@dataclass(frozen=True, slots=True)
class Pulled:
    """A task file that came from the hub: where it is from, where it is now, and which task it is."""

    repo: str
    file: str
    commit: str
    path: str
    bytes: int
    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Pushed:
    """A task file that went to the hub, or would go.

    Attributes:
        commit, url, pull_request: Of the commit; None after a dry run, and where no pull request was opened.
        files: Names and bytes of the files.
        card: The card; None where the repository keeps its own.
        name, digest: Of the task.
    """

    repo: str
    revision: str | None
    commit: str | None
    url: str | None
    pull_request: str | None
    files: Mapping[str, int]
    card: str | None
    name: str
    digest: str


def load_pretrained(source: str | Path) -> SparseTaskVector:
    """Read a task from a hub id, a directory that `save_pretrained` wrote, or a file.

    Raises:
        NotFoundError: There is no such thing, or it holds no task file, or several.
        HubError: The hub cannot be reached, or refuses.
        FormatError: The file is broken.
    """
    path = Path(source)
    if not path.is_dir():
        return read_task(source)
    names = [item.name for item in path.iterdir() if item.is_file()]
    return read_task(path / choose(names, where=str(path), example=f"{path}/NAME{SUFFIX}"))


def save_pretrained(
    task: SparseTaskVector, directory: str | Path, *, accuracy: Mapping[str, float] | None = None
) -> Path:
    """Write `task.stv` and its card into a directory, as they would lie on the hub; returns the task file.

    A card that sparsetv did not make stays.

    Raises:
        OutputError: The directory or a file cannot be written, or would replace a file of another kind.
    """
    path = Path(directory)
    target, readme = path / PLAIN, path / README
    data = encode(task).tobytes()
    text = task_card(open_bytes(data, what=task.name), check_accuracy(accuracy or {}), place=None)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be made ({error.strerror}); name another directory") from error
    check_file(target, is_own=is_task_file, kind="task file")
    atomic.write_file(target, [data])
    if not readme.exists() or is_made(readme.read_text("utf-8", errors="replace")):
        atomic.write_file(readme, [text.encode()])
    return target


def pull(source: str, output: str | Path | None = None) -> Pulled:
    """Bring a task file from the hub, check all of it, and write it where it is wanted.

    Args:
        source: A hub id: `org/task`, `org/repo/name`, each with `@revision`.
        output: File to write; None for one in the current directory, which must be new or the same.

    Raises:
        UsageError: It is no hub id.
        NotFoundError: No such repository, revision or file.
        HubError: The hub cannot be reached, or refuses.
        FormatError, LimitError: As for `read_task`; nothing is written.
        OutputError: The output cannot be written, or would replace another file.
    """
    what = parse_id(source)
    target = Path(output or (what.name or what.repo.partition("/")[2]) + SUFFIX)
    check_file(target, is_own=is_task_file, kind="task file")
    found = fetch(what)
    data = map_file(found.path)
    opened = open_bytes(data, what=source)
    decode(opened)
    if output is None and target.exists() and target.read_bytes() != data:
        raise OutputError(f"{target}: is there, and another task; name the output (-o FILE)")
    keep(data, target)
    manifest = opened.manifest
    return Pulled(what.repo, found.file, found.commit, str(target), len(data), manifest.name, manifest.digest)


def keep(data: memoryview, target: Path) -> None:
    """Write checked bytes."""
    atomic.write_file(target, [bytes(data)])


def push(
    source: str | Path | SparseTaskVector,
    repo: str,
    *,
    private: bool = False,
    message: str | None = None,
    create_pr: bool = False,
    parent_commit: str | None = None,
    accuracy: Mapping[str, float] | None = None,
    dry_run: bool = False,
) -> Pushed:
    """Commit a task and its card to a repository of the hub, which is made where there is none.

    The file is `task.stv`, or `name.stv` for `org/repo/name`. A card that sparsetv did not make stays, and so does any
    where the repository holds other tasks. If the branch moves meanwhile, nothing is written.

    Args:
        source: A task file, or a task in memory; all of it is checked first.
        repo: A hub id; its revision is a branch, which is made where there is none.
        private: Whether nobody else may see the repository; one that is public is refused then.
        message: Of the commit.
        create_pr: Open a pull request instead of writing to the branch.
        parent_commit: Commit that the branch must stand at.
        accuracy: Accuracies by data set, for the card.
        dry_run: Only say what would be written; asks no network.

    Raises:
        UsageError: `repo` is no hub id.
        BusyError: The branch has moved; nothing was written.
        HubError: Nobody is logged in, the hub cannot be reached, or refuses.
    """
    what, measured = parse_id(repo), check_accuracy(accuracy or {})
    opened, content = _open(source)
    manifest = opened.manifest
    card: str | None = task_card(opened, measured, place=str(TaskId(what.repo, what.name)))
    branch = None if dry_run else prepare(what, private=private, create=not create_pr)
    if branch is not None:
        check_parent(what, branch, parent_commit)
        card = card if _may_replace(what, branch) else None
    files = {what.file: content, **({} if card is None else {README: card.encode()})}
    sizes = {name: len(data) for name, data in files.items()}
    if branch is None:
        return Pushed(what.repo, what.revision, None, None, None, sizes, card, manifest.name, manifest.digest)
    said = message or f"Task {manifest.name}, digest {manifest.digest[:12]}"
    sent = send(what, files, parent=branch.commit, message=said, pull_request=create_pr)
    told = sent.commit, sent.url, sent.pull_request
    return Pushed(what.repo, what.revision, *told, sizes, card, manifest.name, manifest.digest)


def is_made(text: str) -> bool:
    """Whether sparsetv made a card, and may replace it."""
    return MARK in text


def _open(source: str | Path | SparseTaskVector) -> tuple[Opened, bytes]:
    """A task that is checked, and the very bytes that were."""
    if isinstance(source, SparseTaskVector):
        data, what = encode(source).tobytes(), source.name
        return open_bytes(data, what=what), data
    path = Path(source)
    open_task(path)
    data = path.read_bytes()
    return open_bytes(data, what=str(path)), data


def _may_replace(what: TaskId, branch: Branch) -> bool:
    others = [name for name in branch.files if name.endswith(SUFFIX) and name != what.file]
    if README not in branch.files:
        return True
    return not others and is_made(fetch_text(what, branch, README))
