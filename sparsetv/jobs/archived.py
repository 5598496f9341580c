"""What an archive holds, and checking it against its base and its fine-tune."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparsetv.archive.chunk import mode_of
from sparsetv.archive.file import open_archive
from sparsetv.archive.manifest import FileEntry
from sparsetv.archive.reader import Opened, restore_file, tensor_parts
from sparsetv.arrays import Bytes
from sparsetv.checkpoint.reading import Checkpoint, Shard, chunked, open_checkpoint
from sparsetv.errors import BaseMismatchError, VerifyError
from sparsetv.progress import Progress, counter
from sparsetv.threads import THREADS

_ADVICE = "pass the base it was made against"


@dataclass(frozen=True, slots=True)
class ArchivedTensor:
    """One tensor of an archive: its bytes, those that store it, and how many of its chunks have which mode."""

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    base: str | None
    size: int
    stored: int
    modes: dict[str, int]


@dataclass(frozen=True, slots=True)
class ArchiveSummary:
    """An archive at a glance.

    Attributes:
        file_bytes: Bytes of the archive.
        checkpoint_bytes: Bytes of all files that it gives back.
        modes: Bytes of chunks by mode.
        other_bytes: Bytes of headers, files that are no weights, manifest and the archive's own header.
        base: Origin of the base, and how many of its tensors are needed.
        files: Name, kind, size, SHA-256 of each file.
        tensors: Every tensor of the checkpoint, by file and offset.
    """

    path: str
    name: str
    writer: str
    file_bytes: int
    checkpoint_bytes: int
    modes: dict[str, int]
    other_bytes: int
    base: dict[str, object]
    files: tuple[dict[str, object], ...]
    tensors: tuple[ArchivedTensor, ...]


def inspect_archive(path: str | Path) -> ArchiveSummary:
    """Summarise an archive; header, manifest and data hash are checked, nothing is decoded.

    Raises:
        NotFoundError: There is no such file.
        FormatError: It is no valid archive.
    """
    return summarise(open_archive(path))


def summarise(opened: Opened) -> ArchiveSummary:
    """Summarise an opened archive."""
    manifest = opened.manifest
    tensors = tuple(t for file in manifest.files if file.kind == "weights" for t in _tensors(opened, file))
    modes: Counter[str] = Counter()
    for tensor in tensors:
        modes.update(tensor.modes)
    return ArchiveSummary(
        path=opened.what,
        name=manifest.name,
        writer=manifest.writer,
        file_bytes=opened.size,
        checkpoint_bytes=sum(file.size for file in manifest.files),
        modes=dict(sorted(modes.items())),
        other_bytes=opened.size - sum(tensor.stored for tensor in tensors),
        base={"repo": manifest.repo, "commit": manifest.commit, "tensors": len(manifest.base)},
        files=tuple({"name": f.name, "kind": f.kind, "size": f.size, "sha256": f.sha256} for f in manifest.files),
        tensors=tensors,
    )


def _tensors(opened: Opened, file: FileEntry) -> Iterator[ArchivedTensor]:
    names = [tensor.name for tensor in opened.manifest.base]
    entries = zip(tensor_parts(opened, file), file.tensors, strict=True)
    for (name, entry, parts), stored in entries:
        modes: Counter[str] = Counter()
        for part in parts:
            modes[mode_of(opened.data[part.start : part.stop])] += part.stop - part.start
        yield ArchivedTensor(
            name=name,
            file=file.name,
            dtype=entry.dtype,
            shape=entry.shape,
            base=None if stored.base is None else names[stored.base],
            size=entry.stop - entry.start,
            stored=sum(stored.chunks),
            modes=dict(sorted(modes.items())),
        )


def check_base(opened: Opened, base: Checkpoint, *, progress: Progress | None = None) -> None:
    """Compare every tensor and file of the base that an archive needs.

    Raises:
        BaseMismatchError: One is missing or another; the message names the first.
    """
    for tensor in opened.manifest.base:
        if tensor.name not in base:
            raise BaseMismatchError(
                f"{opened.what} needs tensor {tensor.name}, which base {base.source} lacks; {_ADVICE}"
            )
        found = (base.dtype(tensor.name), base.shape(tensor.name))
        if found != (tensor.dtype, tensor.shape):
            raise BaseMismatchError(
                f"{tensor.name} is {tensor.dtype} {tensor.shape} for {opened.what}, but {found[0]} {found[1]} in base "
                f"{base.source}; {_ADVICE}"
            )
    for file in opened.manifest.files:
        if file.kind == "base":
            _base_file(opened, base, file)
    names = [tensor.name for tensor in opened.manifest.base]
    count = counter(progress, "check the base", sum(len(base.raw(name)) for name in names))
    with ThreadPoolExecutor(THREADS) as pool:
        identities = pool.map(lambda name: base.identity(name, count), names)
        for tensor, identity in zip(opened.manifest.base, identities, strict=True):
            if identity.sha256.hex() != tensor.sha256:
                pool.shutdown(wait=False, cancel_futures=True)
                raise BaseMismatchError(
                    f"{opened.what} was made against another base than {base.source} (first difference: {tensor.name}: "
                    f"expected {tensor.sha256[:12]}…, found {identity.sha256.hex()[:12]}…); {_ADVICE}"
                )


def _base_file(opened: Opened, base: Checkpoint, file: FileEntry) -> bytes:
    """A file that the base's directory shares with the archived checkpoint."""
    path = None if base.location.directory is None else base.location.directory / file.name
    if path is None or not path.is_file():
        raise BaseMismatchError(f"{opened.what} needs {file.name} of its base, which {base.source} lacks; {_ADVICE}")
    content = path.read_bytes() if path.stat().st_size == file.size else b""
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise BaseMismatchError(f"{path}: is another file than the one that {opened.what} needs; {_ADVICE}")
    return content


