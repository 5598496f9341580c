"""The one place where task files are opened and written."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparsetv import atomic
from sparsetv.container import layout
from sparsetv.container.limits import Limits, memory_limit
from sparsetv.container.reader import Opened, decode, open_bytes
from sparsetv.container.writer import encode
from sparsetv.errors import LimitError
from sparsetv.hub.fetch import local
from sparsetv.task_vector import SparseTaskVector
from sparsetv.wire.header import is_of_format, map_file


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of a task file by what they are for.

    Attributes:
        positions, values: The two streams.
        extras: Carried tensors and files.
        probe: Stored outputs.
        framing: Manifest and safetensors header.
    """

    positions: int
    values: int
    extras: int
    probe: int
    framing: int

    @property
    def file(self) -> int:
        """Bytes of the file."""
        return self.core + self.extras + self.probe

    @property
    def core(self) -> int:
        """Bytes without extras and probe: what the kept entries cost, framing included."""
        return self.positions + self.values + self.framing


def write_task(path: Path | str, task: SparseTaskVector) -> int:
    """Write a task file atomically; returns its size in bytes.

    Raises:
        OutputError: The target cannot be written; nothing is left behind.
    """
    return atomic.write_file(Path(path), encode(task).parts)


def open_task(path: Path | str, *, limits: Limits | None = None) -> Opened:
    """Check a task file's header, manifest and payload hash without decoding it; the file stays mapped.

    Args:
        path: The file; or, as text, a hub id `org/task@revision` that is no local path.
        limits: What decoding may take.

    Raises:
        NotFoundError: There is no such file.
        HubError: The hub cannot be reached, or refuses.
        FormatError: It is no valid task file.
    """
    return open_bytes(map_file(local(path)), what=str(path), limits=limits)


def is_task_file(path: Path | str) -> bool:
    """Whether a file's header says that it is a task file; nothing else of it is checked."""
    return is_of_format(path, "sparsetv")


def read_task(path: Path | str, *, limits: Limits | None = None) -> SparseTaskVector:
    """Read and check a whole task file, from a path or a hub id as `open_task` does.

    Raises:
        NotFoundError: There is no such file.
        FormatError: It is no valid task file.
        LimitError: Decoding it would pass `limits`.
    """
    return decode(open_task(path, limits=limits))


def read_all(
    readers: Iterable[Callable[[], SparseTaskVector]], *, held: Sequence[SparseTaskVector] = ()
) -> list[SparseTaskVector]:
    """Call each, in order, with what those before it left of the memory limit.

    Args:
        readers: Functions that read a task each.
        held: Tasks in memory that count, too.

    Raises:
        LimitError: Together the tasks would pass the limit.
    """
    tasks: list[SparseTaskVector] = []
    left = Limits().decoded_bytes - sum(task.nbytes for task in held)
    for read in readers:
        if left <= 0:
            raise LimitError("the tasks fill the memory limit; name fewer, or raise it (--max-memory)")
        with memory_limit(left):
            tasks.append(read())
        left -= tasks[-1].nbytes
    return tasks


def sizes(opened: Opened) -> Sizes:
    """Where the bytes of a file went."""
    length = {name: len(part) for name, part in opened.parts.items()}
    extras = sum(size for name, size in length.items() if name.startswith(layout.EXTRA))
    return Sizes(
        positions=length.get(layout.POSITIONS, 0),
        values=length.get(layout.VALUES, 0),
        extras=extras + length.get(layout.FILES, 0),
        probe=length.get(layout.PROBE, 0),
        framing=opened.header_bytes + length[layout.MANIFEST],
    )
