"""Failing and dying at any call that may change the disk."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from sparsetv import renaming

CALLS = ("write", "fsync", "rename", "replace", "link", "unlink", "mkdir", "rmdir", "utime", "open", "sendfile")
KILLED = 137


class Hooks:
    """Counts the calls that may change the disk, and tells the number of each before and after it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.before: Callable[[int], None] | None = None
        self.after: Callable[[int], None] | None = None
        self.calls: list[str] = []
        for name in CALLS:
            patch.setattr(os, name, self._wrap(name, getattr(os, name)))
        patch.setattr(renaming, "_exchange", self._wrap("renameat2", renaming._exchange))

    def arm(self, *, before: Callable[[int], None] | None = None, after: Callable[[int], None] | None = None) -> None:
        """Count anew, and be told."""
        self.before, self.after, self.calls = before, after, []

    def _wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **named: Any) -> Any:
            if name == "open" and not args[1] & os.O_CREAT:
                return call(*args, **named)
            self.calls.append(name)
            number = len(self.calls)
            if self.before is not None:
                self.before(number)
            try:
                return call(*args, **named)
            finally:
                if self.after is not None:
                    self.after(number)

        return wrapped


def die(at: int, number: int) -> None:
    """Die like one that was killed, at call `at`."""
    if number == at:
        os._exit(KILLED)


def in_child(action: Callable[[], object]) -> int:
    """Exit code of a process that is a copy of this one and does `action`."""
    return os.waitstatus_to_exitcode(os.waitpid(start_child(action), 0)[1])


def start_child(action: Callable[[], object]) -> int:
    """Start a process that is a copy of this one and does `action`."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # later Pythons warn of threads, of which the child has none
        child = os.fork()
    if child:
        return child
    try:
        result = action()
        os._exit(result if isinstance(result, int) else 0)
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(255)
