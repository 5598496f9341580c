"""What an archive is made of: each file of a checkpoint, and which base tensor each tensor is coded against."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparsetv.archive.cutting import fits
from sparsetv.archive.limits import FILE_BYTES
from sparsetv.archive.names import WEIGHTS, check_other_name, check_weights_name
from sparsetv.arrays import Bytes
from sparsetv.checkpoint.reading import Checkpoint
from sparsetv.difference import TaskVector
from sparsetv.errors import CheckpointError, FormatError
from sparsetv.wire.header import Entry


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """One tensor to code.

    Attributes:
        name: Its name in the fine-tune.
        entry: Dtype and shape.
        data: Its bytes, mapped.
        base: Name of its base tensor; None where it is coded on its own.
    """

    name: str
    entry: Entry
    data: Bytes
    base: str | None


@dataclass(frozen=True, slots=True)
class WeightsPlan:
    """One weight file: its header as it stands, its tensors by offset."""

    name: str
    header: bytes
    tensors: tuple[TensorPlan, ...]


@dataclass(frozen=True, slots=True)
class OtherPlan:
    """One file that is no weights; its content is stored unless the base has the same."""

    name: str
    path: Path
    in_base: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything of a checkpoint, files by ascending name.

    Attributes:
        base: The base's checkpoint.
        files: What is archived.
        left_out: Files of the directory that an archive may not hold, and why.
    """

    base: Checkpoint
    files: tuple[WeightsPlan | OtherPlan, ...]
    left_out: tuple[tuple[str, str], ...]

    def needed(self) -> tuple[str, ...]:
        """Names of the base tensors that some tensor is coded against, ascending."""
        weights = (file for file in self.files if isinstance(file, WeightsPlan))
        return tuple(sorted({t.base for file in weights for t in file.tensors if t.base is not None}))


def make_plan(vector: TaskVector) -> Plan:
    """Plan the archive of a fine-tune.

    Raises:
        CheckpointError: A file has a name that no archive may hold.
    """
    files, left_out = _others(vector.base.location.directory, vector.finetuned.location.directory)
    unsorted: list[WeightsPlan | OtherPlan] = [*_weights(vector), *files]
    planned = sorted(unsorted, key=lambda file: file.name)
    _check_differ([file.name for file in planned], vector.finetuned.source)
    return Plan(vector.base, tuple(planned), tuple(left_out))


def _check_differ(names: list[str], source: str) -> None:
    """Refuse names that some systems take for one (ARCHIVE 2.4), before anything is coded."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise CheckpointError(f"{source}: {other} and {name} differ in case alone; rename or remove one of them")


def _weights(vector: TaskVector) -> list[WeightsPlan]:
    finetuned, partners = vector.finetuned, _partners(vector)
    plans = []
    for name, shard in finetuned.shards.items():
        try:
            check_weights_name(name)
        except FormatError as error:
            raise CheckpointError(f"{shard.path}: {error}; rename it, and the index with it") from None
        tensors = (TensorPlan(t, entry, finetuned.raw(t), partners.get(t)) for t, entry in shard.tensors.items())
        plans.append(WeightsPlan(name, shard.header_bytes, tuple(tensors)))
    return plans


def _partners(vector: TaskVector) -> dict[str, str]:
    """Base tensor per tensor of the fine-tune, where one fits.

    A tensor that the base lacks but that repeats one it has (a tied head saved twice) takes that one's base tensor.
    """
    base, finetuned, pairing = vector.base, vector.finetuned, vector.pairing
    pairs = {**pairing.shared, **pairing.grown, **pairing.reshaped}
    found = {tuned: name for name, tuned in pairs.items() if _fit(base, name, finetuned, tuned)}
    for added in pairing.added:
        twin = next((t for t in found if _equal(finetuned, t, added)), None)
        if twin is not None:
            found[added] = found[twin]
    return found


def _fit(base: Checkpoint, name: str, finetuned: Checkpoint, tuned: str) -> bool:
    return fits(finetuned.dtype(tuned), finetuned.shape(tuned), base.dtype(name), base.shape(name))


def _equal(checkpoint: Checkpoint, first: str, second: str) -> bool:
    one, two = checkpoint.entry(first), checkpoint.entry(second)
    if (one.dtype, one.shape) != (two.dtype, two.shape) or len(one.shape) < 2:
        return False
    return bool(np.array_equal(checkpoint.raw(first), checkpoint.raw(second)))


def _others(base: Path | None, directory: Path | None) -> tuple[list[OtherPlan], list[tuple[str, str]]]:
    files, left_out = [], []
    for path in _plain_files(directory):
        reason = _refusal(path)
        if reason is not None:
            left_out.append((path.name, reason))
            continue
        files.append(OtherPlan(path.name, path, base is not None and _same(base / path.name, path)))
    return files, left_out


def _plain_files(directory: Path | None) -> Iterator[Path]:
    """Everything in a directory but weight files and repository data."""
    if directory is not None:
        for path in sorted(directory.iterdir()):
            if not path.name.endswith(WEIGHTS) and path.name not in {".git", ".cache"}:
                yield path


def _refusal(path: Path) -> str | None:
    if not path.is_file():
        return "no regular file"
    try:
        check_other_name(path.name)
    except FormatError:
        return "a kind of file that archives do not hold"
    size = path.stat().st_size
    return f"{size} bytes, limit {FILE_BYTES}" if size > FILE_BYTES else None


def _same(first: Path, second: Path) -> bool:
    if not first.is_file() or first.stat().st_size != second.stat().st_size:
        return False
    return first.read_bytes() == second.read_bytes()
