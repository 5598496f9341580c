"""Job one: a base and a fine-tune become one task file's content."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from sparsetv.atomic import check_writable
from sparsetv.checkpoint.reading import Checkpoint, open_checkpoint
from sparsetv.container.names import check_component
from sparsetv.difference import TaskVector, task_vector
from sparsetv.dtypes import WEIGHT_DTYPES
from sparsetv.errors import CheckpointError, FormatError, OutputError, ProbeError, UsageError
from sparsetv.fingerprint import TensorIdentity, fingerprint
from sparsetv.localize.magnitude import Localized, magnitude
from sparsetv.localize.scope import Scope, is_buffer
from sparsetv.packing.extras import check_scope, collect
from sparsetv.packing.files import collect_files
from sparsetv.packing.gather import gather
from sparsetv.packing.outside import changed_outside
from sparsetv.progress import Progress, counter
from sparsetv.quantize.sign import to_signs
from sparsetv.task_vector import FineTuned, Recipe, SparseTaskVector
from sparsetv.taskfile import is_task_file, write_task

VALUES = ("exact", "sign")


@dataclass(frozen=True, slots=True)
class PackOptions:
    """How to choose and store entries.

    Attributes:
        density: Fraction of the scope to keep, in (0, 1].
        scope: Which tensors may keep entries.
        allocation: `global` or `tensor`, see `sparsetv.localize.magnitude`.
        values: `exact` or `sign`.
        prefix: (from, to) between the names of base and fine-tune where the rule cannot tell.
        probe: Whether `pack_files` runs the models; None for wherever they can be built and run and the fine-tune has
            at most 4 GiB.
        seed: Seed of the probe's inputs.
    """

    density: float = 0.01
    scope: Scope = field(default_factory=Scope)
    allocation: str = "global"
    values: str = "exact"
    prefix: tuple[str, str] | None = None
    probe: bool | None = None
    seed: int = 0


def pack(
    base: str | Path,
    finetuned: str | Path,
    *,
    name: str | None = None,
    options: PackOptions | None = None,
    progress: Progress | None = None,
) -> SparseTaskVector:
    """Pack a fine-tune against its base; nothing is written and no model is run.

    Args:
        base: Directory, `.safetensors` file or hub id.
        finetuned: The same.
        name: Name of the task; the fine-tune's directory or file name where it is None.
        options: How to choose and store entries.
        progress: Reports entries read.

    Raises:
        SparseTVError: Some input cannot be used; see the subclasses in `sparsetv.errors`.
    """
    chosen = options or PackOptions()
    vector = task_vector(open_checkpoint(base), open_checkpoint(finetuned), prefix=chosen.prefix)
    return pack_vector(vector, name=name or default_name(finetuned), options=chosen, progress=progress)


def pack_files(
    base: str | Path,
    finetuned: str | Path,
    *,
    name: str | None = None,
    options: PackOptions | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> SparseTaskVector:
    """Pack a fine-tune and, where its models can be run, find its scale.

    Args:
        base, finetuned, name, options, progress: As for `pack`.
        note: Told why a probe that was not insisted on is left out.

    Raises:
        ProbeError: A probe was insisted on and cannot be made.
    """
    from sparsetv.jobs.probe import AUTO_BYTES, add_probe  # noqa: PLC0415

    chosen = options or PackOptions()
    vector = task_vector(open_checkpoint(base), open_checkpoint(finetuned), prefix=chosen.prefix)
    task = pack_vector(vector, name=name or default_name(finetuned), options=chosen, progress=progress)
    if chosen.probe is False:
        return task
    try:
        if chosen.probe is None and vector.finetuned.total_bytes > AUTO_BYTES:
            raise ProbeError(f"the fine-tune has more than {AUTO_BYTES >> 30} GiB; insist with --probe")
        return add_probe(task, vector.base, vector.finetuned, seed=chosen.seed, progress=progress)
    except ProbeError as error:
        if chosen.probe:
            raise
        if note is not None:
            note(f"no probe, so no match scale: {error}")
        return task


def pack_to(
    output: str | Path,
    base: str | Path,
    finetuned: str | Path,
    *,
    name: str | None = None,
    options: PackOptions | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> SparseTaskVector:
    """Pack a fine-tune and write its task file; whether it can be written is checked before anything is read.

    Args:
        output: File to write, atomically.
        name: Name of the task; the output's name without suffix where it is None.
        base, finetuned, options, progress, note: As for `pack_files`.

    Raises:
        OutputError: The file cannot be written, or exists and is no task file.
    """
    check_writable(output)
    if Path(output).exists() and not is_task_file(output):
        raise OutputError(f"{output}: exists and is no task file; choose another output, or remove it first")
    task = pack_files(base, finetuned, name=name or Path(output).stem, options=options, progress=progress, note=note)
    write_task(output, task)
    return task


def default_name(finetuned: str | Path) -> str:
    """Last part of a path or hub id, without revision and suffix."""
    text = str(finetuned)
    if Path(text).exists():
        path = Path(text).resolve()
        return path.stem if path.is_file() else path.name
    return text.split("@", maxsplit=1)[0].rsplit("/", maxsplit=1)[-1]


def pack_vector(
    vector: TaskVector, *, name: str, options: PackOptions, progress: Progress | None = None
) -> SparseTaskVector:
    """Pack an opened base and fine-tune; see `pack`."""
    _check_name(name)
    if options.values not in VALUES:
        raise UsageError(f"unknown values {options.values!r}; known are {', '.join(VALUES)}")
    names = _scope_names(vector, options.scope)
    total = sum(vector.base.numel(item) for item in names)
    report = counter(progress, f"localize {name}", total)
    with ThreadPoolExecutor(1) as pool:
        identities = pool.submit(_identities, vector.base)
        found = magnitude(vector, names, density=options.density, allocation=options.allocation, progress=report)
        task = _assemble(vector, name, options, found, identities.result)
    for side in (vector.base, vector.finetuned):
        side.check_unchanged()
    return task


def _check_name(name: str) -> None:
    try:
        check_component(name, what="task name")
    except FormatError as error:
        raise UsageError(f"{error}; pass another with --name") from None


def _scope_names(vector: TaskVector, scope: Scope) -> tuple[str, ...]:
    comparable = set(vector.comparable())
    wanted = scope.select(name for name in vector.base.names if _is_weight(vector, name))
    names = tuple(name for name in wanted if name in comparable)
    check_scope(vector, names, wanted)
    if not names:
        raise CheckpointError(f"no tensor of scope {scope.describe()} exists on both sides")
    return names


def _is_weight(vector: TaskVector, name: str) -> bool:
    if is_buffer(name, vector.base.shape(name)):
        return False
    dtype = vector.base.dtype(name)
    return dtype in WEIGHT_DTYPES or dtype.startswith("F") or dtype in {"I8", "U8"}


def _identities(base: Checkpoint) -> list[TensorIdentity]:
    return [base.identity(name) for name in base.names]


def _assemble(
    vector: TaskVector,
    name: str,
    options: PackOptions,
    found: Localized,
    identities: Callable[[], list[TensorIdentity]],
) -> SparseTaskVector:
    tensors = gather(vector, found.mask)
    outside = changed_outside(vector, tensors, found.norms)
    task = SparseTaskVector(
        name=name,
        base=fingerprint(
            identities(),
            touched=[key for key, tensor in tensors.items() if tensor.nnz],
            repo=vector.base.location.repo,
            commit=vector.base.location.commit,
        ),
        tensors=tensors,
        norms={key: found.norms[key] for key in tensors},
        extras=collect(vector),
        files=collect_files(vector.base, vector.finetuned),
        finetuned=FineTuned(
            vector.pairing.prefix, _other_dtype(vector, list(tensors)), vector.pairing.missing, outside
        ),
        recipe=_recipe(options),
    )
    return replace(task, tensors=to_signs(tensors)) if options.values == "sign" else task


def _other_dtype(vector: TaskVector, names: list[str]) -> str | None:
    """Dtype of the fine-tune's scope where it is not the base's; the commonest if it has several."""
    dtypes = [vector.finetuned.dtype(vector.finetuned_name(name)) for name in names]
    differs = any(dtype != vector.base.dtype(name) for dtype, name in zip(dtypes, names, strict=True))
    return max(sorted(set(dtypes)), key=dtypes.count) if differs else None


def _recipe(options: PackOptions) -> Recipe:
    return Recipe(
        localizer="magnitude",
        density=float(options.density),
        allocation=options.allocation,
        preset=options.scope.preset,
        include=options.scope.include,
        exclude=options.scope.exclude,
        values=options.values,
    )
