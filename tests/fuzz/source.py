"""One source of decisions for all mutators: a seed, Hypothesis, or the bytes of a coverage-guided fuzzer.

A mutator takes a `random.Random`. `random.Random(seed)` and Hypothesis' `randoms()` are such; `FromBytes` makes one
of bytes, so that a fuzzer that changes bytes changes decisions.
"""

import random


class FromBytes(random.Random):
    """Decisions read from bytes, front to back; where they end, every draw is 0."""

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self._data, self._at = data, 0

    def getrandbits(self, k: int, /) -> int:
        size = (k + 7) // 8
        taken = self._data[self._at : self._at + size]
        self._at += size
        return int.from_bytes(taken.ljust(size, b"\0"), "little") >> (8 * size - k)

    def _randbelow(self, n: int) -> int:
        """A remainder, where `random` would draw again until it is low enough: no byte is without effect."""
        return self.getrandbits(8 * ((n.bit_length() + 7) // 8)) % n

    def random(self) -> float:
        return self.getrandbits(53) / (1 << 53)
