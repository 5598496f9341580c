"""Any number of tasks onto a base, as an ordinary checkpoint directory."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sparsetv import atomic
from sparsetv.arrays import Bits, Positions
from sparsetv.belonging import check_content, check_structure
from sparsetv.compose.base import Base, Hashing
from sparsetv.compose.combine import Part, Patch, combine
from sparsetv.compose.files import copy_files
from sparsetv.compose.record import MEMORY, RECORD, ROOM, Member, Record
from sparsetv.compose.undo import Undo
from sparsetv.compose.weights import Piece, plan_as_base, plan_as_task, write_shards
from sparsetv.container.writer import encode
from sparsetv.dtypes import SIZES, bits_dtype
from sparsetv.errors import FormatError, UsageError
from sparsetv.fingerprint import digest
from sparsetv.rules import Rule
from sparsetv.task_vector import SparseTaskVector
from sparsetv.wire.header import encode_header, place


@dataclass(frozen=True, slots=True)
class Active:
    """A task with the numbers that it enters with.

    Attributes:
        task: The task.
        weight: The user's weight.
        policy, scale: How the scale was found, and the scale.
    """

    task: SparseTaskVector
    weight: float
    policy: str
    scale: float

    @property
    def coefficient(self) -> float:
        """What the task's deltas are multiplied by."""
        return self.weight * self.scale


@dataclass(frozen=True, slots=True)
class Mix:
    """Active tasks in canonical order, and how they combine.

    Attributes:
        active: Tasks, ordered by digest.
        rule: The rule.
        scale: Scale policy as it was asked for.
    """

    active: tuple[Active, ...]
    rule: Rule
    scale: str | float
    digests: tuple[str, ...] = field(default=())


def mix(active: Sequence[Active], *, rule: Rule, scale: str | float) -> Mix:
    """Put tasks into canonical order.

    Raises:
        UsageError: Two tasks have one name, or are the same task.
    """
    ordered = sorted(((item.task.digest(), item) for item in active), key=lambda pair: pair[0])
    _check_distinct([item.task.name for _, item in ordered], "name")
    _check_distinct([digest for digest, _ in ordered], "content")
    return Mix(tuple(item for _, item in ordered), rule, scale, tuple(digest for digest, _ in ordered))


def _check_distinct(values: list[str], what: str) -> None:
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise UsageError(f"two tasks have the {what} {twice[:40]!r}; rename one when packing, or leave it out")


class Patcher:
    """Gives the patch of each base tensor, and remembers the base's bits that it replaced."""

    def __init__(self, base: Base, chosen: Mix, undo: Undo) -> None:
        """Prepare patches of `chosen` on `base`; what they replace is saved in `undo`."""
        self._base = base
        self._mix = chosen
        self._undo = undo
        self._entries = base.entries

    def __call__(self, name: str) -> Patch | None:
        """The patch of a tensor; None where no task keeps an entry."""
        parts = [
            Part(item.task.tensors[name], item.coefficient)
            for item in self._mix.active
            if name in item.task.tensors and item.task.tensors[name].nnz
        ]
        if not parts:
            return None
        dtype = self._entries[name].dtype
        patch = combine(name, parts, rule=self._mix.rule, dtype=dtype, base_bits=self._reader(name, dtype))
        self._undo.saved[name] = (patch.positions, patch.before)
        return patch

    def _reader(self, name: str, dtype: str) -> Callable[[Positions], Bits]:
        bits = self._base.raw(name).view(bits_dtype(dtype))
        return lambda positions: bits[positions]


