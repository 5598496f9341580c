"""What is fuzzed: a way to make an input from decisions, and an oracle that says what became of it."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sparsetv.errors import FormatError, LimitError, SparseTVError

LONGEST_MESSAGE = 4000
SLACK = 1 << 20
"""Bytes that reading may take beyond what is stated before decoding: headers and manifests of a few kB, parsed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an input.

    Attributes:
        kind: A word for it.
        error: The error that refused it.
        written: Writes what was read and reads that again; raises where it is not the same. It comes after examining,
            as what writing takes is not stated by a reader.
    """

    kind: str
    error: SparseTVError | None = None
    written: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Target:
    """One kind of input.

    Attributes:
        name: What to call it.
        make: An input from a source of decisions.
        examine: What became of an input; raises where that is neither a known error nor sound content.
        bound: Bytes that reading an input may take at most, as the reader states them before it decodes.
    """

    name: str
    make: Callable[[random.Random], Any]
    examine: Callable[[Any], Outcome]
    bound: Callable[[Any], int]

    def run(self, case: Any) -> Outcome:
        """Examine an input, and write what was read."""
        outcome = self.examine(case)
        outcome.written()
        return outcome


def slack(case: Any) -> int:
    """The bound of a reader whose results are views, or as small as its input."""
    return SLACK


def refused(error: SparseTVError) -> Outcome:
    """The outcome of a known error."""
    require(len(str(error)) < LONGEST_MESSAGE, "a message without end")
    kind = "limit" if isinstance(error, LimitError) else "format" if isinstance(error, FormatError) else "other error"
    return Outcome(kind, error)


def require(holds: object, why: str) -> None:
    """Raise AssertionError where a promise is broken; unlike `assert` it is no test's."""
    if not holds:
        raise AssertionError(why)
