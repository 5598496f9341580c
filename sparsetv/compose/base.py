"""The base that tasks are put onto: an untouched checkpoint, or what a stitched directory remembers of one."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from sparsetv.arrays import Bytes
from sparsetv.checkpoint.locate import INDEX_NAME
from sparsetv.checkpoint.reading import Checkpoint, identify
from sparsetv.errors import BaseMismatchError
from sparsetv.fingerprint import TensorIdentity, digest, first_difference
from sparsetv.task_vector import SparseTaskVector
from sparsetv.wire.header import Entry


@dataclass(frozen=True, slots=True)
class ShardLayout:
    """One weight file of the base: its header as it stood, tensors in file order, metadata."""

    header_bytes: bytes
    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Base:
    """A base as stitching sees it.

    Attributes:
        source: What to call it in messages.
        shards: Layout per weight file name.
        raw: Gives the bytes of a tensor, uint8; a view where it can be one.
        files: Other files that belong to it, by path relative to its directory.
        where: Gives file and offset of a tensor that stands in a file as it is; None where it does not.
        index: Its shard index as it stands, if it has one.
        repo, commit: Where it came from, if from the hub.
        check_unchanged: Raises CheckpointError where the files changed since they were opened.
    """

    source: str
    shards: Mapping[str, ShardLayout]
    raw: Callable[[str], Bytes]
    files: Mapping[str, Path]
    where: Callable[[str], tuple[Path, int] | None] = field(default=lambda _name: None)
    index: bytes | None = None
    repo: str | None = None
    commit: str | None = None
    check_unchanged: Callable[[], None] = field(default=lambda: None)

    @property
    def entries(self) -> dict[str, Entry]:
        """Dtype and shape by tensor name."""
        return {name: entry for shard in self.shards.values() for name, entry in shard.tensors.items()}


def base_of(checkpoint: Checkpoint, files: Mapping[str, Path]) -> Base:
    """An untouched checkpoint as a base."""
    return Base(
        source=checkpoint.source,
        shards={
            name: ShardLayout(shard.header_bytes, shard.tensors, shard.metadata)
            for name, shard in checkpoint.shards.items()
        },
        raw=checkpoint.raw,
        files=files,
        where=checkpoint.where,
        index=_index(checkpoint),
        repo=checkpoint.location.repo,
        commit=checkpoint.location.commit,
        check_unchanged=checkpoint.check_unchanged,
    )


def _index(checkpoint: Checkpoint) -> bytes | None:
    directory = checkpoint.location.directory
    return (directory / INDEX_NAME).read_bytes() if directory is not None and checkpoint.location.weight_map else None


def check_structure(base: Base, task: SparseTaskVector) -> None:
    """Names, dtypes and shapes of the tensors that a task touches.

    Raises:
        BaseMismatchError: The base lacks one of them, or it is another one.
    """
    entries = base.entries
    for name, tensor in task.tensors.items():
        if name not in entries:
            raise BaseMismatchError(f"{task.name} needs tensor {name}, which base {base.source} lacks; {_advice(task)}")
        found = entries[name]
        if (found.dtype, found.shape) != (tensor.dtype, tensor.shape):
            raise BaseMismatchError(
                f"{name} is {tensor.dtype} {tensor.shape} for {task.name}, but {found.dtype} {found.shape} in base "
                f"{base.source}; {_advice(task)}"
            )


def check_content(task: SparseTaskVector, base: Base, identities: Mapping[str, TensorIdentity]) -> None:
    """Compare hashes of the tensors that a task touches.

    Raises:
        BaseMismatchError: They are not those of the base that the task was packed against.
    """
    touched = [name for name, tensor in task.tensors.items() if tensor.nnz]
    found = digest(identities[name] for name in touched)
    if found == task.base.touched:
        return
    different = first_difference(task.base, {name: identities[name] for name in touched})
    raise BaseMismatchError(
        f"{task.name} was packed against base {task.base.touched[:12]}… but {base.source} is {found[:12]}… "
        f"(first difference: {different}); {_advice(task)}"
    )


def _advice(task: SparseTaskVector) -> str:
    origin = task.base.repo
    where = f" ({origin}@{task.base.commit})" if origin else ""
    return f"pass the base it was packed from{where}"


class Hashing:
    """Hashes all tensors of a base in a thread beside other work."""

    def __init__(self, base: Base) -> None:
        """Start hashing."""
        self._pool = ThreadPoolExecutor(1)
        self._jobs: dict[str, Future[TensorIdentity]] = {
            name: self._pool.submit(_hash, base, name, entry) for name, entry in sorted(base.entries.items())
        }

    def result(self) -> dict[str, TensorIdentity]:
        """Wait for all of them."""
        return {name: job.result() for name, job in self._jobs.items()}

    def close(self) -> None:
        """Drop what has not started."""
        self._pool.shutdown(cancel_futures=True)


def _hash(base: Base, name: str, entry: Entry) -> TensorIdentity:
    """Restores the tensor only when its turn comes."""
    return identify(name, entry, base.raw(name))
