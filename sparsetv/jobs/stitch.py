"""Jobs two and three: tasks onto a base, and tasks added to or removed from what was stitched."""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from sparsetv.belonging import check_verify
from sparsetv.checkpoint.reading import Checkpoint, open_checkpoint
from sparsetv.compose.base import Base, base_of
from sparsetv.compose.directory import open_stitched
from sparsetv.compose.files import check_portable, other_files
from sparsetv.compose.mix import Active, mix
from sparsetv.compose.record import Record, check_stitched, is_stitched
from sparsetv.compose.reuse import find_reuse
from sparsetv.compose.stitch import stitch as write_stitched
from sparsetv.errors import FormatError, NotFoundError, OutputError, UsageError
from sparsetv.jobs.options import StitchOptions
from sparsetv.jobs.outputs import check_apart, locked, put_back
from sparsetv.jobs.tasks import Source, base_of_tasks, read_tasks
from sparsetv.progress import Progress, counter
from sparsetv.rules import Rule, find_rule
from sparsetv.scales import NAMED, TOGETHER, check_scale, resolve_scale, tensor_factors
from sparsetv.task_vector import SparseTaskVector

_LARGEST = 3e38

Found = Mapping[str, tuple[float, Mapping[str, float]]]
"""Scale and factors by task."""


