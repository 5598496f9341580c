"""L1 and L2 norms whose last bit does not depend on the machine."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsetv.arrays import Values
from sparsetv.task_vector import Norms

_WIDTH = 4096
_DIGITS = 6
_TINY = 1e-25  # sums of squares below this may have lost bits to underflow

Sums = tuple[NDArray[Any], NDArray[Any]]
"""Column sums of magnitudes and of squares, each shape (4096,)."""


class NormSum:
    """Adds up |delta| and delta^2 over chunks in order.

    Columns of 4,096 are added element by element, which every processor does alike whatever its vector width; the
    column sums are added in a fixed order.
    """

    def __init__(self) -> None:
        self._l1 = np.zeros(_WIDTH)
        self._l2 = np.zeros(_WIDTH)

    def add(self, partial: Sums) -> None:
        """Add what `partial_sums` gave for the next chunk."""
        self._l1 += partial[0]
        self._l2 += partial[1]

    def result(self) -> Norms:
        """The norms, rounded to 6 significant digits."""
        return Norms(round_digits(_halve(self._l1)), round_digits(math.sqrt(_halve(self._l2))))


def _halve(columns: NDArray[np.float64]) -> float:
    """Sum of 4,096 numbers, the upper half added to the lower until one is left."""
    while len(columns) > 1:
        columns = columns[: len(columns) // 2] + columns[len(columns) // 2 :]
    return float(columns[0])


def partial_sums(magnitudes: Values) -> Sums:
    """Column sums of magnitudes and of their squares over one chunk; both shape (4096,).

    In float32, and in float64 where squares would leave float32's range.
    """
    with np.errstate(over="ignore", under="ignore"):
        l1, l2 = _columns(magnitudes)
    largest, any_change = float(l2.max()), bool(l1.any())
    if np.isfinite(largest) and (largest > _TINY or not any_change):
        return l1, l2
    return _columns(magnitudes.astype(np.float64))


def _columns(magnitudes: NDArray[Any]) -> Sums:
    whole = len(magnitudes) // _WIDTH * _WIDTH
    body, rest = magnitudes[:whole].reshape(-1, _WIDTH), magnitudes[whole:]
    l1, l2 = np.add.reduce(body, axis=0), np.add.reduce(np.square(body), axis=0)
    l1[: len(rest)] += rest
    l2[: len(rest)] += np.square(rest)
    return l1, l2


def round_digits(number: float) -> float:
    """The nearest number of 6 significant decimal digits."""
    return float(f"{number:.{_DIGITS - 1}e}")
