"""Task files to and from the forms of other tools."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from sparsetv import atomic
from sparsetv.arrays import Bits
from sparsetv.belonging import check_content, check_structure, touched
from sparsetv.checkpoint.reading import Checkpoint, open_checkpoint
from sparsetv.compose.combine import Part, combine
from sparsetv.errors import NonFiniteError, OutputError, UsageError
from sparsetv.exchange import csr_file, dense, weight_patch
from sparsetv.exchange.entries import Found, imported
from sparsetv.exchange.files import is_kind
from sparsetv.exchange.outcome import Exported, LeftOut
from sparsetv.exchange.scipy_npz import write_scipy
from sparsetv.exchange.shira import write_shira
from sparsetv.exchange.shira_reading import read_shira
from sparsetv.exchange.tall import read_tall
from sparsetv.jobs.outputs import check_file, check_name, locked
from sparsetv.jobs.tasks import Source, read_tasks
from sparsetv.rules import find_rule
from sparsetv.scales import check_scale
from sparsetv.task_vector import SparseTaskVector
from sparsetv.taskfile import is_task_file, write_task

EXPORTS = ("scipy", "safetensors", "dense", "shira", "vllm-patch")
"""Forms that a task is exported to; `scipy` and `shira` are directories, the others files."""

IMPORTS = ("shira", "dense", "tall")
"""Forms that a task is imported from."""

_DIRECTORIES = {"scipy": write_scipy, "shira": write_shira}
_KINDS = {"safetensors": csr_file.KIND, "dense": dense.KIND, "vllm-patch": weight_patch.KIND}


def export_task(
    task: Source,
    output: str | Path,
    *,
    form: str,
    base: str | Path | None = None,
    dtype: str = "float32",
    scale: float = 1.0,
) -> Exported:
    """Write a task in another tool's form; what the form has no place for is reported, never dropped in silence.

    Args:
        task: A task file, a task in memory, or one task of a store as `STORE:NAME`.
        output: File to write, or for `scipy` and `shira` a directory that does not exist or is empty; atomically.
        form: A name of `EXPORTS`.
        base: The base, for `vllm-patch`, whose values are weights.
        dtype: For `dense`, what deltas are stored in: `float32`, or `base` for the dtype of the base's tensor.
        scale: What kept deltas are multiplied by, in float32.

    Raises:
        UsageError: Unknown form or dtype, several tasks, or no base where one is needed.
        BaseMismatchError: The task belongs to another base.
        CheckpointError: The form cannot carry the task at all.
        NonFiniteError: A scaled delta, or a weight, overflows.
        OutputError: The output cannot be written, or is something else.
    """
    if form not in EXPORTS:
        raise UsageError(f"unknown form {form!r}; known are {', '.join(EXPORTS)}")
    if dtype not in dense.DTYPES:
        raise UsageError(f"unknown dtype {dtype!r}; known are {', '.join(dense.DTYPES)}")
    if form == "vllm-patch" and base is None:
        raise UsageError("a vllm-patch holds weights, not deltas; name the base with --base")
    target = Path(output)
    if form in _KINDS:
        check_file(target, is_own=partial(is_kind, kind=_KINDS[form]), kind=f"export to {form}")
    loaded = read_tasks([task])
    if len(loaded) != 1:
        raise UsageError(f"{task}: {len(loaded)} tasks; name one")
    check_scale(scale)
    if form == "vllm-patch" and base is not None:
        left = weight_patch.write_patch(loaded[0], target, stitched=_stitched(loaded[0], base, scale))
    else:
        left = _write(_scaled(loaded[0], scale), target, form, dtype)
    return _exported(loaded[0], form, target, left)


def _write(task: SparseTaskVector, target: Path, form: str, dtype: str) -> tuple[LeftOut, ...]:
    if form in _DIRECTORIES:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise OutputError(f"{target}: exists; name a new directory")
        with locked(target), atomic.new_directory(target) as directory:
            return _DIRECTORIES[form](task, directory)
    if form == "safetensors":
        return csr_file.write_csr(task, target)
    return dense.write_dense(task, target, dtype=dtype)


def _scaled(task: SparseTaskVector, scale: float) -> SparseTaskVector:
    scaled = replace(task, tensors={name: tensor.scaled(scale) for name, tensor in task.tensors.items()})
    for name, tensor in scaled.tensors.items():
        if not np.isfinite(tensor.values).all():
            raise NonFiniteError(f"{name}: a delta overflows float32 at scale {scale:g}; use a smaller one")
    return scaled


def _stitched(task: SparseTaskVector, base: str | Path, scale: float) -> Callable[[str], Bits]:
    """Gives the stitched bits of a tensor's kept entries, once base and task are known to belong together."""
    checkpoint, rule = open_checkpoint(base), find_rule("mean")
    _check_base(task, checkpoint)

    def stitched(name: str) -> Bits:
        tensor, dtype = task.tensors[name], checkpoint.dtype(name)
        bits = checkpoint.bits(name)
        return combine(name, [Part(tensor, scale)], rule=rule, dtype=dtype, base_bits=lambda at: bits[at]).after

    return stitched


def _check_base(task: SparseTaskVector, base: Checkpoint) -> None:
    structure = {name: (base.dtype(name), base.shape(name)) for name in base.names}
    check_structure(task, structure, source=base.source)
    identities = {name: base.identity(name) for name in touched(task)}
    check_content(task, identities, source=base.source)


def _exported(task: SparseTaskVector, form: str, target: Path, left: tuple[LeftOut, ...]) -> Exported:
    absent = {item.what for item in left} & set(touched(task))
    held = [tensor for name, tensor in task.tensors.items() if tensor.nnz and name not in absent]
    return Exported(form, str(target), len(held), sum(tensor.nnz for tensor in held), left)


def import_task(
    source: str | Path,
    output: str | Path,
    *,
    form: str,
    base: str | Path,
    name: str | None = None,
    task: str | None = None,
) -> SparseTaskVector:
    """Write a task file of what another tool made.

    The recipe says `imported`. Nobody knows what the other tool dropped, so the file's norms are those of the kept
    entries, and scales taken from norms are 1.

    Args:
        source: The other tool's file or directory.
        output: Task file to write, atomically.
        form: A name of `IMPORTS`.
        base: The base it belongs to: directory, `.safetensors` file or hub id; its fingerprint goes into the file.
        name: Name of the task; the output's name without suffix where it is None.
        task: For `tall`, whose mask; not needed where there is one.

    Returns:
        What was written.

    Raises:
        UsageError: Unknown form, or no such mask.
        SparseTVError: The source is broken or does not fit the base; see the readers in `sparsetv.exchange`.
        OutputError: The file cannot be written, or exists and is no task file.
    """
    if form not in IMPORTS:
        raise UsageError(f"unknown form {form!r}; known are {', '.join(IMPORTS)}")
    if task is not None and form != "tall":
        raise UsageError(f"--task chooses a mask of a TALL-mask set; {form} holds one task")
    check_file(output, is_own=is_task_file, kind="task file")
    title = check_name(name or Path(output).stem)
    checkpoint = open_checkpoint(base)
    made = imported(title, checkpoint, _read(source, checkpoint, form, task), what=str(source))
    checkpoint.check_unchanged()
    write_task(output, made)
    return made


def _read(source: str | Path, base: Checkpoint, form: str, task: str | None) -> Found:
    if form == "shira":
        return read_shira(source, base)
    return read_tall(source, base, task=task) if form == "tall" else dense.read_dense(source, base)
