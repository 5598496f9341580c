"""What becomes of an entry that several tasks keep.

Every rule adds float32 terms in the order given, which is the canonical one: by task digest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsetv.arrays import Values
from sparsetv.errors import UsageError


@dataclass(frozen=True, slots=True)
class Term:
    """One task's share in a tensor.

    Attributes:
        where: Shape (nnz,), int64: places of the task's entries in the union of all tasks' positions.
        deltas: Shape (nnz,), float32: weight times scale times kept delta.
    """

    where: NDArray[np.int64]
    deltas: Values


Combined = tuple[Values, NDArray[np.bool_]]
"""(delta, kept) per entry of the union; entries not kept stay the base's bits."""


def coverage(terms: Sequence[Term], size: int) -> NDArray[np.int32]:
    """Number of tasks that keep each entry of the union, shape (size,)."""
    counts = np.zeros(size, np.int32)
    for term in terms:
        counts[term.where] += 1
    return counts


def total(terms: Sequence[Term], size: int) -> Values:
    """Sum of the terms per entry, float32, added in the given order; -0.0 is what changes no term."""
    sums = np.full(size, -0.0, np.float32)
    for term in terms:
        sums[term.where] += term.deltas
    return sums


def mean(terms: Sequence[Term], size: int) -> Combined:
    """Average over the tasks that keep the entry (Localize-and-Stitch, section 3.3)."""
    counts = coverage(terms, size)
    return _divide(total(terms, size), counts), counts > 0


def add(terms: Sequence[Term], size: int) -> Combined:
    """Sum (task arithmetic, Ilharco et al., arXiv:2212.04089, on sparse vectors)."""
    return total(terms, size), coverage(terms, size) > 0


def ties(terms: Sequence[Term], size: int) -> Combined:
    """Elect the sign of the sum, then average the terms that agree; drop the entry where the sum is zero.

    Reference:
        Yadav et al., TIES-Merging, arXiv:2306.01708, section 3 (elect, disjoint merge).
    """
    elected = np.sign(total(terms, size))
    sums = np.full(size, -0.0, np.float32)
    counts = np.zeros(size, np.int32)
    for term in terms:
        agree = np.sign(term.deltas) == elected[term.where]
        sums[term.where[agree]] += term.deltas[agree]
        counts[term.where[agree]] += 1
    return _divide(sums, counts), elected != 0


def _divide(sums: Values, counts: NDArray[np.int32]) -> Values:
    return np.divide(sums, np.maximum(counts, 1), dtype=np.float32, casting="unsafe")


RULES: dict[str, Callable[[Sequence[Term], int], Combined]] = {"mean": mean, "sum": add, "ties": ties}


def find_rule(name: str) -> Callable[[Sequence[Term], int], Combined]:
    """The rule of a name.

    Raises:
        UsageError: There is none.
    """
    if name not in RULES:
        raise UsageError(f"unknown rule {name!r}; known are {', '.join(RULES)}")
    return RULES[name]
