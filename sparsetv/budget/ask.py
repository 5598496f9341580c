"""A size as a user writes it: a share of a checkpoint, bytes, or bits per parameter."""

import re
from dataclasses import dataclass

from sparsetv.errors import UsageError
from sparsetv.units import BYTES

OF = ("fp32", "stored")
"""What a share refers to: 4 bytes per parameter, or the checkpoint's own dtypes."""

_MOST = 1 << 62
_FORM = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(%|bpp|[a-z]*)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Ask:
    """A size.

    Attributes:
        text: As the user wrote it.
        amount: The number in it.
        unit: `%`, `bpp` (bits per parameter), or a unit of bytes in lower case.
        of: A name of `OF`.
    """

    text: str
    amount: float
    unit: str
    of: str

    @classmethod
    def parse(cls, text: str, *, of: str = "fp32") -> "Ask":
        """A size from text such as `1%`, `7MB`, `500 kB`, `0.3bpp`; a bare number is bytes.

        Raises:
            UsageError: It is none, or not above 0; or `of` is unknown.
        """
        found = _FORM.fullmatch(text)
        unit = found[2].lower() if found else None
        if found is None or (unit not in BYTES and unit not in {"%", "bpp"}):
            raise UsageError(f"budget {text!r} is no size; write 1%, 7MB, 500kB or 0.3bpp")
        if of not in OF:
            raise UsageError(f"a budget is a share of {' or '.join(OF)}, not of {of!r}")
        amount = float(found[1])
        if not 0 < amount * BYTES.get(str(unit), 1) < _MOST:
            raise UsageError(f"budget {text!r} is not above 0 and below {_MOST} bytes")
        if unit in BYTES and amount * BYTES[str(unit)] < 1:
            raise UsageError(f"budget {text!r} is less than a byte; for a share write {100 * amount:g}%")
        return cls(text, amount, str(unit), of)

    def bytes(self, *, parameters: int, stored: int) -> int:
        """The size in bytes, rounded down.

        Args:
            parameters: Parameters of the checkpoint.
            stored: Bytes of its tensors.
        """
        if self.unit == "%":
            return int(self.amount / 100 * (4 * parameters if self.of == "fp32" else stored))
        if self.unit == "bpp":
            return int(self.amount * parameters / 8)
        return int(self.amount * BYTES[self.unit])
