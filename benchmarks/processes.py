"""Wall time, processor time and peak memory of a command with everything that it starts."""

import os
import resource
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

EVERY = 0.01
"""Seconds between two looks at the memory."""

_KIB = 1024


class ProcessError(Exception):
    """A command could not be started, failed or took too long; the message says why."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a command took.

    Attributes:
        seconds: From start to end, by the clock.
        processor: Seconds of the processor, user and system, of all its processes; more than `seconds` where several
            threads ran, less where it waited for the disk or for others.
        anonymous: Most memory of its own that the process tree had at once, in bytes; mapped files do not count.
        resident: Most resident memory of the tree, in bytes; pages of mapped files count, once per process that maps
            them, though the system can take them back.
        output: What it printed, stdout and stderr together.
    """

    seconds: float
    processor: float
    anonymous: int
    resident: int
    output: str


@dataclass
class _Watch:
    """Largest sums seen over a process tree."""

    root: int
    anonymous: int = 0
    resident: int = 0
    late: bool = False
    stop: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        """Sum over the tree as it is now; the kernel's own high-water mark of each process counts, too."""
        anonymous = resident = 0
        for pid in tree(self.root):
            memory = memory_of(pid)
            anonymous += memory.get("RssAnon", 0)
            resident += memory.get("VmRSS", 0)
            self.resident = max(self.resident, memory.get("VmHWM", 0))
        self.anonymous = max(self.anonymous, anonymous)
        self.resident = max(self.resident, resident)

    def run(self, deadline: float) -> None:
        """Look again and again until told to stop; end the tree where it runs past the deadline."""
        while True:
            self.look()
            if self.stop.wait(EVERY):
                return
            if time.perf_counter() > deadline and not self.late:
                self.late = True
                with suppress(ProcessLookupError):  # it ended in this very moment
                    os.killpg(self.root, signal.SIGKILL)


def measured_process(command: Sequence[str | Path], *, timeout: float = 1800) -> Measured:
    """Run a command to its end, offline as far as the model hub goes.

    Peaks are those of samples, 10 ms apart, so a shorter spike of anonymous memory can be missed; of resident memory
    the kernel keeps the high-water mark of each process.

    Raises:
        ProcessError: It could not be started, exited with another code than 0, or took longer than `timeout` seconds.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    words = [str(word) for word in command]
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        before, start = _processor_of_children(), time.perf_counter()
        process = _started(words, output, environment)
        watch = _Watch(process.pid)
        thread = threading.Thread(target=watch.run, args=(start + timeout,), daemon=True)
        thread.start()
        try:
            code = process.wait()
        finally:
            seconds = time.perf_counter() - start
            watch.stop.set()
            thread.join()
        output.seek(0)
        text = output.read()
    if watch.late:
        raise ProcessError(f"{Path(words[0]).name} ran longer than {timeout:g} s")
    if code:
        raise ProcessError(
            f"{Path(words[0]).name} exited with {code}: {(text.strip() or 'no output').splitlines()[-1]}"
        )
    return Measured(seconds, _processor_of_children() - before, watch.anonymous, watch.resident, text)


def _started(words: Sequence[str], output: IO[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    except OSError as error:
        raise ProcessError(f"{words[0]}: {error}") from error


def tree(root: int) -> list[int]:
    """A process and all that descend from it, as far as they are running."""
    found, open_ = [], [root]
    while open_:
        pid = open_.pop()
        found.append(pid)
        open_ += [int(child) for text in _children(pid) for child in text.split()]
    return found


def _children(pid: int) -> list[str]:
    try:
        return [(thread / "children").read_text() for thread in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:  # it ended meanwhile
        return []


def memory_of(pid: int | str) -> dict[str, int]:
    """Bytes by the kernel's names (`VmRSS`, `VmHWM`, `RssAnon`, …); empty where the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if line.endswith(" kB"))
    return {name: int(value.split()[0]) * _KIB for name, value in pairs}


def _processor_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
