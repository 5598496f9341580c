"""The random number of every entry of a scope, which a seed alone fixes (formats/codecs/seeded.md).

Reference: Philox: Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sparsetv.arrays import Positions
from sparsetv.errors import FormatError, UsageError

LARGEST = 1 << 24
"""Numbers lie below this."""

_CHUNK = 1 << 19


def numbers(seed: int, start: int, count: int) -> Iterator[NDArray[np.uint32]]:
    """Numbers of the entries `start` to `start + count`, uint32, in pieces of 524,288.

    Raises:
        UsageError: The seed is negative or has more than 128 bits.
    """
    if not 0 <= seed < 1 << 128:
        raise UsageError(f"seed {seed} lies outside 0 to 2^128 - 1")
    for offset in range(0, count, _CHUNK):
        first, size = start + offset, min(_CHUNK, count - offset)
        generator = np.random.Philox(key=seed)
        generator.advance(first // 4)  # it makes four numbers at each step of its counter
        words: NDArray[np.uint64] = generator.random_raw(size + first % 4)
        yield (words[first % 4 :] >> np.uint64(40)).astype(np.uint32)


def drawn_positions(seed: int, *, least: int, start: int, entries: int, nnz: int, what: str) -> Positions:
    """The entries of a piece with numbers above `least`, and the first of those that have it, `nnz` in all.

    Args:
        seed: The seed.
        least: Smallest number that is kept.
        start: Index of the piece's first entry in the scope.
        entries: Entries of the piece.
        nnz: How many of them are kept.
        what: Name of the stream, for messages.

    Returns:
        Positions counted from the piece's first entry, ascending.

    Raises:
        FormatError: Other than `nnz` entries are kept so.
    """
    above, ties, offset = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    sure = even = 0
    for drawn in numbers(seed, start, entries):
        above.append(np.flatnonzero(drawn > least) + offset)
        sure += len(above[-1])
        if sure > nnz:  # a threshold that keeps more must not cost memory for it
            break
        ties.append(np.flatnonzero(drawn == least)[: nnz - even] + offset)
        even += len(ties[-1])
        offset += len(drawn)
    if not sure <= nnz <= sure + even:
        raise FormatError(f"{what}: seed {seed} keeps {sure} to {sure + even} entries or more, not {nnz}")
    return np.sort(np.concatenate([*above, np.concatenate(ties)[: nnz - sure]]))


def smallest_number(seed: int, positions: Positions, *, start: int, entries: int) -> int:
    """Smallest number that one of some entries of a piece has; positions ascending, at least one."""
    smallest, offset = LARGEST, 0
    for drawn in numbers(seed, start, entries):
        from_, to = np.searchsorted(positions, (offset, offset + len(drawn)))
        if to > from_:
            smallest = min(smallest, int(drawn[positions[from_:to] - offset].min()))
        offset += len(drawn)
    return smallest