def stitch(
    base: str | Path | None,
    tasks: Sequence[Source],
    output: str | Path,
    *,
    options: StitchOptions | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> Record:
    """Stitch tasks onto a base and write an ordinary checkpoint directory.

    Args:
        base: Directory, `.safetensors` file or hub id; None for the one that the tasks' store knows.
        tasks: Task files, hub ids, tasks in memory, or tasks of a store as `STORE:NAME,GLOB`.
        output: Directory to write; it must not exist, be empty, or have been written by `stitch`.
        options: How tasks combine.
        progress: Reports bytes written.
        note: Told where the base is not the very one a task was packed against, and `options.verify` lets it pass.

    Raises:
        BaseMismatchError: The base differs in a tensor that a task touches, or as `options.verify` says.
        OutputError: The output cannot or must not be written; nothing is written.
    """
    chosen = options or StitchOptions()
    rule = find_rule(chosen.rule, min_tasks=chosen.min_tasks)
    check_scale(chosen.scale)
    check_verify(chosen.verify)
    target = Path(output)
    put_back(target)
    source = base_of_tasks(tasks) if base is None else base
    checkpoint = open_checkpoint(source)
    _check_output(target, checkpoint)
    if checkpoint.location.directory is not None and is_stitched(checkpoint.location.directory):
        raise UsageError(f"{source}: has tasks on it already; use `sparsetv add`, or pass the base it was made from")
    loaded = read_tasks(tasks)
    files = other_files(checkpoint.location.directory)
    check_portable(files, checkpoint.location.directory)
    view = base_of(checkpoint, files)
    active = activate(view, loaded, chosen, rule, progress)
    with locked(target):
        record = write_stitched(
            view,
            mix(active, rule=rule, scale=chosen.scale),
            target,
            verify=chosen.verify,
            progress=counter(progress, "stitch", checkpoint.total_bytes),
        )
    for task in loaded:
        if note is not None and task.base.digest != record.base_digest:
            which = "tensors" if chosen.verify == "meta" else "tensors it does not touch"
            note(f"{task.name}: {source} is not the very base it was packed against; {which} differ")
    return record


def add(
    directory: str | Path,
    tasks: Sequence[Source],
    *,
    weights: Mapping[str, float] | None = None,
    fit: Mapping[str, str | Path] | None = None,
    verify: str = "touched",
    progress: Progress | None = None,
) -> Record:
    """Add tasks to a stitched directory; a task of a name that is there is replaced. Atomic: the old or the new one.

    The result is bit-identical to a fresh stitch of the live set. Scales that are found for all tasks together are
    found anew; where they were fitted to examples, `fit` gives those of every task that is then live.

    Args:
        directory: What `stitch` wrote.
        tasks: As for `stitch`.
        weights: Weight per task name; those of tasks that are there stay where it gives none.
        fit: Examples per task name.
        verify: How the base is compared with that of the new tasks, as in `StitchOptions`.
        progress: Reports bytes written.

    Raises:
        NotFoundError: `stitch` did not write the directory.
        BaseMismatchError: A task belongs to another base.
    """
    check_verify(verify)
    return _change(Path(directory), read_tasks(tasks), [], weights or {}, fit, progress, verify=verify)


def remove(
    directory: str | Path,
    names: Sequence[str],
    *,
    fit: Mapping[str, str | Path] | None = None,
    progress: Progress | None = None,
) -> Record:
    """Remove tasks from a stitched directory; removing all gives the base's bits. Atomic: the old or the new one.

    Args:
        directory: What `stitch` wrote.
        names: Names of tasks, or globs in which case matters.
        fit: As for `add`.
        progress: Reports bytes written.

    Raises:
        NotFoundError: `stitch` did not write the directory, or a name or glob matches none of its tasks.
    """
    return _change(Path(directory), [], names, {}, fit, progress)


def _change(
    path: Path,
    new: Sequence[SparseTaskVector],
    gone: Sequence[str],
    weights: Mapping[str, float],
    fit: Mapping[str, str | Path] | None,
    progress: Progress | None,
    *,
    verify: str = "touched",
) -> Record:
    put_back(path)
    check_stitched(path)
    with locked(path):
        stitched = open_stitched(path)
        record = stitched.record
        if isinstance(record.scale, str) and record.scale not in NAMED:
            raise FormatError(f"{path}: the record names an unknown scale {record.scale!r}; update sparsetv")
        present = [member.name for member in record.members]
        out = {*_chosen(path, present, gone), *(task.name for task in new)}
        stay = stitched.active([member for member in record.members if member.name not in out], held=new)
        known = {member.name: member.weight for member in record.members}
        live = [*(item.task for item in stay), *new]
        base = stitched.base()
        weights = {**{task.name: known.get(task.name, 1.0) for task in live}, **weights}
        asked = StitchOptions(scale=record.scale, weights=weights, fit=fit or {})
        chosen = activate(base, live, asked, record.combination, progress)
        digests = {member.name: member.digest for member in record.members if member.name not in out}
        after = mix(chosen, rule=record.combination, scale=record.scale, digests=digests)
        return write_stitched(
            base,
            after,
            path,
            keep=stitched.own_files(),
            expected=record.base_digest,
            reuse=find_reuse(stitched, base, stay, after),
            verify=verify,
            progress=counter(progress, "stitch", stitched.merged.total_bytes),
        )


def _chosen(path: Path, present: Sequence[str], patterns: Sequence[str]) -> set[str]:
    chosen: set[str] = set()
    for pattern in patterns:
        found = [pattern] if pattern in present else [name for name in present if fnmatchcase(name, pattern)]
        if not found:
            raise NotFoundError(f"{path}: has no task {pattern!r}; it has {', '.join(present) or 'none'}")
        chosen.update(found)
    return chosen


def activate(
    base: Base, tasks: Sequence[SparseTaskVector], asked: StitchOptions, rule: Rule, progress: Progress | None
) -> list[Active]:
    """Tasks with the numbers that they enter with, found as `stitch` finds them.

    Args:
        base: The base.
        tasks: Tasks of it.
        asked: Scale, weights, and examples to fit to.
        rule: How they combine.
        progress: Reports steps where models are run.
    """
    weights, scale = asked.weights, asked.scale
    unknown = sorted(set(weights) - {task.name for task in tasks})
    if unknown:
        raise UsageError(f"--weight names {unknown[0]!r}, but the tasks are {', '.join(task.name for task in tasks)}")
    if asked.fit and scale != "fit":
        raise UsageError(f"examples to fit to are given, but the scale is {scale!r}; use `--scale fit`")
    found = _together(base, tasks, asked, rule, progress) if scale in TOGETHER and tasks else None
    active = []
    for task in tasks:
        weight = float(weights.get(task.name, 1.0))
        if found is not None:
            active.append(Active(task, weight, str(scale), *found[task.name]))
        else:
            policy, number = resolve_scale(task, scale, company=len(tasks))
            active.append(Active(task, weight, policy, number, tensor_factors(task, policy)))
        if not abs(active[-1].coefficient) <= _LARGEST:
            raise UsageError(f"{task.name}: weight times scale is {active[-1].coefficient}; use a finite, smaller one")
    return active


def _together(
    base: Base, tasks: Sequence[SparseTaskVector], asked: StitchOptions, rule: Rule, progress: Progress | None
) -> Found:
    """Scales that are found for all tasks together, by running their models."""
    mix([Active(task, 1.0, "none", 1.0) for task in tasks], rule=rule, scale="none")  # names and contents differ
    if asked.scale == "fit" and not asked.fit:
        raise UsageError("scale `fit` needs examples of each task: --fit NAME=FILE.jsonl")
    from sparsetv.jobs.joint import match_tasks  # noqa: PLC0415  torch only where a model runs

    return match_tasks(
        base,
        tasks,
        rule=rule,
        weights=asked.weights,
        data=asked.fit,
        device=asked.device,
        progress=progress,
    )


def _check_output(target: Path, base: Checkpoint) -> None:
    check_apart(target, base)
    if not target.exists():
        return
    strangers = (
        open_stitched(target).own_files() if is_stitched(target) else {item.name: item for item in target.iterdir()}
    )
    if strangers:
        raise OutputError(f"{target}: holds {min(strangers)}, which sparsetv did not write; name a new directory")
