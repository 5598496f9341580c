"""From a hub id to a file in the hub's cache. What is in the file is for the reader to check."""

from dataclasses import dataclass, replace
from pathlib import Path

from sparsetv import __version__
from sparsetv.hub.ids import SUFFIX, TaskId, choose, find_id
from sparsetv.hub.troubles import told


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file of the hub on this machine.

    Attributes:
        path: Where it lies in the hub's cache.
        file: Its name in the repository.
        commit: The commit it is of.
    """

    path: Path
    file: str
    commit: str


def fetch(what: TaskId) -> Fetched:
    """Bring a task file here, or find it in the hub's cache.

    Without a name it is `task.stv`, which an offline cache can tell, too, or the repository's only task file.

    Raises:
        NotFoundError: No such repository, revision or file, or several and none is named.
        HubError: The hub cannot be reached, or refuses.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError  # noqa: PLC0415  0.2 s

    with told(what, doing="read"):
        try:
            return _download(what)
        except RemoteEntryNotFoundError as error:
            if what.name is not None or isinstance(error, LocalEntryNotFoundError):
                raise
        return _download(replace(what, name=_only(what)))


def local(source: str | Path) -> Path:
    """The file that a source names: a path, or a hub id, which is fetched; asks no network for a path.

    Raises:
        NotFoundError, HubError: As for `fetch`.
    """
    what = find_id(source)
    return Path(source) if what is None else fetch(what).path


def _download(what: TaskId) -> Fetched:
    from huggingface_hub import hf_hub_download  # noqa: PLC0415

    path = hf_hub_download(
        what.repo, what.file, revision=what.revision, library_name="sparsetv", library_version=__version__
    )
    return Fetched(Path(path), what.file, Path(path).parent.name)


def _only(what: TaskId) -> str:
    """Name of the repository's only task file."""
    from huggingface_hub import HfApi  # noqa: PLC0415

    info = HfApi(library_name="sparsetv", library_version=__version__).model_info(what.repo, revision=what.revision)
    files = [item.rfilename for item in info.siblings or ()]
    at = "" if what.revision is None else f"@{what.revision}"
    return choose(files, where=str(what), example=f"{what.repo}/NAME{at}").removesuffix(SUFFIX)
