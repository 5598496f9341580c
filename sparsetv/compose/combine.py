"""New bits of one tensor from the base's bits and every active task's entries: one rounding, canonical order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsetv.arrays import Bits, Positions, Values
from sparsetv.csr import SparseTensor
from sparsetv.dtypes import from_float32, from_ordinals, ordinals, to_float32
from sparsetv.errors import NonFiniteError
from sparsetv.rules import Rule, Term, coverage


@dataclass(frozen=True, slots=True)
class Part:
    """One task's entries in a tensor, and its coefficient: weight times scale."""

    tensor: SparseTensor
    coefficient: float


@dataclass(frozen=True, slots=True)
class Patch:
    """What changes in one tensor.

    Attributes:
        positions: Shape (n,), int64, increasing: every entry that some task keeps.
        before: The base's bits there.
        after: The merged bits there.
    """

    positions: Positions
    before: Bits
    after: Bits


def combine(
    name: str, parts: Sequence[Part], *, rule: Rule, dtype: str, base_bits: Callable[[Positions], Bits]
) -> Patch:
    """Stitch one tensor.

    Each entry becomes `round(float32(base) + rule(coefficient * delta))`, rounded once to the base's dtype. Where one
    task alone keeps an entry at coefficient 1, its correction applies, so that exact tasks give the fine-tuned bits.

    Args:
        name: The tensor, for messages.
        parts: Active tasks that keep entries here, in canonical order.
        rule: What becomes of entries that several tasks keep.
        dtype: The base's dtype.
        base_bits: Gives the base's bits at flat positions.

    Raises:
        NonFiniteError: A merged entry is NaN or infinite.

    Reference:
        DESIGN, laws 1 and 2; formats/SPEC.md, clause 10.
    """
    positions = union([part.tensor.positions for part in parts])
    with np.errstate(over="ignore", invalid="ignore"):
        terms = [
            Term(np.searchsorted(positions, part.tensor.positions), np.float32(part.coefficient) * part.tensor.values)
            for part in parts
        ]
        deltas, kept = rule(terms, len(positions), full)
        before = base_bits(positions)
        after = from_float32(to_float32(before, dtype) + deltas, dtype)
    after = np.where(kept, after, before)
    _correct(after, parts, terms, kept & (coverage(terms, len(positions), full) == 1), dtype)
    _check_finite(name, positions, after, dtype)
    return Patch(positions, before, after)


def full(size: int, value: float) -> Values:
    """A float32 array of `size` entries, all `value`."""
    return np.full(size, value, np.float32)


def union(positions: Sequence[Positions]) -> Positions:
    """Sorted distinct positions of several sorted lists.

    A stable sort merges runs that are sorted already: with ten lists 30 to 80 times faster than `np.unique`, which
    hashes integers first.
    """
    if len(positions) == 1:
        return positions[0]
    together = np.sort(np.concatenate(positions), kind="stable")
    first = np.ones(len(together), bool)
    np.not_equal(together[1:], together[:-1], out=first[1:])
    return together[first]


def _correct(after: Bits, parts: Sequence[Part], terms: Sequence[Term], alone: NDArray[np.bool_], dtype: str) -> None:
    for part, term in zip(parts, terms, strict=True):
        corrections = part.tensor.corrections
        if part.coefficient != 1.0 or not len(corrections.index):
            continue
        where = term.where[corrections.index]
        lone = alone[where]
        amounts = corrections.amount[lone].view(np.int32)
        ranks = ordinals(after[where[lone]]) + amounts  # wraps as the format says
        after[where[lone]] = from_ordinals(ranks, dtype)


def _check_finite(name: str, positions: Positions, after: Bits, dtype: str) -> None:
    bad = np.flatnonzero(~np.isfinite(to_float32(after, dtype)))
    if len(bad):
        raise NonFiniteError(
            f"{name}: the stitched entry at position {int(positions[bad[0]])} overflows {dtype}; use a smaller scale"
        )
