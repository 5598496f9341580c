"""The entries of all loaded tasks, in a few arrays that grow; a task is one contiguous span of them."""

import torch

from sparsetv.errors import LimitError

ENTRIES = 2**31 - 1
"""Most entries on one device; links are 32-bit."""

_GROWTH = {"cpu": 2.0}
_OTHERWISE = 1.25
"""Memory of the CPU that nobody has written to costs nothing; that of other devices does."""

_WASTE = 2
"""Spans are packed together once the arrays are so many times larger than what is in use."""


class Pool:
    """Entries on one device, addressed by index.

    Attributes:
        positions: Shape (capacity,), int32 or int64: flat position in the live tensor.
        values: Shape (capacity,), float32: kept delta.
        base: Shape (capacity,), int16 or int32: the base's bits there, while the entry's task is active.
        links: Shape (capacity,), int32: next entry of the same bucket, -1 for none (see `overlaps.py`).

    Cost:
        16 bytes per entry for float32 models, 14 for 16-bit ones (4 more for tensors of 2^31 entries and more).
    """

    def __init__(self, device: torch.device, *, positions: torch.dtype, bits: torch.dtype) -> None:
        self.device = device
        self.positions = torch.empty(0, dtype=positions, device=device)
        self.values = torch.empty(0, dtype=torch.float32, device=device)
        self.base = torch.empty(0, dtype=bits, device=device)
        self.links = torch.empty(0, dtype=torch.int32, device=device)
        self._spans: dict[str, tuple[int, int]] = {}
        self._top = 0

    @property
    def used(self) -> int:
        """Entries in use."""
        return sum(size for _, size in self._spans.values())

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, as far as they were ever used."""
        arrays = (self.positions, self.values, self.base, self.links)
        return self._top * sum(array.element_size() for array in arrays)

    def span(self, key: str) -> slice:
        """Where a task's entries lie."""
        start, size = self._spans[key]
        return slice(start, start + size)

    def allocate(self, key: str, size: int) -> slice:
        """Reserve a span for a task: the first gap that fits, else the end.

        Raises:
            LimitError: There would be more than 2^31 - 1 entries.
        """
        start = self._gap(size)
        if start + size > ENTRIES:
            raise LimitError(f"{start + size} entries on {self.device}, limit {ENTRIES}; unload tasks first")
        self._reserve(start + size)
        self._spans[key] = (start, size)
        self._top = max(self._top, start + size)
        return self.span(key)

    def release(self, key: str) -> None:
        """Give a task's span back."""
        del self._spans[key]

    def is_wasteful(self) -> bool:
        """Whether gaps make up most of the arrays."""
        return self._top > _WASTE * self.used

    def compact(self) -> None:
        """Pack all spans together; every index changes, so links must be made anew."""
        ordered = sorted(self._spans.items(), key=lambda item: item[1])
        pieces = [slice(start, start + size) for _, (start, size) in ordered]
        for name in ("positions", "values", "base", "links"):
            array = getattr(self, name)
            setattr(self, name, torch.cat([array[piece] for piece in pieces]) if pieces else array[:0].clone())
        end = 0
        for key, (_, size) in ordered:
            self._spans[key] = (end, size)
            end += size
        self._top = end

    def _gap(self, size: int) -> int:
        end = 0
        for start, length in sorted(self._spans.values()):
            if start - end >= size:
                return end
            end = start + length
        return end

    def _reserve(self, size: int) -> None:
        if size <= len(self.positions):
            return
        capacity = grown(self.positions, size)
        for name in ("positions", "values", "base", "links"):
            old = getattr(self, name)
            new = torch.empty(capacity, dtype=old.dtype, device=self.device)
            new[: len(old)] = old
            setattr(self, name, new)


def grown(array: torch.Tensor, size: int) -> int:
    """How long an array is made that must hold `size`: longer, so that growing costs little over time."""
    return max(size, int(_GROWTH.get(array.device.type, _OTHERWISE) * len(array)))
