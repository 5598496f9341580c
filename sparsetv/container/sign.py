"""Value codec `sign`: one bit per entry, one magnitude per piece.

Reference: formats/codecs/sign.md.
"""

import math
from collections.abc import Sequence

import numpy as np

from sparsetv.arrays import Bytes, Values
from sparsetv.container.exact import decode_signs, encode_signs
from sparsetv.errors import FormatError, UsageError
from sparsetv.wire.fields import as_list, as_number


def is_sign(values: Values) -> bool:
    """Whether a piece's values have one magnitude."""
    magnitudes = np.abs(values)
    return bool((magnitudes == magnitudes[:1]).all())


def encode(pieces: Sequence[Values]) -> tuple[list[float], Bytes]:
    """(magnitude per piece, packed signs of all pieces).

    Raises:
        UsageError: The values of a piece do not have one magnitude; quantize them first.
    """
    magnitudes = []
    for values in pieces:
        magnitude = np.abs(values[:1])
        if (np.abs(values) != magnitude).any():
            raise UsageError("codec `sign` needs values of one magnitude per tensor; use sparsetv.quantize.sign")
        magnitudes.append(float(magnitude[0]) if len(values) else 0.0)
    return magnitudes, encode_signs(np.concatenate(pieces) if pieces else np.zeros(0, np.float32))


def decode(packed: Bytes, *, magnitudes: list[float], counts: list[int], what: str) -> Values:
    """Values of a block, float32, shape (sum(counts),)."""
    signs = decode_signs(packed, count=sum(counts), what=what)
    bits = np.repeat(np.asarray(magnitudes, np.float32).view(np.uint32), counts)
    return (bits | signs).view(np.float32)


def check_magnitudes(value: object, *, pieces: int, what: str) -> list[float]:
    """The parameter `magnitudes`: one float32 >= 0 per piece.

    Raises:
        FormatError: It is something else.
    """
    numbers = [as_number(item, where=what) for item in as_list(value, where=what)]
    if any(math.copysign(1.0, number) < 0 for number in numbers):
        raise FormatError(f"{what}: a magnitude is -0")
    if len(numbers) != pieces:
        raise FormatError(f"{what}: {len(numbers)} magnitudes for {pieces} pieces")
    with np.errstate(over="ignore"):
        exact = [float(np.float32(number)) == number for number in numbers]
    if not all(exact):
        raise FormatError(f"{what}: a magnitude is not a float32 number")
    return numbers
