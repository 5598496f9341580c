"""The troubles that can come at a call."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crashing.hooks import PARTIAL, Hooks

KILLED = 137


@dataclass(frozen=True, slots=True)
class Trouble:
    """One kind of trouble.

    Attributes:
        name: What it is called in the matrix.
        says: What happens.
        error: The error that the call fails with; 0 where the process dies.
        share: How much of a write is done first, of calls that can stop half-way; None for all calls, nothing done.
        late: Whether it comes after the call.
        zeros: What the power cut leaves of unsynced content; None where there is no power cut.
    """

    name: str
    says: str
    error: int = 0
    share: float | None = None
    late: bool = False
    zeros: bool | None = None

    def points(self, hooks: Hooks) -> list[int]:
        """The calls, counted from 1, at which it makes a difference."""
        calls = range(1, len(hooks.calls) + 1)
        if self.share is not None:
            return [number for number in calls if hooks.calls[number - 1] in PARTIAL]
        if self.zeros is not None:  # where nothing is unsaved, being killed is the same
            return [number for number in calls if hooks.unsaved[number - 1]]
        return [*calls]


TROUBLES = (
    Trouble("full disk", "the call fails: no space left on device", errno.ENOSPC),
    Trouble("broken disk", "the call fails: input/output error", errno.EIO),
    Trouble("half a write", "half of a write is done, then the disk is full", errno.ENOSPC, 0.5),
    Trouble("killed before", "the process dies just before the call"),
    Trouble("killed within", "the process dies when half of a write is done", share=0.5),
    Trouble("killed after", "the process dies just after the call", late=True),
    Trouble("power cut, empty", "power goes before the call; what was not synced is as it was before", zeros=False),
    Trouble("power cut, zeros", "power goes before the call; what was not synced is zeros", zeros=True),
)  # fmt: skip


def arm(hooks: Hooks, trouble: Trouble, at: int, room: Path) -> None:
    """Let trouble come at call `at`."""

    def before(number: int, name: str, do: Callable[[float], object]) -> None:
        if number != at or trouble.late:
            return
        if trouble.share is not None:
            do(trouble.share)
        if trouble.error:
            raise OSError(trouble.error, os.strerror(trouble.error))
        if trouble.zeros is not None:
            hooks.disk.lose(room, zeros=trouble.zeros)
        os._exit(KILLED)

    def after(number: int) -> None:
        if number == at and trouble.late:
            os._exit(KILLED)

    hooks.arm(before=before, after=after)
