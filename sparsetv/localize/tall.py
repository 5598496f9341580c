"""TALL-masks: where one task's vector stands out of the sum of all tasks' vectors."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from sparsetv.arrays import Values
from sparsetv.difference import TaskVector
from sparsetv.errors import CheckpointError, UsageError
from sparsetv.localize.measure import localized
from sparsetv.localize.problem import Localized, Problem
from sparsetv.localize.ranking import rank

FACTORS = (0.2, 0.3, 0.4, 0.5, 0.6)
"""Values of lambda that the paper chooses from by validation score; the smallest wins a tie."""


def tall(problem: Problem, *, factor: float | None = None) -> Localized:
    """Keep entries with `|tau_i| > lambda * |tau_MT - tau_i|`, where tau_MT is the sum of all tasks' vectors.

    Args:
        problem: The task's vector, and those of the other tasks in `others`. With a density, lambda is what gives
            exactly that density: entries are ranked by `|tau_i| / |tau_MT - tau_i|`.
        factor: lambda, where the problem has no density; the density is what comes out.

    Raises:
        UsageError: No other tasks, or neither density nor factor, or both.
        CheckpointError: Another task's base is not this one's.

    Reference:
        Wang et al., TALL-masks, arXiv:2405.07813, equation 5.

    Cost:
        One pass over the base and all fine-tunes; memory of a chunk per task.
    """
    if not problem.others:
        raise UsageError("tall compares a task with others of the same base; name them with --other")
    for other in problem.others:
        _check_base(problem, other)
    if problem.density is not None and factor is None:
        found = rank(problem.sizes, _ratios(problem), density=problem.density, allocation=problem.allocation)
        return localized(problem, found)
    if factor is None or problem.density is not None:
        raise UsageError("tall takes a density, or a factor and no density (--density own --set factor=0.4)")
    positions = {
        name: np.flatnonzero(np.concatenate([np.zeros(0, bool), *_standing_out(problem, name, np.float32(factor))]))
        for name in problem.names
    }
    return localized(problem, positions, factor=factor)


def _check_base(problem: Problem, other: TaskVector) -> None:
    mine, theirs, shared = problem.vector.base, other.base, set(other.comparable())
    for name in problem.names:
        same = name in shared and (mine.shape(name), mine.dtype(name)) == (theirs.shape(name), theirs.dtype(name))
        if not same:
            raise CheckpointError(
                f"{other.finetuned.source}: has no {name} of this shape and dtype; name fine-tunes of one base"
            )


def _pairs(problem: Problem, name: str) -> Iterator[tuple[Values, Values]]:
    """(|tau_i|, |tau_MT - tau_i|) of one tensor, in pieces; both float32, the sum in the order of `others`."""
    chunks = zip(problem.vector.chunks(name), *(other.chunks(name) for other in problem.others), strict=True)
    for own, *others in chunks:
        rest = others[0].deltas()
        for other in others[1:]:
            rest += other.deltas()
        yield np.abs(own.deltas()), np.abs(rest)


def _standing_out(problem: Problem, name: str, factor: np.float32) -> Iterator[NDArray[np.bool_]]:
    for own, rest in _pairs(problem, name):
        yield own > factor * rest


def _ratios(problem: Problem) -> Callable[[str], Iterator[Values]]:
    """`|tau_i| / |tau_MT - tau_i|`: infinite where the others cancel, 0 where the task changed nothing."""

    def ratios(name: str) -> Iterator[Values]:
        for own, rest in _pairs(problem, name):
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                yield np.where(own > 0, own / rest, np.float32(0))

    return ratios
