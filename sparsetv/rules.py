"""What becomes of an entry that several tasks keep.

Every rule adds float32 terms in the order given, which is the canonical one: by task digest. A rule uses only what
numpy arrays and torch tensors have in common, so a merge on disk and one in a live model run the same lines.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sparsetv.errors import UsageError

Array = Any
"""A numpy array or a torch tensor."""

Full = Callable[[int, float], Array]
"""Makes a float32 array of so many entries, all of one value."""

Combined = tuple[Array, Array]
"""(delta, kept) per entry, float32 and bool; entries not kept stay the base's bits."""


@dataclass(frozen=True, slots=True)
class Term:
    """One task's share in a set of entries.

    Attributes:
        where: Shape (nnz,), int64: places of the task's entries in the set; `slice(None)` for all of it, in order.
        deltas: Shape (nnz,), float32: weight times scale times kept delta.
    """

    where: Array
    deltas: Array

    def pick(self, mask: Array) -> "Term":
        """The part of the term that a boolean mask of shape (nnz,) selects."""
        return Term(mask if isinstance(self.where, slice) else self.where[mask], self.deltas[mask])


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule and what it needs to know.

    Attributes:
        name: A name of `RULES`.
        min_tasks: How many tasks must keep an entry for `consensus` to keep it; other rules ignore it.
    """

    name: str = "mean"
    min_tasks: int = 2

    def __call__(self, terms: Sequence[Term], size: int, full: Full) -> Combined:
        """Combine terms over a set of `size` entries."""
        if self.name == "consensus":
            return consensus(terms, size, full, min_tasks=self.min_tasks)
        return RULES[self.name](terms, size, full)


def coverage(terms: Sequence[Term], size: int, full: Full) -> Array:
    """Number of tasks that keep each entry, shape (size,), as float32, exact up to 2^24 tasks."""
    counts = full(size, 0.0)
    for term in terms:
        counts[term.where] += 1
    return counts


def total(terms: Sequence[Term], size: int, full: Full) -> Array:
    """Sum of the terms per entry, float32, added in the given order; -0.0 is what changes no term."""
    sums = full(size, -0.0)
    for term in terms:
        sums[term.where] += term.deltas
    return sums


def mean(terms: Sequence[Term], size: int, full: Full) -> Combined:
    """Average over the tasks that keep the entry (Localize-and-Stitch, section 3.3)."""
    counts = coverage(terms, size, full)
    return _divide(total(terms, size, full), counts), counts > 0


def add(terms: Sequence[Term], size: int, full: Full) -> Combined:
    """Sum (task arithmetic, Ilharco et al., arXiv:2212.04089, on sparse vectors)."""
    return total(terms, size, full), coverage(terms, size, full) > 0


def ties(terms: Sequence[Term], size: int, full: Full) -> Combined:
    """Elect the sign of the sum, then average the terms that agree; drop the entry where the sum is zero.

    Reference:
        Yadav et al., TIES-Merging, arXiv:2306.01708, section 3 (elect, disjoint merge).
    """
    elected = total(terms, size, full)
    agreeing = [term.pick(_same_sign(term.deltas, elected[term.where])) for term in terms]
    counts = coverage(agreeing, size, full)
    return _divide(total(agreeing, size, full), counts), _same_sign(elected, elected)


def consensus(terms: Sequence[Term], size: int, full: Full, *, min_tasks: int = 2) -> Combined:
    """Drop entries that fewer than `min_tasks` tasks keep, then sum.

    Reference:
        Wang et al., Consensus Merging, arXiv:2405.07813, section 4.3; the coefficient is the tasks' scale.
    """
    return total(terms, size, full), coverage(terms, size, full) >= min_tasks


def _same_sign(first: Array, second: Array) -> Array:
    return (first > 0) & (second > 0) | (first < 0) & (second < 0)


def _divide(sums: Array, counts: Array) -> Array:
    return sums / (counts + (counts == 0))


RULES: dict[str, Callable[[Sequence[Term], int, Full], Combined]] = {
    "mean": mean,
    "sum": add,
    "ties": ties,
    "consensus": consensus,
}


def find_rule(name: str, *, min_tasks: int = 2) -> Rule:
    """The rule of a name.

    Raises:
        UsageError: There is none, or `min_tasks` is below 1.
    """
    if name not in RULES:
        raise UsageError(f"unknown rule {name!r}; known are {', '.join(RULES)}")
    if min_tasks < 1:
        raise UsageError(f"min_tasks is {min_tasks}; a rule can ask for 1 task or more")
    return Rule(name, min_tasks)
