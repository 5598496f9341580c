"""Checking everything about a task file that can be checked with what is at hand."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparsetv.archive.file import is_archive
from sparsetv.belonging import check_content, check_structure
from sparsetv.checkpoint.reading import Checkpoint, open_checkpoint
from sparsetv.compose.base import base_of
from sparsetv.compose.combine import Part, combine
from sparsetv.difference import TaskVector, task_vector
from sparsetv.errors import UsageError, VerifyError
from sparsetv.fingerprint import digest, first_difference
from sparsetv.hub.fetch import local
from sparsetv.jobs.archived import verify_archive
from sparsetv.localize.measure import measure
from sparsetv.packing.extras import collect
from sparsetv.packing.gather import gather_tensor
from sparsetv.progress import Progress, counter
from sparsetv.rules import Rule
from sparsetv.task_vector import SparseTaskVector
from sparsetv.taskfile import read_task


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked, and what was found."""

    name: str
    found: str


def verify(
    path: str | Path,
    *,
    base: str | Path | None = None,
    finetuned: str | Path | None = None,
    progress: Progress | None = None,
) -> tuple[Check, ...]:
    """Verify a task file or an archive; returns what was checked, or raises at the first thing that is wrong.

    Args:
        path: The task file, or the archive, or a hub id.
        base: The base, to compare hashes of its tensors; an archive is then decoded, too.
        finetuned: The fine-tune, to compare every kept entry and every carried tensor, or every archived byte; needs
            `base`.
        progress: Reports bytes of the base hashed.

    Raises:
        FormatError: The file is broken.
        BaseMismatchError: `base` is not the one that the task was packed against.
        VerifyError: The file does not hold what the fine-tune holds.
    """
    if finetuned is not None and base is None:
        raise UsageError("comparing with the fine-tune needs the base, too; pass --base")
    file = local(path)
    if is_archive(file):
        found = verify_archive(file, base=base, finetuned=finetuned, progress=progress)
        return tuple(Check(*pair) for pair in found)
    task = read_task(path)
    checks = [
        Check("container", "header, manifest, hashes and every frame are sound"),
        Check("content", f"digest {task.digest()}, {task.nnz} of {task.numel} entries kept"),
    ]
    if base is not None:
        checkpoint = open_checkpoint(base)
        checks.append(_check_base(task, checkpoint, progress))
        if finetuned is not None:
            vector = task_vector(checkpoint, open_checkpoint(finetuned), prefix=task.finetuned.prefix)
            refitted = task.recipe.values in {"refit", "budget-refit"}  # signs stay when magnitudes are refitted
            checks += [_check_norms(task, vector) if refitted else _check_entries(task, vector)]
            checks.append(_check_extras(task, vector))
    return tuple(checks)


def _check_base(task: SparseTaskVector, checkpoint: Checkpoint, progress: Progress | None) -> Check:
    report = counter(progress, "hash the base", checkpoint.total_bytes)
    view = base_of(checkpoint, {})
    check_structure(task, view.structure, source=view.source)
    identities = {name: checkpoint.identity(name, report) for name in checkpoint.names}
    check_content(task, identities, source=view.source)
    if digest(identities.values()) == task.base.digest:
        return Check("base", f"all {len(identities)} tensors have the recorded hashes")
    other = first_difference(task.base, identities) or "a tensor that is missing"
    return Check("base", f"all touched tensors have the recorded hashes; untouched ones differ, first {other}")


def _check_entries(task: SparseTaskVector, vector: TaskVector) -> Check:
    """Kept entries against the fine-tune: equal bits for exact values, equal signs for lossy ones."""
    worst, comparable = 0.0, set(vector.comparable())
    for name, tensor in task.tensors.items():
        if name not in comparable:
            raise VerifyError(f"{name}: the fine-tune has no tensor to compare with; is it the one that was packed?")
        bits = vector.base.bits(name)
        patch = combine(name, [Part(tensor, 1.0)], rule=Rule(), dtype=tensor.dtype, base_bits=bits.__getitem__)
        target = vector.target_bits(name, tensor.positions)
        if task.exact and not np.array_equal(patch.after, target):
            place = int(tensor.positions[np.flatnonzero(patch.after != target)[0]])
            raise VerifyError(
                f"{name}: entry {place} is not the fine-tune's, bit for bit; is it the one that was packed?"
            )
        if not task.exact:
            worst = max(
                worst, _compare_signs(name, tensor.values, gather_tensor(vector, name, tensor.positions).values)
            )
    if task.exact:
        return Check("entries", f"all {task.nnz} kept entries give the fine-tune's bits")
    return Check("entries", f"all {task.nnz} kept entries have the fine-tune's signs; largest error {worst:.3g}")


def _check_norms(task: SparseTaskVector, vector: TaskVector) -> Check:
    """Refitted values are not the fine-tune's, but the recorded norms of the whole task vector are."""
    found = measure(vector, [name for name in vector.comparable() if name in task.norms])
    for name, recorded in task.norms.items():
        if found.get(name) != recorded:
            raise VerifyError(f"{name}: the task vector has other norms than the file; is it the one that was packed?")
    return Check("entries", f"all {task.nnz} kept entries were refitted; the whole task vector has the recorded norms")


def _compare_signs(name: str, values: np.ndarray, deltas: np.ndarray) -> float:
    if (np.signbit(values) != np.signbit(deltas)).any():
        raise VerifyError(f"{name}: a kept entry has the other sign in the fine-tune; is it the one that was packed?")
    return float(np.abs(values - deltas).max(initial=0.0))


def _check_extras(task: SparseTaskVector, vector: TaskVector) -> Check:
    expected = collect(vector)
    if expected.keys() != task.extras.keys():
        odd = min(expected.keys() ^ task.extras.keys())
        raise VerifyError(f"{odd}: carried by only one of file and fine-tune; is it the one that was packed?")
    for name, extra in expected.items():
        if not np.array_equal(extra.data, task.extras[name].data):
            raise VerifyError(f"{name}: carried tensor differs from the fine-tune's")
    return Check("extras", f"{len(expected)} carried tensors are the fine-tune's, bit for bit")
