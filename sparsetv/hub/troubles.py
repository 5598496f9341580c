"""The hub's errors as ours: one line, what is wrong and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from sparsetv.errors import BusyError, HubError, NotFoundError, SparseTVError, UsageError
from sparsetv.hub.ids import TaskId

_LOG_IN = "log in (`hf auth login`, or HF_TOKEN)"
_CONFLICT = (409, 412)
_CHAIN = 8


@contextmanager
def told(what: TaskId, *, doing: str) -> Iterator[None]:
    """Turn what the hub's client raises into an error of ours.

    Args:
        what: What is read or written.
        doing: `read` or `write`.

    Raises:
        NotFoundError: No such repository, revision or file.
        BusyError: The branch has changed meanwhile.
        HubError: The hub cannot be reached, or refuses.
    """
    try:
        yield
    except SparseTVError:
        raise
    except Exception as error:
        known = _explain(_root(error), what, doing)
        if known is None:
            raise
        raise known from None


def _root(error: BaseException) -> BaseException:
    """The hub's own answer, where the client wrapped it in an error that says less."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled  # noqa: PLC0415  0.2 s

    inner: BaseException | None = error
    for _ in range(_CHAIN):
        if inner is None:
            break
        if isinstance(inner, HfHubHTTPError | OfflineModeIsEnabled):
            return inner
        inner = inner.__cause__
    return error


def _explain(error: BaseException, what: TaskId, doing: str) -> SparseTVError | None:
    from huggingface_hub import errors  # noqa: PLC0415

    match error:
        case errors.OfflineModeIsEnabled():
            return HubError(
                f"{what}: not on this machine, and the hub may not be asked; unset HF_HUB_OFFLINE, or {_keep(what)}"
            )
        case errors.HFValidationError():
            return UsageError(f"{what}: is no hub id ({_first_line(error)}); write ORG/TASK")
        case errors.HfHubHTTPError():
            return _missing(error, what) or _answered(error.response.status_code, _first_line(error), what, doing)
    return _unreachable(error, what)


def _missing(error: BaseException, what: TaskId) -> SparseTVError | None:
    """What the hub does not have, or does not show."""
    from huggingface_hub import errors, get_token  # noqa: PLC0415

    match error:
        case errors.GatedRepoError():
            return HubError(f"{what}: {what.repo} is gated; ask for access on its page, and {_LOG_IN}")
        case errors.RepositoryNotFoundError():
            log_in = "use a token that may see it" if get_token() else _LOG_IN
            return NotFoundError(
                f"{what}: no such path here, and on the hub no such repository, or a private one; "
                f"check the name, or {log_in}"
            )
        case errors.RevisionNotFoundError():
            return NotFoundError(f"{what}: {what.repo} has no revision {what.revision!r}; name a branch, tag or commit")
        case errors.EntryNotFoundError():
            return NotFoundError(f"{what}: {what.repo} holds no {what.file}; leave the name out to see what it holds")
    return None


def _answered(status: int, line: str, what: TaskId, doing: str) -> SparseTVError:
    if status in _CONFLICT and doing == "write":
        return BusyError(f"{what}: has changed since it was looked at, and nothing was written; look, and push again")
    if status == 401:
        return HubError(f"{what}: the hub does not take this token; {_LOG_IN} anew")
    if status == 403:
        return HubError(f"{what}: this token may not {doing} {what.repo}; use one that may, or another repository")
    if status == 429:
        return HubError(f"{what}: too many requests; wait some minutes, and try again")
    if status >= 500:
        return HubError(f"{what}: the hub has trouble (status {status}); try again later")
    return HubError(f"{what}: the hub refuses ({line}); see to that, and try again")


def _unreachable(error: BaseException, what: TaskId) -> SparseTVError | None:
    from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415

    network = type(error).__module__.partition(".")[0].startswith("httpx")
    if isinstance(error, LocalEntryNotFoundError) or network or isinstance(error, ConnectionError | TimeoutError):
        return HubError(f"{what}: not on this machine, and the hub cannot be reached; go online, or {_keep(what)}")
    if isinstance(error, OSError | ValueError | RuntimeError):
        return HubError(f"{what}: the hub's client failed ({_first_line(error)}); see to that, and try again")
    return None


def _keep(what: TaskId) -> str:
    return f"name a file (made online by `sparsetv pull {what} -o FILE`)"


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
