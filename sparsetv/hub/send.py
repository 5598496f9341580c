"""Files onto the hub: one commit, onto the very commit that was looked at."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparsetv import __version__
from sparsetv.errors import BusyError, HubError
from sparsetv.hub.ids import TaskId
from sparsetv.hub.troubles import told

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo


@dataclass(frozen=True, slots=True)
class Branch:
    """What a branch holds.

    Attributes:
        commit: Its newest commit; None where there is none yet.
        files: Names of its files.
    """

    commit: str | None
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sent:
    """A commit on the hub, its page, and the page of the pull request where one was opened."""

    commit: str
    url: str
    pull_request: str | None


def prepare(what: TaskId, *, private: bool, create: bool = True) -> Branch:
    """Look at the branch that will be written; repository and branch are created where they are missing.

    Args:
        what: Where to write; its revision is a branch.
        private: Whether nobody else may see the repository.
        create: Whether a branch may be created; a pull request needs one that is there.

    Raises:
        HubError: Nobody is logged in, the hub refuses, or the repository is public and must not be.
    """
    from huggingface_hub import get_token  # noqa: PLC0415  0.2 s

    if get_token() is None:
        raise HubError(f"{what}: not logged in; log in (`hf auth login`, or HF_TOKEN) with a token that may write")
    with told(what, doing="write"):
        info = _look(_api(), what, private=private, create=create)
    if private and not info.private:
        raise HubError(f"{what}: {what.repo} is public; make it private on its page, or name another repository")
    return Branch(info.sha, tuple(item.rfilename for item in info.siblings or ()))


def _look(api: "HfApi", what: TaskId, *, private: bool, create: bool) -> "ModelInfo":
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError  # noqa: PLC0415

    try:
        return api.model_info(what.repo, revision=what.revision)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        api.create_repo(what.repo, private=private)
    except RevisionNotFoundError:
        if not create:
            raise
    if what.revision is not None:
        api.create_branch(what.repo, branch=what.revision, exist_ok=True)
    return api.model_info(what.repo, revision=what.revision)


def fetch_text(what: TaskId, branch: Branch, name: str) -> str:
    """A small text file as it stands on a branch; empty where there is none."""
    if name not in branch.files:
        return ""
    from huggingface_hub import hf_hub_download  # noqa: PLC0415

    with told(what, doing="read"):
        path = hf_hub_download(what.repo, name, revision=branch.commit)
    return Path(path).read_text("utf-8", errors="replace")


def send(
    what: TaskId,
    files: Mapping[str, bytes],
    *,
    parent: str | None,
    message: str,
    pull_request: bool = False,
) -> Sent:
    """Commit files, if the branch still stands at the commit that was looked at.

    Raises:
        BusyError: It does not; nothing was written.
        HubError: The hub refuses.
    """
    from huggingface_hub import CommitOperationAdd  # noqa: PLC0415

    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    with told(what, doing="write"):
        done = _api().create_commit(
            what.repo,
            operations,
            commit_message=message,
            revision=what.revision,
            create_pr=pull_request,
            parent_commit=parent,
        )
    return Sent(done.oid, done.commit_url, done.pr_url)


def check_parent(what: TaskId, branch: Branch, expected: str | None) -> None:
    """Raise BusyError where a branch does not stand at the commit that is expected."""
    if expected is not None and branch.commit != expected:
        raise BusyError(f"{what}: stands at {branch.commit}, expected {expected}; look at what is new, and push again")


def _api() -> "HfApi":
    from huggingface_hub import HfApi  # noqa: PLC0415

    return HfApi(library_name="sparsetv", library_version=__version__)
