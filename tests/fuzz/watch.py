"""Watching one file: how long it takes, how much memory, where it was refused, and that it ends."""

import resource
import signal
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeVar

import sparsetv

_PACKAGE = str(Path(sparsetv.__file__).parent)
_Result = TypeVar("_Result")


class HangError(BaseException):
    """A file took longer than the alarm; no handler of the package may catch it."""


def _ring(number: int, frame: FrameType | None) -> None:
    raise HangError("still running when the alarm rang")


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise HangError inside after some seconds."""
    before = signal.signal(signal.SIGALRM, _ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def traced(action: Callable[[], _Result]) -> tuple[_Result, int]:
    """What an action returns, and the most memory that Python and numpy held for it."""
    tracemalloc.start()
    try:
        return action(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def forbid_memory(beyond: int) -> None:
    """Let every allocation fail that takes the process further than this beyond what it holds now."""
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + beyond, resource.RLIM_INFINITY))


def resident() -> int:
    """Most bytes that this process ever held in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def place(error: BaseException) -> str:
    """The line of the package that an error comes from, through handlers that only put a name before its message."""
    while error.__context__ is not None and type(error.__context__) is type(error):
        error = error.__context__
    frames = [item for item in traceback.extract_tb(error.__traceback__) if item.filename.startswith(_PACKAGE)]
    if not frames:
        return type(error).__name__
    return f"{Path(frames[-1].filename).relative_to(_PACKAGE)}:{frames[-1].lineno}"
