"""Any number of tasks onto a base, as an ordinary checkpoint directory."""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from sparsetv import atomic
from sparsetv.arrays import Bits, Positions
from sparsetv.belonging import check_content, check_structure
from sparsetv.compose.base import Base, Hashing
from sparsetv.compose.combine import Part, Patch, combine
from sparsetv.compose.files import copy_files
from sparsetv.compose.mix import Active, Mix
from sparsetv.compose.record import MEMORY, RECORD, ROOM, Member, Record
from sparsetv.compose.reuse import Reuse
from sparsetv.compose.undo import Undo
from sparsetv.compose.weights import Piece, plan, write_shards
from sparsetv.container.writer import encode
from sparsetv.dtypes import SIZES
from sparsetv.errors import FormatError
from sparsetv.fingerprint import digest
from sparsetv.task_vector import SparseTaskVector
from sparsetv.wire.header import encode_header, place


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
            Part(tensor, item.coefficient) for item in self._mix.active if (tensor := item.tensor(name)) is not None
        ]
        if not parts:
            return None
        dtype = self._entries[name].dtype
        patch = combine(name, parts, rule=self._mix.rule, dtype=dtype, base_bits=self._reader(name, dtype))
        self._undo.saved[name] = (patch.positions, patch.before)
        return patch

    def _reader(self, name: str, dtype: str) -> Callable[[Positions], Bits]:
        standing = self._base.stands(name)
        return lambda positions: standing.at(positions, dtype)


def stitch(
    base: Base,
    chosen: Mix,
    target: Path,
    *,
    keep: Mapping[str, Path] | None = None,
    expected: str | None = None,
    reuse: Reuse | None = None,
    verify: str = "touched",
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
        reuse: What of that directory stays; tensors in weight files that stay are not read again.
        verify: How the base is compared with that of the tasks, a name of `belonging.VERIFY`; tasks that were on the
            directory before have been compared.
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
    stays = reuse or Reuse()
    hashing = Hashing(base, known=stays.identities)
    try:
        with atomic.new_directory(target) as directory:
            record, undo = _write(base, chosen, directory, stays, progress)
            copy_files(keep or {}, directory)
            identities = hashing.result()
            base.check_unchanged()
            found = digest(identities.values())
            if expected is not None and found != expected:
                raise FormatError(f"{target}: weights changed since sparsetv wrote them; stitch again from the base")
            for item, digest_of in zip(chosen.active, chosen.digests, strict=True):
                if digest_of not in stays.tasks:
                    check_content(item.task, identities, source=base.source, verify=verify)
            undo.identities = identities
            undo.write(directory / ROOM / MEMORY)
            memory = hashlib.sha256((directory / ROOM / MEMORY).read_bytes()).hexdigest()
            record = replace(record, base_digest=found, memory_sha256=memory)
            atomic.write_new_file(directory / RECORD, [record.to_bytes()])
    finally:
        hashing.close()
    return record


def _write(
    base: Base, chosen: Mix, directory: Path, stays: Reuse, progress: Callable[[int], None] | None
) -> tuple[Record, Undo]:
    single = chosen.single
    undo = Undo(headers={name: shard.header_bytes for name, shard in base.shards.items()}, index=base.index)
    undo.saved.update(stays.saved)
    plans = plan(base, chosen)
    write_shards(directory, base, plans, Patcher(base, chosen, undo), stays=stays.shards, progress=progress)
    _remember_dropped(base, plans, undo)
    copy_files(base.files, directory)
    room = directory / ROOM
    room.mkdir()
    replaced, added = _own_files(base, single.files if single else {}, directory)
    if not single:
        for item in chosen.active:
            _write_head(room / "heads" / item.task.name, item.task)
    pairs = zip(chosen.active, chosen.digests, strict=True)
    members = tuple(_keep_task(room, item, digest, stays.tasks.get(digest)) for item, digest in pairs)
    record = Record(
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
        memory_sha256="",
    )
    return record, undo


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


def _keep_task(room: Path, item: Active, digest: str, stays: Path | None) -> Member:
    folder = room / "tasks"
    folder.mkdir(exist_ok=True)
    file = f"{digest[:16]}.stv"
    if stays is None:
        atomic.write_new_file(folder / file, encode(item.task).parts)
    else:
        atomic.link_or_copy(stays, folder / file)
    return Member(item.task.name, digest, item.weight, item.policy, item.scale, file, item.factors)


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
