"""A stitched directory opened again: the base it still holds, and the tasks that are on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sparsetv.checkpoint.locate import INDEX_NAME
from sparsetv.checkpoint.reading import Checkpoint, open_checkpoint
from sparsetv.compose.base import Base, Standing
from sparsetv.compose.mix import Active
from sparsetv.compose.record import MEMORY, RECORD, ROOM, Member, Record, read_record
from sparsetv.compose.undo import Memory, open_memory
from sparsetv.container.reader import decode
from sparsetv.errors import FormatError
from sparsetv.task_vector import SparseTaskVector
from sparsetv.taskfile import open_task, read_all
from sparsetv.wire.header import Entry


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

        def stands(name: str) -> Standing:
            return self.memory.under(merged.stands(name), name, dtypes[name])

        record = self.record
        files = {name: self.path / name for name in record.files if (self.path / name).is_file()}
        for name in record.replaced:
            files[name] = self.path / ROOM / "files" / name
            if not files[name].is_file():
                raise FormatError(
                    f"{files[name]}: is missing, so {self.path} cannot go back; stitch again from the base"
                )
        return Base(
            source=record.base,
            shards=merged.shards,
            stands=stands,
            files=files,
            index=self.memory.index(),
            repo=record.repo,
            commit=record.commit,
            check_unchanged=self._check_unchanged,
        )

    def _check_unchanged(self) -> None:
        """What is copied is read a second time, after it was hashed or before."""
        self.merged.check_unchanged()
        self.memory.file.check_unchanged()

    def merged_base(self) -> Base:
        """The merged weights under base names; what they lack of the base is the base's."""
        layouts = self.memory.layouts()
        entries = {name: entry for shard in layouts.values() for name, entry in shard.tensors.items()}

        def stands(name: str) -> Standing:
            return self.memory.dropped(name) or self._merged(name, entries[name])

        return Base(str(self.path), layouts, stands, {})

    def own_files(self) -> dict[str, Path]:
        """Files and links that somebody else put into the directory, by relative path; they stay."""
        record = self.record
        written = {RECORD, INDEX_NAME, *self.memory.layouts(), *record.files, *record.added}
        found = {}
        for path in sorted(self.path.rglob("*")):
            relative = path.relative_to(self.path)
            is_own = path.is_file() or path.is_symlink()
            if is_own and relative.parts[0] != ROOM and relative.as_posix() not in written:
                found[relative.as_posix()] = path
        return found

    def _merged(self, name: str, entry: Entry) -> Standing:
        """A base tensor in the merged weights, without rows that a task added."""
        merged = self._merged_name(name)
        if merged not in self.merged or self.merged.dtype(merged) != entry.dtype:
            raise FormatError(f"{self.path}: weights lack {merged} as {entry.dtype}; they are not what sparsetv wrote")
        data = self.merged.raw(merged)[: entry.stop - entry.start]
        if len(data) != entry.stop - entry.start:
            raise FormatError(f"{self.path}: {merged} is too short; the weights are not what sparsetv wrote")
        return Standing(*self.merged.where(merged), data)

    def _merged_name(self, name: str) -> str:
        old, new = self.record.prefix
        return new + name.removeprefix(old)

    def active(self, members: Sequence[Member], *, held: Sequence[SparseTaskVector] = ()) -> list[Active]:
        """Tasks on it, with their numbers; see `task`.

        Raises:
            LimitError: Together with the tasks that are held they would pass the memory limit.
        """
        tasks = read_all((partial(self.task, member) for member in members), held=held)
        return [
            Active(task, member.weight, member.policy, member.scale, member.factors)
            for member, task in zip(members, tasks, strict=True)
        ]

    def task(self, member: Member) -> SparseTaskVector:
        """Read one of the tasks on it.

        Raises:
            FormatError: The stored task file is not the one that the record names.
        """
        path = self.path / ROOM / "tasks" / member.file
        opened = open_task(path)
        if (opened.manifest.digest, opened.manifest.name) != (member.digest, member.name):
            raise FormatError(
                f"{path}: is not the task that the record names ({member.name}, {member.digest[:12]}…); "
                "stitch again from the base"
            )
        return decode(opened)  # which hashes the content and compares it with the manifest


def open_stitched(path: Path) -> Stitched:
    """Open a directory that `stitch` wrote.

    Raises:
        NotFoundError: It is none.
        FormatError: Its record or undo file is broken.
    """
    record = read_record(path)
    return Stitched(path, record, open_checkpoint(path), open_memory(path / ROOM / MEMORY))
