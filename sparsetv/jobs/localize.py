"""From base and fine-tune to a mask, by any localizer."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.compose.weights import Carrier
from sparsetv.difference import TaskVector, task_vector
from sparsetv.dtypes import WEIGHT_DTYPES
from sparsetv.errors import CheckpointError, DensityError, UsageError
from sparsetv.jobs.learning import RANDOM, Learn, make_objective
from sparsetv.jobs.options import PackOptions
from sparsetv.jobs.outputs import check_file
from sparsetv.localize.measure import localized
from sparsetv.localize.names import LEARNING, check_settings, run_localizer
from sparsetv.localize.problem import Localized, Problem
from sparsetv.localize.scope import Scope, is_buffer
from sparsetv.localize.tall import FACTORS
from sparsetv.maskfile import is_mask_file, read_mask, write_mask
from sparsetv.masks import Mask
from sparsetv.packing.carried import carry
from sparsetv.packing.extras import check_scope
from sparsetv.packing.gather import allow_kept
from sparsetv.progress import Progress


def find_mask(
    base: str | Path,
    finetuned: str | Path,
    *,
    output: str | Path | None = None,
    options: PackOptions | None = None,
    progress: Progress | None = None,
) -> Localized:
    """Find a task's mask, and write it where an output is named.

    Args:
        base: Directory, `.safetensors` file or hub id.
        finetuned: The same.
        output: Mask file to write (formats/MASK.md).
        options: Scope, density, localizer and what it learns from; values and probe do not matter.
        progress: Reports how far the localizer is.

    Raises:
        OutputError: The mask cannot be written, or the output exists and is no mask file.
        SparseTVError: Some input cannot be used; see the subclasses in `sparsetv.errors`.
    """
    chosen = options or PackOptions()
    if output is not None:
        check_file(output, is_own=is_mask_file, kind="mask file")
    vector = open_pair(base, finetuned, prefix=chosen.prefix)
    names = scope_names(vector, chosen.covered)
    found = choose_mask(vector, names, carry(vector, names, name="task"), chosen, progress=progress)
    if output is not None:
        write_mask(output, found.mask, localizer=_describe(chosen, found))
    return found


def open_pair(base: str | Path, finetuned: str | Path, *, prefix: tuple[str, str] | None = None) -> TaskVector:
    """Open a base and its fine-tune, and bring their tensor names together; nothing is read yet.

    Args:
        base: Directory, `.safetensors` file or hub id.
        finetuned: The same.
        prefix: (from, to) between their names where the rule cannot tell.

    Raises:
        SparseTVError: They cannot be opened or paired; see the subclasses in `sparsetv.errors`.
    """
    return task_vector(open_checkpoint(base), open_checkpoint(finetuned), prefix=prefix)


def choose_mask(
    vector: TaskVector,
    names: tuple[str, ...],
    task: Carrier,
    options: PackOptions,
    *,
    progress: Progress | None = None,
) -> Localized:
    """The mask that the options ask for: read from a file, or localized.

    Args:
        vector: Base and fine-tune.
        names: Base names of the scope.
        task: What the task carries, to build its model.
        options: What to do.
        progress: Reports how far the localizer is.
    """
    problem = Problem(vector, names, options.density, options.shared, options.seed, progress=progress)
    if options.mask is not None:
        mask = read_mask(options.mask, {name: vector.base.shape(name) for name in names})
        return localized(problem, dict(mask.positions))
    settings = check_settings(options.localizer, options.settings)
    if options.density is not None and 0 < options.density <= 1:  # else the localizer refuses it
        allow_kept(int(options.density * sum(problem.sizes.values())))
    if options.localizer in LEARNING:
        objective = make_objective(vector, task, options.learn, seed=options.seed)
        problem = replace(problem, objective=objective)
    if options.localizer == "tall":
        opened = (open_checkpoint(other) for other in options.others)
        others = tuple(task_vector(vector.base, other, prefix=options.prefix) for other in opened)
        problem = replace(problem, others=others)
        if options.density is None and "factor" not in settings:
            return _best_factor(problem, task, options.learn)
    return run_localizer(options.localizer, problem, settings)


def with_tail(vector: TaskVector, found: Localized, scope: Scope, *, density: float) -> Localized:
    """Add to a mask the largest entries of each changed tensor between the blocks and the head.

    Args:
        vector: Base and fine-tune.
        found: The mask.
        scope: Its scope. Only `blocks` as a whole has a tail; what it excludes stays out.
        density: Density in each of those tensors; tensors too small to keep an entry at it keep none.
    """
    changed = tail_names(vector, scope, density=density)
    if not changed:
        return found
    tail = run_localizer("magnitude", Problem(vector, changed, density, "tensor"))
    positions = {**found.mask.positions, **tail.mask.positions}
    shapes = {**found.mask.shapes, **tail.mask.shapes}
    names = sorted(shapes)
    mask = Mask({name: shapes[name] for name in names}, {name: positions[name] for name in names})
    return Localized(mask, {**found.norms, **tail.norms}, found.notes)


def tail_names(vector: TaskVector, scope: Scope, *, density: float) -> tuple[str, ...]:
    """Changed tensors between the blocks and the head that are large enough to keep an entry at a density, ascending.

    Only scope `blocks` as a whole has such a tail; what it excludes stays out.
    """
    if scope.preset != "blocks" or scope.include:
        return ()
    comparable = set(vector.comparable())
    wanted = [n for n in vector.base.names if n in comparable and _is_weight(vector, n)]
    blocks = set(Scope("blocks").covered(wanted))
    body = [name for name in Scope("body", exclude=scope.exclude).covered(wanted) if name not in blocks]
    return tuple(name for name in body if vector.base.numel(name) * density >= 1 and _changed(vector, name))


def _changed(vector: TaskVector, name: str) -> bool:
    return any(chunk.deltas().any() for chunk in vector.chunks(name))


def _best_factor(problem: Problem, task: Carrier, learn: Learn) -> Localized:
    """TALL-masks' own choice of lambda: the best accuracy on examples, the smallest of equals.

    Reference: Wang et al., TALL-masks, arXiv:2405.07813, section 4.1; ALGORITHMS, localizers.
    """
    from sparsetv.jobs.grafts import graft_accuracy  # noqa: PLC0415  torch only where a model runs

    if str(learn.data) == RANDOM:
        raise UsageError("tall chooses its factor by accuracy on examples: give --data, or --set factor=0.4")
    objective = make_objective(problem.vector, task, learn, seed=problem.seed)
    best: tuple[float, Localized] | None = None
    for factor in FACTORS:
        try:
            found = run_localizer("tall", problem, {"factor": factor})
        except DensityError:
            continue  # nothing stands out so far
        score = graft_accuracy(problem.vector, found.mask, objective)
        if best is None or score > best[0]:
            best = score, replace(found, notes={**found.notes, "accuracy": score})
    if best is None:
        raise DensityError("tall keeps no entry at any factor; give --density")
    return best[1]


def _describe(options: PackOptions, found: Localized) -> Mapping[str, Any]:
    return {
        "allocation": options.shared,
        "density": options.density,
        "localizer": options.localizer,
        "notes": dict(found.notes),
        "scope": options.covered.describe(),
        "seed": options.seed,
        "settings": dict(options.settings),
    }


def scope_names(vector: TaskVector, scope: Scope) -> tuple[str, ...]:
    """Base names of the tensors that a scope covers, ascending; all of them can be compared.

    Raises:
        ScopeError, NamesError, ShapeError, CheckpointError: There are none, or one of them cannot be.
    """
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