def stitch(
    base: Base,
    chosen: Mix,
    target: Path,
    *,
    keep: Mapping[str, Path] | None = None,
    expected: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Record:
    """Write a merged checkpoint directory, atomically: all of it or nothing.

    With one task the result is that task's model: its class, head and names. With several, or none, it is the base's
    class under the base's names, and each task's head lies in `sparsetv/heads/NAME`.

    Args:
        base: The base.
        chosen: Tasks and rule.
        target: Directory to write; one that exists is replaced.
        keep: Files of others that the new directory takes over, by relative path.
        expected: Digest that the base must have, where it is restored from a stitched directory.
        progress: Called with bytes written.

    Raises:
        BaseMismatchError: A task belongs to another base.
        NonFiniteError: A merged entry overflows.
        OutputError: The directory cannot be written.

    Cost:
        One pass over the base, hashing beside writing; memory O(kept entries) + one chunk.
    """
    structure = base.structure
    for item in chosen.active:
        check_structure(item.task, structure, source=base.source)
    hashing = Hashing(base)
    try:
        with atomic.new_directory(target) as directory:
            record = _write(base, chosen, directory, progress)
            copy_files(keep or {}, directory)
            identities = hashing.result()
            base.check_unchanged()
            found = digest(identities.values())
            if expected is not None and found != expected:
                raise FormatError(f"{target}: weights changed since sparsetv wrote them; stitch again from the base")
            for item in chosen.active:
                check_content(item.task, identities, source=base.source)
            record = replace(record, base_digest=found)
            atomic.write_new_file(directory / RECORD, [record.to_bytes()])
    finally:
        hashing.close()
    return record


def _write(base: Base, chosen: Mix, directory: Path, progress: Callable[[int], None] | None) -> Record:
    single = chosen.active[0].task if len(chosen.active) == 1 else None
    undo = Undo(headers={name: shard.header_bytes for name, shard in base.shards.items()}, index=base.index)
    plans = plan_as_task(base, single) if single else {n: plan_as_base(s) for n, s in base.shards.items()}
    write_shards(directory, base, plans, Patcher(base, chosen, undo), progress)
    _remember_dropped(base, plans, undo)
    copy_files(base.files, directory)
    room = directory / ROOM
    room.mkdir()
    replaced, added = _own_files(base, single.files if single else {}, directory)
    if not single:
        for item in chosen.active:
            _write_head(room / "heads" / item.task.name, item.task)
    members = tuple(_keep_task(room, item, digest) for item, digest in zip(chosen.active, chosen.digests, strict=True))
    undo.write(room / MEMORY)
    return Record(
        base=os.fsencode(base.source).decode("utf-8", "replace"),
        repo=base.repo,
        commit=base.commit,
        rule=chosen.rule.name,
        min_tasks=chosen.rule.min_tasks if chosen.rule.name == "consensus" else None,
        scale=chosen.scale,
        members=members,
        prefix=single.finetuned.model_prefix if single else ("", ""),
        replaced=replaced,
        added=added,
        files=tuple(sorted(base.files)),
        base_digest="",
        memory_sha256=hashlib.sha256((room / MEMORY).read_bytes()).hexdigest(),
    )


def _remember_dropped(base: Base, plans: Mapping[str, list[Piece]], undo: Undo) -> None:
    """Save whole what the written shards lack of the base."""
    written = {piece.base for pieces in plans.values() for piece in pieces}
    for name, entry in base.entries.items():
        if name not in written:
            undo.dropped[name] = (entry, base.raw(name))


def _own_files(base: Base, files: Mapping[str, bytes], directory: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Put a single task's files over the base's, whose originals go into the room."""
    replaced = tuple(name for name in sorted(files) if name in base.files)
    originals = {name: base.files[name] for name in replaced}
    copy_files(originals, directory / ROOM / "files")
    for name, content in files.items():
        (directory / name).unlink(missing_ok=True)
        atomic.write_new_file(directory / name, [content])
    return replaced, tuple(name for name in sorted(files) if name not in base.files)


def _keep_task(room: Path, item: Active, digest: str) -> Member:
    folder = room / "tasks"
    folder.mkdir(exist_ok=True)
    file = f"{digest[:16]}.stv"
    atomic.write_new_file(folder / file, encode(item.task).parts)
    return Member(item.task.name, digest, item.weight, item.policy, item.scale, file)


def _write_head(folder: Path, task: SparseTaskVector) -> None:
    """A task's own files and carried tensors, beside weights that several tasks share."""
    folder.mkdir(parents=True)
    for name, content in task.files.items():
        atomic.write_new_file(folder / name, [content])
    carried = [(task.finetuned.model_name(name), extra) for name, extra in task.extras.items() if extra.kind != "alias"]
    carried.sort(key=lambda pair: (-SIZES[pair[1].dtype], pair[0]))
    stored = place((name, extra.dtype, extra.shape) for name, extra in carried)
    header = encode_header(stored, {"format": "pt", "kind": "sparsetv-head"})
    atomic.write_new_file(folder / "head.safetensors", [header, *(extra.data for _, extra in carried)])
