"""TIES: trim each task vector, elect a sign per entry, average the tasks that agree with it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from sparsetv import rules
from sparsetv.errors import DensityError, NonFiniteError
from sparsetv.merging.vectors import PIECE, Tensors, check_vectors, combine, times

_MAGNITUDE = 0x7FFF_FFFF
_INFINITE = 0x7F80
"""High half of the pattern of infinity, the smallest of what is not finite."""

_LOW = 16


@dataclass(frozen=True, slots=True)
class Cut:
    """What a task keeps: magnitudes above `least`, and those equal to it up to the entry of index `last`.

    Attributes:
        least: A float32's pattern without the sign; these order as magnitudes do.
        last: Index in canonical order (names ascending, row-major).
    """

    least: int
    last: int

    def keeps(self, piece: torch.Tensor, start: int) -> torch.Tensor:
        """Whether each entry of a flat piece is kept; bool.

        Args:
            piece: Shape (n,), float32.
            start: Index of its first entry in canonical order.
        """
        bits = _magnitude_bits(piece)
        kept = bits > self.least
        ties = torch.nonzero(bits == self.least).reshape(-1)
        kept[ties[ties + start <= self.last]] = True
        return kept


def ties(vectors: Sequence[Tensors], *, density: float = 0.2, factor: float = 1.0) -> dict[str, torch.Tensor]:
    """Trim, elect, and merge disjointly.

    Args:
        vectors: Task vectors, fine-tuned minus base.
        density: Fraction that each task keeps over all tensors, in (0, 1]: exactly `round(density * n)` entries of
            largest magnitude, ties to the lower index in canonical order. (The authors' code keeps one more and all
            of its ties.)
        factor: What the result is multiplied with.

    Returns:
        Merged minus base; 0 where the trimmed vectors' sum is 0. New tensors.

    Raises:
        DensityError: `density` is outside (0, 1], or keeps no entry.
        NonFiniteError: A task vector holds a NaN or an infinity.
        UsageError, NamesError, ShapeError: The vectors do not fit together.

    Reference:
        Yadav et al., TIES-Merging, arXiv:2306.01708, section 3.2 and algorithm 1. Signs are those of sums in float32.

    Cost:
        Three passes over each task and one over all; memory of the result and a few pieces.
    """
    names = check_vectors(vectors)
    cuts = [find_cut([vector[name] for name in names], density=density) for vector in vectors]

    def trim(task: int, piece: torch.Tensor, start: int) -> torch.Tensor:
        return torch.where(cuts[task].keeps(piece, start), piece, 0.0)

    return times(combine(vectors, trim, rules.ties), factor)


def find_cut(tensors: Sequence[torch.Tensor], *, density: float) -> Cut:
    """Where exactly `round(density * n)` of all entries are kept.

    Raises:
        DensityError: `density` is outside (0, 1], or keeps no entry.
        NonFiniteError: An entry is not finite.

    Cost:
        Three passes, the k-th largest by halves of its bit pattern; memory of a piece.
    """
    if not 0 < density <= 1:
        raise DensityError(f"density is the fraction kept and must lie in (0, 1]; found {density}")
    entries = sum(tensor.numel() for tensor in tensors)
    wanted = round(density * entries)
    if wanted == 0:
        raise DensityError(f"density {density} keeps none of {entries} entries; raise it")
    high = _histogram(tensors, None)
    if int(high[_INFINITE:].sum()):
        raise NonFiniteError("a task vector holds a NaN or an infinity; TIES ranks finite magnitudes only")
    top, wanted = _descend(high, wanted)
    low, wanted = _descend(_histogram(tensors, top), wanted)
    least = top << _LOW | low
    return Cut(least, _nth(tensors, least, wanted))


def _magnitude_bits(piece: torch.Tensor) -> torch.Tensor:
    return piece.contiguous().view(torch.int32) & _MAGNITUDE


def _pieces(tensors: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Magnitude patterns of all entries in order, int32."""
    for tensor in tensors:
        for piece in torch.split(tensor.reshape(-1), PIECE):
            yield _magnitude_bits(piece)


def _histogram(tensors: Sequence[torch.Tensor], top: int | None) -> torch.Tensor:
    """How many magnitudes have each high half, or each low half below the high half `top`; shape (65536,), int64."""
    counts = torch.zeros(1 << _LOW, dtype=torch.int64)
    for bits in _pieces(tensors):
        high = bits >> _LOW
        digits = high if top is None else bits[high == top] & 0xFFFF
        counts += torch.bincount(digits, minlength=1 << _LOW).cpu()
    return counts


def _descend(counts: torch.Tensor, wanted: int) -> tuple[int, int]:
    """(digit that the wanted-th number from the top has, how many of that digit are wanted)."""
    reached = counts.flip(0).cumsum(0)
    steps = int(torch.searchsorted(reached, wanted))
    above = int(reached[steps - 1]) if steps else 0
    return len(counts) - 1 - steps, wanted - above


def _nth(tensors: Sequence[torch.Tensor], least: int, number: int) -> int:
    """Index of the number-th entry, from 1, whose magnitude has the pattern `least`."""
    start = 0
    for bits in _pieces(tensors):
        found = torch.nonzero(bits == least).reshape(-1)
        if len(found) >= number:
            return start + int(found[number - 1])
        number -= len(found)
        start += len(bits)
    raise IndexError(f"fewer than {number} entries have the pattern {least:#x}")
