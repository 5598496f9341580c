"""Which other tasks keep the same entries, found at a cost that depends on neither the model nor the number of tasks.

Live tensors are cut into regions that fit a processor's cache, and each region has buckets; the bucket of a position is
its remainder modulo their number, which is odd, so that neighbours and columns spread evenly. A bucket is a linked
list through the pool's entries. A region's buckets are made anew, twice as many, once they hold four entries on
average; regions start at different loads, so that not all of them grow at the same time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sparsetv.live.pool import Pool, grown

_LOAD = 2.0
_MOST = 4.0
_GOLDEN = 0.6180339887498949
_NONE = -1
_GAPS = 1.5
_SPARSE = 4


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of a task's entries that lie in one region of a live tensor.

    Attributes:
        target: Number of the live tensor.
        region: Number of the region; regions are what has buckets.
        start, stop: The run, counted from the task's first entry.
    """

    target: int
    region: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Matches:
    """Pairs of entries at one place.

    Attributes:
        query: Shape (n,), int64: entry of the task that was asked about, counted from its first.
        entry: Shape (n,), int64: index in the pool of another task's entry at the same place.
    """

    query: torch.Tensor
    entry: torch.Tensor


class Overlaps:
    """Buckets over the entries of linked tasks.

    Cost:
        Linking, unlinking and asking take time in proportion to the task's entries and what they meet, amortized over
        the making of new buckets; memory is 1 to 4 bytes per entry.
    """

    def __init__(self, pool: Pool, regions: int) -> None:
        self._pool = pool
        self._heads = torch.full((1,), _NONE, dtype=torch.int32, device=pool.device)  # bucket 0 stays empty
        self._end = 1
        self._starts = np.zeros(regions, np.int64)
        self._sizes = np.zeros(regions, np.int64)
        self._linked = np.zeros(regions, np.int64)
        self._tasks: dict[str, Sequence[Segment]] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of the bucket heads, as far as they were ever used."""
        return self._end * self._heads.element_size()

    def __contains__(self, key: str) -> bool:
        return key in self._tasks

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def link(self, key: str, segments: Sequence[Segment]) -> None:
        """Put a task's entries into the buckets."""
        self._tasks[key] = segments
        for segment in segments:
            self._linked[segment.region] += len(segment)
        crowded = self._linked > _MOST * self._sizes
        self._insert(key, [segment for segment in segments if not crowded[segment.region]])
        self._renew(np.flatnonzero(crowded))

    def unlink(self, key: str) -> None:
        """Take a task's entries out of the buckets."""
        segments, links, span = self._tasks.pop(key), self._pool.links, self._pool.span(key)
        before = self._predecessors(key, segments)
        after = links[span].long()
        while bool((own := (after >= span.start) & (after < span.stop)).any()):
            after = torch.where(own, links[after.clamp(min=0)].long(), after)
        first, inner = before < 0, (before >= span.stop) | ((before >= 0) & (before < span.start))
        self._heads[-1 - before[first]] = after[first].to(torch.int32)
        links[before[inner]] = after[inner].to(torch.int32)
        for segment in segments:
            self._linked[segment.region] -= len(segment)
        if self._end > _SPARSE * self._linked.sum() + 1:
            self._sizes[:] = 0
            self._end = 1
            self._renew(np.flatnonzero(self._linked))

    def matches(self, key: str, segments: Sequence[Segment]) -> Matches:
        """Entries of linked tasks at the places of a task, itself left out; it need not be linked."""
        span, device = self._pool.span(key), self._pool.device
        queries, entries = [], []
        for query, entry, _ in self._walk(key, segments, trace=False):
            other = torch.nonzero((entry < span.start) | (entry >= span.stop)).squeeze(1)
            queries.append(query[other])
            entries.append(entry[other])
        return Matches(_joined(queries, device), _joined(entries, device))

    def _predecessors(self, key: str, segments: Sequence[Segment]) -> torch.Tensor:
        """What links to each entry of a linked task: index of an entry, or -1 - bucket; shape (entries,), int64."""
        span = self._pool.span(key)
        found = torch.empty(span.stop - span.start, dtype=torch.int64, device=self._pool.device)
        for query, entry, previous in self._walk(key, segments, trace=True):
            own = torch.nonzero(entry == query + span.start).squeeze(1)
            found[query[own]] = previous[own]
        return found

    def _walk(
        self, key: str, segments: Sequence[Segment], *, trace: bool
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Walk all lists side by side; per step (entry asked about, entry at its place, what links to that one).

        Each shape (n,), int64; without `trace` the third is empty.
        """
        pool, buckets = self._pool, self._buckets(key, segments)
        query = torch.arange(len(buckets), device=pool.device)
        wanted, entry = pool.positions[pool.span(key)], self._heads.index_select(0, buckets)
        previous = -1 - buckets if trace else buckets[:0]
        while len(alive := torch.nonzero(entry >= 0).squeeze(1)):
            if len(alive) < len(entry):
                query, wanted, entry = (array.index_select(0, alive) for array in (query, wanted, entry))
                previous = previous.index_select(0, alive) if trace else previous
            hit = torch.nonzero(pool.positions.index_select(0, entry) == wanted).squeeze(1)
            found = previous.index_select(0, hit) if trace else previous
            yield query.index_select(0, hit), entry.index_select(0, hit).long(), found
            previous = entry.long() if trace else previous
            entry = pool.links.index_select(0, entry)

    def _buckets(self, key: str, segments: Sequence[Segment]) -> torch.Tensor:
        """Bucket of each entry of the segments, shape (entries,), int64, in their order."""
        pool, offset = self._pool, self._pool.span(key).start
        regions = np.array([segment.region for segment in segments], np.int64)
        counts = torch.tensor([len(segment) for segment in segments], dtype=torch.int64, device=pool.device)
        sizes = torch.from_numpy(np.maximum(self._sizes[regions], 1)).to(pool.device, pool.positions.dtype)
        starts = torch.from_numpy(np.where(self._sizes[regions] > 0, self._starts[regions], 0)).to(pool.device)
        parts = [pool.positions[offset + s.start : offset + s.stop] for s in _joint(segments)]
        found = torch.remainder(_joined(parts, pool.device), torch.repeat_interleave(sizes, counts)).long()
        return found.add_(torch.repeat_interleave(starts, counts))

    def _insert(self, key: str, segments: Sequence[Segment]) -> None:
        """Push entries to the front of their lists; of several for one bucket one wins each round."""
        pool, offset = self._pool, self._pool.span(key).start
        buckets = self._buckets(key, segments)
        runs = [torch.arange(offset + s.start, offset + s.stop, device=pool.device) for s in _joint(segments)]
        ids = _joined(runs, pool.device)
        while len(ids):
            pool.links.index_copy_(0, ids, self._heads.index_select(0, buckets))
            self._heads.index_copy_(0, buckets, ids.to(torch.int32))
            lost = torch.nonzero(self._heads.index_select(0, buckets) != ids).squeeze(1)
            ids, buckets = ids.index_select(0, lost), buckets.index_select(0, lost)

    def _renew(self, regions: NDArray[np.int64]) -> None:
        """Give live tensors new buckets, and put all their entries into them."""
        if not len(regions):
            return
        for region in regions.tolist():
            load = _LOAD * (1 if self._sizes[region] else 2 ** -(region * _GOLDEN % 1))
            self._sizes[region] = _odd(int(self._linked[region] / load))
        self._place(regions)
        chosen = set(regions.tolist())
        for key, segments in self._tasks.items():
            self._insert(key, [segment for segment in segments if segment.region in chosen])

    def _place(self, regions: NDArray[np.int64]) -> None:
        """Lay out empty buckets for `regions` behind the others; close the gaps once they are most of the array."""
        wanted, kept = int(self._sizes[regions].sum()), 1 + int(self._sizes.sum())
        others = np.setdiff1d(np.flatnonzero(self._sizes), regions)
        if self._end + wanted > _GAPS * kept:
            old, self._end = self._heads, 1
            self._heads = torch.full((kept,), _NONE, dtype=torch.int32, device=old.device)
            for region in others.tolist():
                start, size = int(self._starts[region]), int(self._sizes[region])
                self._heads[self._end : self._end + size] = old[start : start + size]
                self._starts[region] = self._end
                self._end += size
        self._reserve(self._end + wanted)
        self._heads[self._end : self._end + wanted] = _NONE
        self._starts[regions] = self._end + np.cumsum(self._sizes[regions]) - self._sizes[regions]
        self._end += wanted

    def _reserve(self, size: int) -> None:
        if size > len(self._heads):
            old = self._heads
            self._heads = torch.empty(grown(old, size), dtype=torch.int32, device=old.device)
            self._heads[: len(old)] = old


def _joint(segments: Sequence[Segment]) -> list[slice]:
    """Segments as few slices: those that follow each other are one."""
    joint: list[slice] = []
    for segment in segments:
        if joint and joint[-1].stop == segment.start:
            joint[-1] = slice(joint[-1].start, segment.stop)
        else:
            joint.append(slice(segment.start, segment.stop))
    return joint


def _odd(number: int) -> int:
    """The next odd number that 3, 5 and 7 do not divide, so that it shares no factor with common widths of matrices."""
    number = max(number, 1) | 1
    while number > 7 and any(number % factor == 0 for factor in (3, 5, 7)):
        number += 2
    return number


def _joined(parts: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    return torch.cat(list(parts)) if parts else torch.zeros(0, dtype=torch.int64, device=device)
