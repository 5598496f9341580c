"""Every call that may change the disk, counted, so that trouble can come at each."""

import builtins
import io
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from crashing.disk import Disk
from sparsetv import renaming

CONTENT = ("write", "pwrite", "writev", "sendfile", "copy_file_range", "ftruncate", "truncate")
"""Change what is in a file."""
NAMES = ("rename", "replace", "link", "symlink", "unlink", "remove", "mkdir", "rmdir")
"""Change which names there are."""
OTHERS = ("fsync", "fdatasync", "utime", "chmod", "fchmod", "posix_fallocate")
CALLS = (*CONTENT, *NAMES, *OTHERS, "open", "mmap", "renameat2")
"""All that are hooked; `open` where it may create or truncate, `mmap` where it may write."""

Call = Callable[..., Any]


class Hooks:
    """Counts calls, tells of each before and after it, and keeps account of what is durable.

    Attributes:
        before: Told name and number of each call, and the call with its arguments; may fail or die.
        after: Told its number.
        calls: Names of the calls so far.
        unsaved: For each call, whether a power cut before it would lose something.
        on: Whether calls are counted at this moment; not while what is durable is looked up.
        armed: Whether they are counted at all.
        disk: What is durable.
    """

    def __init__(self) -> None:
        self.before: Callable[[int, str, Callable[[float], object]], None] | None = None
        self.after: Callable[[int], None] | None = None
        self.on = self.armed = False
        self.calls: list[str] = []
        self.unsaved: list[bool] = []
        self.disk = Disk()

    def arm(
        self,
        *,
        before: Callable[[int, str, Callable[[float], object]], None] | None = None,
        after: Callable[[int], None] | None = None,
    ) -> None:
        """Count anew, and tell."""
        self.before, self.after = before, after
        self.on = self.armed = True
        self.calls, self.unsaved, self.disk = [], [], Disk()

    def disarm(self) -> None:
        """Let calls through."""
        self.on = self.armed = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The hooks are in place."""
        old = {name: getattr(os, name) for name in (*CONTENT, *NAMES, *OTHERS, "open")}
        opens, maps, exchange = io.open, mmap.mmap, renaming._exchange
        try:
            for name, call in old.items():
                setattr(os, name, self._hooked(name, _harmless if name in ("fsync", "fdatasync") else call))
            builtins.open = io.open = self._hooked("file", opens)
            mmap.mmap = self._hooked("mmap", maps)  # type: ignore[misc]
            renaming._exchange = self._hooked("renameat2", exchange)
            yield
        finally:
            for name, call in old.items():
                setattr(os, name, call)
            builtins.open = io.open = opens
            mmap.mmap = maps  # type: ignore[misc]
            renaming._exchange = exchange

    def _hooked(self, name: str, call: Call) -> Any:
        def hooked(*args: Any, **named: Any) -> Any:
            if not self.on or not _changes(name, args, named):
                return call(*args, **named)
            self.on = False  # what is done to keep account is none of the calls
            try:
                return self._tell("open" if name == "file" else name, call, args, named)
            finally:
                self.on = True

        return hooked

    def _tell(self, name: str, call: Call, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        self.calls.append(name)
        self.unsaved.append(self.disk.unsaved)
        number = len(self.calls)
        if self.before is not None:
            self.before(number, name, lambda share: call(*_part(name, args, share), **named))
        told = self.disk.coming(name, args, named)
        try:
            result = call(*args, **named)
            told(result)
        finally:
            if self.after is not None:
                self.after(number)
        return result


def _harmless(descriptor: int) -> None:
    """Nothing here needs a durable disk; the account is kept all the same."""


def _changes(name: str, args: tuple[Any, ...], named: dict[str, Any]) -> bool:
    if name == "open":
        return bool(args[1] & (os.O_CREAT | os.O_TRUNC))
    if name == "file":
        mode = str(named.get("mode", args[1] if len(args) > 1 else "r"))
        return not isinstance(args[0], int) and bool(set(mode) & set("wax+"))
    if name == "mmap":
        return named.get("access") != mmap.ACCESS_READ
    return True


def _part(name: str, args: tuple[Any, ...], share: float) -> tuple[Any, ...]:
    """The arguments of a call that writes only a share of what it was to write."""
    if name == "write":
        return args[0], args[1][: int(len(args[1]) * share)]
    if name == "sendfile":
        return *args[:3], int(args[3] * share)
    return args


PARTIAL = ("write", "sendfile")
"""Calls that can stop half-way."""