def restored(opened: Opened, base: Checkpoint) -> Iterator[tuple[str, Iterator[Bytes | bytes]]]:
    """Each file's name and its bytes in pieces; sizes and hashes are compared as they are made."""
    raws = [base.raw(tensor.name) for tensor in opened.manifest.base]
    for file in opened.manifest.files:
        if file.kind == "base":
            yield file.name, iter([_base_file(opened, base, file)])
        else:
            yield file.name, restore_file(opened, file, raws.__getitem__)


def verify_archive(
    path: str | Path,
    *,
    base: str | Path | None = None,
    finetuned: str | Path | None = None,
    progress: Progress | None = None,
) -> list[tuple[str, str]]:
    """Check an archive; with its base, decode every chunk; with the fine-tune too, compare every byte.

    Returns:
        What was checked, and what was found.

    Raises:
        FormatError: The archive is broken.
        BaseMismatchError: `base` is another one.
        VerifyError: The fine-tune is another one; the message names the first tensor or file that differs.
    """
    opened = open_archive(path)
    files = opened.manifest.files
    checks = [("container", "header, manifest, data hash and the headers of all weight files are sound")]
    if base is None:
        return checks
    checkpoint = open_checkpoint(base)
    check_base(opened, checkpoint, progress=progress)
    checks.append(("base", f"all {len(opened.manifest.base)} tensors that are needed have the recorded hashes"))
    count = counter(progress, "decode", sum(file.size for file in files))
    for _, pieces in restored(opened, checkpoint):
        for piece in pieces:
            count(len(piece))
    checks.append(("content", f"all {len(files)} files decode to the recorded sizes and hashes"))
    if finetuned is not None:
        checks.append(("bits", _check_finetuned(opened, checkpoint, open_checkpoint(finetuned))))
    return checks


def _check_finetuned(opened: Opened, base: Checkpoint, finetuned: Checkpoint) -> str:
    """Compare the recorded hashes, which every file was just found to have, with the fine-tune's files."""
    for file in opened.manifest.files:
        if file.kind == "weights":
            shard = finetuned.shards.get(file.name)
            if shard is None or _sha256(shard.data) != file.sha256:
                raise VerifyError(_difference(opened, base, file, shard, finetuned.source))
        elif finetuned.location.directory is not None:
            other = finetuned.location.directory / file.name
            if not other.is_file() or hashlib.sha256(other.read_bytes()).hexdigest() != file.sha256:
                raise VerifyError(
                    f"{file.name} is not the file in {finetuned.source}; is it the one that was archived?"
                )
    spare = sorted(finetuned.shards.keys() - {file.name for file in opened.manifest.files})
    if spare:
        raise VerifyError(f"{spare[0]} of {finetuned.source} is not archived; is it the one that was archived?")
    return f"all {len(opened.manifest.files)} files are the fine-tune's, byte for byte"


def _difference(opened: Opened, base: Checkpoint, file: FileEntry, shard: Shard | None, source: str) -> str:
    """What to say of a weight file that differs: the first tensor that does."""
    if shard is None:
        return f"{file.name} is not among the weights of {source}; is it the one that was archived?"
    raws = [base.raw(tensor.name) for tensor in opened.manifest.base]
    pieces = restore_file(opened, file, raws.__getitem__)
    at, where = 0, "the header"
    for piece in pieces:
        here = shard.data[at : at + len(piece)]
        if not np.array_equal(np.frombuffer(piece, np.uint8), here):
            where = _tensor_at(opened, file, at)
            break
        at += len(piece)
    return f"{file.name} is not the fine-tune's, bit for bit, first in {where}; is it the one that was archived?"


def _tensor_at(opened: Opened, file: FileEntry, at: int) -> str:
    header = opened.headers[file.name][0]
    inside = (name for name, entry in header.tensors.items() if entry.start <= at - header.size < entry.stop)
    return next(inside, "the header")


def _sha256(data: Bytes) -> str:
    total = hashlib.sha256()
    for chunk in chunked(data):
        total.update(chunk.data)
    return total.hexdigest()
