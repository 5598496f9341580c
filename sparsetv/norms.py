"""L1 and L2 norms whose last bit does not depend on the machine."""

import math

import numpy as np
from numpy.typing import NDArray

from sparsetv.arrays import Values
from sparsetv.task_vector import Norms

_WIDTH = 4096
_DIGITS = 6


class NormSum:
    """Adds up |delta| and delta^2 over chunks in order.

    Columns of 4,096 are added element by element, which every processor does alike whatever its vector width; the
    column sums are added in a fixed order.
    """

    def __init__(self) -> None:
        self._l1 = np.zeros(_WIDTH)
        self._l2 = np.zeros(_WIDTH)

    def add(self, partial: "tuple[Values, Values]") -> None:
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


def partial_sums(magnitudes: Values) -> tuple[Values, Values]:
    """Column sums of magnitudes and of their squares over one chunk; both shape (4096,), float32."""
    whole = len(magnitudes) // _WIDTH * _WIDTH
    body, rest = magnitudes[:whole].reshape(-1, _WIDTH), magnitudes[whole:]
    l1 = body.sum(axis=0, dtype=np.float32)
    l2 = np.square(body).sum(axis=0, dtype=np.float32)
    l1[: len(rest)] += rest
    l2[: len(rest)] += np.square(rest)
    return l1, l2


def round_digits(number: float) -> float:
    """The nearest number of 6 significant decimal digits."""
    return float(f"{number:.{_DIGITS - 1}e}")
