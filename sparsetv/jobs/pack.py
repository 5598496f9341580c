"""Job one: a base and a fine-tune become one task file's content."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from sparsetv.atomic import check_writable
from sparsetv.checkpoint.reading import Checkpoint
from sparsetv.container.names import check_component
from sparsetv.difference import TaskVector
from sparsetv.errors import FormatError, OutputError, ProbeError, UsageError
from sparsetv.fingerprint import TensorIdentity, fingerprint
from sparsetv.jobs.localize import choose_mask, open_pair, scope_names, with_tail
from sparsetv.jobs.options import VALUES, PackOptions
from sparsetv.localize.problem import Localized
from sparsetv.packing.carried import Carried, carry
from sparsetv.packing.gather import gather
from sparsetv.packing.outside import changed_outside
from sparsetv.progress import Progress
from sparsetv.quantize.sign import to_signs
from sparsetv.task_vector import Recipe, SparseTaskVector
from sparsetv.taskfile import is_task_file, write_task


def pack(
    base: str | Path,
    finetuned: str | Path,
    *,
    name: str | None = None,
    options: PackOptions | None = None,
    progress: Progress | None = None,
) -> SparseTaskVector:
    """Pack a fine-tune against its base; nothing is written, and no model is run but by a localizer that learns.

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
    if chosen.refit is not None:
        raise UsageError("refitting runs the models; use `pack_files` or `pack_to`")
    vector = open_pair(base, finetuned, prefix=chosen.prefix)
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
    from sparsetv.jobs.refit import refit_task  # noqa: PLC0415

    chosen = options or PackOptions()
    if chosen.refit is not None and chosen.probe is False:
        raise UsageError("refitting starts from the probe's scale; leave out --no-probe")
    vector = open_pair(base, finetuned, prefix=chosen.prefix)
    task = pack_vector(vector, name=name or default_name(finetuned), options=chosen, progress=progress)
    if chosen.refit is not None:
        task = add_probe(task, vector.base, vector.finetuned, seed=chosen.seed, progress=progress)
        return refit_task(task, vector, options=chosen, how=chosen.refit, progress=progress)
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
    names = scope_names(vector, options.scope)
    carried = carry(vector, names, name=name)
    with ThreadPoolExecutor(1) as pool:
        identities = pool.submit(_identities, vector.base)
        found = choose_mask(vector, names, carried, options, progress=progress)
        if options.refit is not None and options.refit.tail:
            found = with_tail(vector, found, options.scope, density=options.refit.tail)
        task = _assemble(vector, carried, options, found, identities.result)
    for side in (vector.base, vector.finetuned):
        side.check_unchanged()
    return task


def _check_name(name: str) -> None:
    try:
        check_component(name, what="task name")
    except FormatError as error:
        raise UsageError(f"{error}; pass another with --name") from None


def _identities(base: Checkpoint) -> list[TensorIdentity]:
    return [base.identity(name) for name in base.names]


def _assemble(
    vector: TaskVector,
    carried: Carried,
    options: PackOptions,
    found: Localized,
    identities: Callable[[], list[TensorIdentity]],
) -> SparseTaskVector:
    tensors = gather(vector, found.mask)
    outside = changed_outside(vector, tensors, found.norms)
    task = SparseTaskVector(
        name=carried.name,
        base=fingerprint(
            identities(),
            touched=[key for key, tensor in tensors.items() if tensor.nnz],
            repo=vector.base.location.repo,
            commit=vector.base.location.commit,
        ),
        tensors=tensors,
        norms={key: found.norms[key] for key in tensors},
        extras=carried.extras,
        files=carried.files,
        finetuned=replace(carried.finetuned, outside=outside),
        recipe=_recipe(options, found),
    )
    return replace(task, tensors=to_signs(tensors)) if options.values == "sign" else task


def _recipe(options: PackOptions, found: Localized) -> Recipe:
    return Recipe(
        localizer=options.localizer if options.mask is None else "mask",
        density=found.mask.density if options.density is None or options.mask is not None else float(options.density),
        allocation=options.allocation,
        preset=options.scope.preset,
        include=options.scope.include,
        exclude=options.scope.exclude,
        values=options.values,
    )
