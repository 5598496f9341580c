"""Lossless archives: a whole checkpoint against its base into one file, and back, byte for byte."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sparsetv import atomic
from sparsetv.archive.file import is_archive, open_archive
from sparsetv.archive.layout import HEADER_BYTES
from sparsetv.archive.plan import make_plan
from sparsetv.archive.writer import Writer
from sparsetv.arrays import Bytes
from sparsetv.causes import cause
from sparsetv.checkpoint.reading import Checkpoint, open_checkpoint
from sparsetv.difference import task_vector
from sparsetv.errors import OutputError
from sparsetv.jobs.archived import ArchiveSummary, check_base, inspect_archive, restored, summarise
from sparsetv.jobs.outputs import check_apart, check_file, check_name, locked
from sparsetv.progress import Progress, counter


def archive_to(
    output: str | Path,
    base: str | Path,
    finetuned: str | Path,
    *,
    name: str | None = None,
    prefix: tuple[str, str] | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> ArchiveSummary:
    """Write a lossless archive of a fine-tune, coded against its base; every tensor of any dtype, every plain file.

    Args:
        output: File to write, atomically.
        base: Directory, `.safetensors` file or hub id.
        finetuned: The same.
        name: Name of the task; the output's name without suffix where it is None.
        prefix: (from, to) between tensor names where the rule cannot tell.
        progress: Reports bytes of weights.
        note: Told of each file in the fine-tune's directory that an archive does not hold.

    Raises:
        OutputError: The file cannot be written, or exists and is no archive.
        SparseTVError: Some input cannot be used; see the subclasses in `sparsetv.errors`.

    Cost:
        One pass over both checkpoints; memory of a few chunks, whatever the model's size.
    """
    check_file(output, is_own=is_archive, kind="archive")
    chosen = check_name(name or Path(output).stem)
    vector = task_vector(open_checkpoint(base), open_checkpoint(finetuned), prefix=prefix)
    plan = make_plan(vector)
    for file, reason in plan.left_out:
        if note is not None:
            note(f"not archived: {file} ({reason})")
    with ThreadPoolExecutor(1) as pool:
        hashes = {tensor: pool.submit(vector.base.identity, tensor) for tensor in plan.needed()}
        count = counter(progress, "archive", vector.finetuned.total_bytes)
        writer = Writer(plan, name=chosen, identities=lambda tensor: hashes[tensor].result(), count=count)
        parts = _unchanged(writer.parts(), vector.base, vector.finetuned)
        try:
            atomic.write_file_behind(Path(output), parts, head=writer.head, head_size=HEADER_BYTES)
        finally:
            pool.shutdown(cancel_futures=True)  # where writing failed, nobody needs the hashes that are left
    return inspect_archive(output)


def _unchanged(parts: Iterator[bytes], *sides: Checkpoint) -> Iterator[bytes]:
    """The same parts, and at the end a look at whether what they were made from is still the same."""
    yield from parts
    for side in sides:
        side.check_unchanged()


def restore(
    base: str | Path, file: str | Path, output: str | Path, *, progress: Progress | None = None
) -> ArchiveSummary:
    """Give an archived checkpoint back: every file byte for byte, in a new directory.

    Args:
        base: The base that it was archived against: directory, `.safetensors` file or hub id.
        file: The archive.
        output: Directory to write, atomically; it must not exist, or be empty.
        progress: Reports bytes of weights.

    Raises:
        NotFoundError: There is no such file.
        FormatError: It is no valid archive.
        BaseMismatchError: `base` is another one; nothing is written.
        OutputError: The output cannot or must not be written.

    Cost:
        Two passes over the base, the first to check it; memory of a few chunks, whatever the model's size.
    """
    opened, checkpoint, target = open_archive(file), open_checkpoint(base), Path(output)
    check_apart(target, checkpoint)
    if target.exists() and any(target.iterdir()):
        found = min(item.name for item in target.iterdir())
        raise OutputError(f"{target}: holds {found}; name a new directory")
    check_base(opened, checkpoint, progress=progress)
    sizes = [entry.size for entry in opened.manifest.files if entry.kind == "weights"]
    count = counter(progress, "restore", sum(sizes))
    with locked(target), atomic.new_directory(target) as temporary:
        _check_space(target, sum(entry.size for entry in opened.manifest.files))
        for entry, pieces in restored(opened, checkpoint):
            atomic.write_new_file(temporary / entry, _counted(pieces, count))
        checkpoint.check_unchanged()
    return summarise(opened)


def _check_space(target: Path, size: int) -> None:
    """An archive of a few bytes may say that it holds far more than a disk does; that is known before it is written."""
    free = shutil.disk_usage(target.resolve().parent).free
    if size > free:
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise OutputError(f"cannot write {target}: needs {size} bytes, and {free} are free: {cause(full)}")


def _counted(pieces: Iterator[Bytes | bytes], count: Callable[[int], None]) -> Iterator[Bytes | bytes]:
    for piece in pieces:
        yield piece
        count(len(piece))
