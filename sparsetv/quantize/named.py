"""Value encodings by name (formats/VALUES.md)."""

from collections.abc import Mapping

from sparsetv.csr import SparseTensor
from sparsetv.errors import UsageError
from sparsetv.quantize.levels import COUNTS, to_levels
from sparsetv.quantize.rounded import BITS, to_rounded
from sparsetv.quantize.sign import to_signs

VALUES = ("exact", "f16", "bf16", "q8", "q4", "q2", "sign")
"""From lossless to one bit."""


def check_values(values: str) -> str:
    """Return a name of `VALUES`.

    Raises:
        UsageError: It is none.
    """
    if values not in VALUES:
        raise UsageError(f"unknown values {values!r}; known are {', '.join(VALUES)}")
    return values


def quantize(tensors: Mapping[str, SparseTensor], values: str) -> dict[str, SparseTensor]:
    """Kept deltas as an encoding stores them.

    Args:
        tensors: Exact deltas per tensor.
        values: A name of `VALUES`.

    Raises:
        UsageError: Unknown encoding.
    """
    check_values(values)
    if values in BITS:
        return to_rounded(tensors, bits=BITS[values])
    if values in COUNTS:
        return to_levels(tensors, count=COUNTS[values])
    return to_signs(tensors) if values == "sign" else dict(tensors)
