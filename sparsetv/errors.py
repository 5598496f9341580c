"""What can go wrong, as a tree of exceptions; the command line turns each into an exit code."""

from collections.abc import Iterator
from contextlib import contextmanager


class SparseTVError(Exception):
    """Base of every error that sparsetv raises on purpose."""

    exit_code = 1


class UsageError(SparseTVError):
    """An argument that no input could make right."""

    exit_code = 2


class DensityError(UsageError):
    """A density outside (0, 1], or one that keeps no entry."""


class ScopeError(UsageError):
    """A scope that selects nothing."""


class FormatError(SparseTVError):
    """A file that breaks its format, or is another kind of file."""

    exit_code = 3


class BaseMismatchError(SparseTVError):
    """A task applied to another base than the one it was packed against."""

    exit_code = 4


class NotFoundError(SparseTVError):
    """A file, task or repository that is not there."""

    exit_code = 5


class BusyError(SparseTVError):
    """Another process holds the lock."""

    exit_code = 6


class HubError(SparseTVError):
    """The hub cannot be reached, or refuses; the message says what to do."""


class LimitError(SparseTVError):
    """Input beyond a stated limit."""

    exit_code = 7


class CheckpointError(SparseTVError):
    """A checkpoint that cannot be used as it is; the message says what to do."""


class NamesError(CheckpointError):
    """Tensor names of base and fine-tune that no rule brings together."""


class ShapeError(CheckpointError):
    """A tensor whose shape or dtype does not fit the base."""


class NonFiniteError(SparseTVError):
    """A NaN or infinity where a finite number is needed."""


class OutputError(SparseTVError):
    """A target that must not or cannot be written."""


class VerifyError(SparseTVError):
    """A task file that does not hold what it should; the message names the first difference."""


class ProbeError(SparseTVError):
    """A model that cannot be built or run, or a file without the probe that is asked for."""


@contextmanager
def advising(advice: str) -> Iterator[None]:
    """Put what to do behind the message of a FormatError that does not say it; a semicolon parts the two."""
    try:
        yield
    except FormatError as error:
        if ";" in str(error):
            raise
        raise FormatError(f"{error}; {advice}") from None
