"""Job one: a base and a fine-tune become one task file's content."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from sparsetv.checkpoint.reading import Checkpoint
from sparsetv.csr import SparseTensor
from sparsetv.difference import TaskVector
from sparsetv.errors import ProbeError, UsageError
from sparsetv.fingerprint import TensorIdentity, fingerprint
from sparsetv.jobs.budget import Draft, marked, pack_within, spread
from sparsetv.jobs.localize import choose_mask, open_pair, scope_names, tail_names, with_tail
from sparsetv.jobs.options import PackOptions, RefitOptions
from sparsetv.jobs.outputs import check_file, check_name
from sparsetv.packing.carried import Carried, carry
from sparsetv.packing.gather import gather
from sparsetv.packing.outside import changed_outside
from sparsetv.progress import Progress
from sparsetv.quantize.named import check_values, quantize
from sparsetv.task_vector import Norms, Recipe, SparseTaskVector
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
    from sparsetv.jobs.probe import add_probe  # noqa: PLC0415

    chosen = options or PackOptions()
    if chosen.refit is not None and chosen.probe is False:
        raise UsageError("refitting starts from the probe's scale; leave out --no-probe")
    vector = open_pair(base, finetuned, prefix=chosen.prefix)
    title = name or default_name(finetuned)
    if chosen.refit is not None:
        return _refitted(vector, title, chosen, chosen.refit, progress)
    task = None
    try:
        reserve = _room_for_probe(vector, title, chosen)
        task = pack_vector(vector, name=title, options=chosen, reserve=reserve, progress=progress)
        if chosen.probe is False:
            return task
        return add_probe(task, vector.base, vector.finetuned, seed=chosen.seed, progress=progress)
    except ProbeError as error:
        if chosen.probe:
            raise
        if note is not None:
            note(f"no probe, so no match scale: {error}")
    return task or pack_vector(vector, name=title, options=chosen, progress=progress)


def _room_for_probe(vector: TaskVector, name: str, options: PackOptions) -> int:
    """Bytes to keep free for a probe where a size was asked for.

    Raises:
        ProbeError: There will be none.
    """
    from sparsetv.jobs.probe import AUTO_BYTES, probe_bytes  # noqa: PLC0415

    if options.probe is False:
        return 0
    if options.probe is None and vector.finetuned.total_bytes > AUTO_BYTES:
        raise ProbeError(f"the fine-tune has more than {AUTO_BYTES >> 30} GiB; insist with --probe")
    if options.budget is None:
        return 0
    return probe_bytes(vector, carry(vector, scope_names(vector, options.covered), name=name))


def _refitted(
    vector: TaskVector, name: str, options: PackOptions, how: RefitOptions, progress: Progress | None
) -> SparseTaskVector:
    """A task with trained values, of the size that was asked for if one was."""
    from sparsetv.jobs.probe import add_probe  # noqa: PLC0415
    from sparsetv.jobs.refit import refit_task, refit_within  # noqa: PLC0415

    wide = options if options.budget is None else spread(options, vector.finetuned, how.spread)
    task = pack_vector(vector, name=name, options=wide, progress=progress)
    task = add_probe(task, vector.base, vector.finetuned, seed=options.seed, progress=progress)
    if options.budget is None:
        return refit_task(task, vector, options=options, how=how, progress=progress)
    return refit_within(marked(task, vector.finetuned, options), vector, options=options, how=how, progress=progress)


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
    check_file(output, is_own=is_task_file, kind="task file")
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
    vector: TaskVector, *, name: str, options: PackOptions, reserve: int = 0, progress: Progress | None = None
) -> SparseTaskVector:
    """Pack an opened base and fine-tune; see `pack`.

    Args:
        vector: Base and fine-tune.
        name: Name of the task.
        options: How to choose and store entries.
        reserve: With a budget, bytes that are yet to come.
        progress: Reports entries read.
    """
    check_name(name)
    check_values(options.values or "exact")
    names = scope_names(vector, options.covered)
    carried = carry(vector, names, name=name)
    with ThreadPoolExecutor(1) as pool:
        identities = pool.submit(_identities, vector.base)

        outside: list[tuple[tuple[str, float], ...]] = []  # read once, however many drafts there are

        def draft(tensors: Mapping[str, SparseTensor], norms: Mapping[str, Norms]) -> SparseTaskVector:
            if not outside:
                outside.append(changed_outside(vector, tensors, norms))
            told = replace(carried, finetuned=replace(carried.finetuned, outside=outside[0]))
            return _assemble(vector.base, told, options, tensors, norms, identities.result())

        if options.budget is not None:
            if options.refit is not None and options.refit.tail:
                names = tuple(sorted({*names, *tail_names(vector, options.covered, density=options.refit.tail)}))
            task = pack_within(vector, names, options, draft, reserve=reserve, progress=progress)
        else:
            task = _pack_mask(vector, names, carried, options, draft, progress)
    for side in (vector.base, vector.finetuned):
        side.check_unchanged()
    return task


def _pack_mask(
    vector: TaskVector,
    names: tuple[str, ...],
    carried: Carried,
    options: PackOptions,
    draft: Draft,
    progress: Progress | None,
) -> SparseTaskVector:
    """The entries of a mask that is found or given."""
    found = choose_mask(vector, names, carried, options, progress=progress)
    if options.refit is not None and options.refit.tail:
        found = with_tail(vector, found, options.covered, density=options.refit.tail)
    tensors = quantize(gather(vector, found.mask), options.values or "exact")
    task = draft(tensors, {key: found.norms[key] for key in tensors})
    drawn = options.seed if options.localizer == "random" and options.mask is None else None
    density = options.density if options.mask is None else None
    asked = found.mask.density if density is None else float(density)
    return replace(task, drawn=drawn, recipe=replace(task.recipe, density=asked))


def _identities(base: Checkpoint) -> list[TensorIdentity]:
    return [base.identity(name) for name in base.names]


def _assemble(
    base: Checkpoint,
    carried: Carried,
    options: PackOptions,
    tensors: Mapping[str, SparseTensor],
    norms: Mapping[str, Norms],
    identities: list[TensorIdentity],
) -> SparseTaskVector:
    names = sorted(tensors)
    touched = [key for key in names if tensors[key].nnz]
    kept, entries = sum(tensors[key].nnz for key in names), sum(tensors[key].numel for key in names)
    return SparseTaskVector(
        name=carried.name,
        base=fingerprint(identities, touched=touched, repo=base.location.repo, commit=base.location.commit),
        tensors={key: tensors[key] for key in names},
        norms={key: norms[key] for key in names},
        extras=carried.extras,
        files=carried.files,
        finetuned=carried.finetuned,
        recipe=_recipe(options, kept / entries if entries else 0.0),
    )


def _recipe(options: PackOptions, density: float) -> Recipe:
    localizer = "rate-distortion" if options.budget is not None else options.localizer
    return Recipe(
        localizer=localizer if options.mask is None else "mask",
        density=density,
        allocation=options.shared,
        preset=options.covered.preset,
        include=options.covered.include,
        exclude=options.covered.exclude,
        values=options.values or ("exact" if options.budget is None else "budget"),
    )
