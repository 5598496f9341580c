"""A stitched directory opened again: the base it still holds, and the tasks that are on it."""

from dataclasses import dataclass
from pathlib import Path

from sparsetv.arrays import Bytes
from sparsetv.checkpoint.reading import Checkpoint, open_checkpoint
from sparsetv.compose.base import Base
from sparsetv.compose.files import other_files
from sparsetv.compose.record import MEMORY, ROOM, Member, Record, read_record
from sparsetv.compose.undo import Memory, open_memory
from sparsetv.errors import FormatError
from sparsetv.task_vector import SparseTaskVector
from sparsetv.taskfile import read_task


@dataclass(frozen=True, slots=True)
class Stitched:
    """An opened stitched directory."""

    path: Path
    record: Record
    merged: Checkpoint
    memory: Memory

    def base(self) -> Base:
        """The base, restored bit for bit from merged weights and saved values."""
        merged = self.merged_base()
        dtypes = {name: entry.dtype for name, entry in merged.entries.items()}

        def raw(name: str) -> Bytes:
            return self.memory.restore(name, merged.raw(name), dtypes[name])

        files = other_files(self.path)
        for name in self.record.added:
            files.pop(name, None)
        for name in self.record.replaced:
            files[name] = self.path / ROOM / "files" / name
        record = self.record
        return Base(record.base, merged.shards, raw, files, record.repo, record.commit)

    def merged_base(self) -> Base:
        """The merged weights under base names; what they lack of the base is the base's."""
        layouts = self.memory.layouts()
        entries = {name: entry for shard in layouts.values() for name, entry in shard.tensors.items()}

        def raw(name: str) -> Bytes:
            whole = self.memory.dropped(name)
            if whole is not None:
                return whole
            return self.merged.raw(self._merged_name(name))[: entries[name].stop - entries[name].start]

        return Base(str(self.path), layouts, raw, {})

    def _merged_name(self, name: str) -> str:
        old, new = self.record.prefix
        return new + name.removeprefix(old)

    def task(self, member: Member) -> SparseTaskVector:
        """Read one of the tasks on it.

        Raises:
            FormatError: The stored task file is not the one that the record names.
        """
        path = self.path / ROOM / "tasks" / member.file
        task = read_task(path)
        if task.digest() != member.digest:
            raise FormatError(f"{path}: is not the task that the record names ({member.digest[:12]}…)")
        return task


def open_stitched(path: Path) -> Stitched:
    """Open a directory that `stitch` wrote.

    Raises:
        NotFoundError: It is none.
        FormatError: Its record or undo file is broken.
    """
    record = read_record(path)
    return Stitched(path, record, open_checkpoint(path), open_memory(path / ROOM / MEMORY))
