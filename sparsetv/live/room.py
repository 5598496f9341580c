"""Tensors of one dtype on one device: loads tasks' entries, computes what they become, writes them in place."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sparsetv.csr import SparseTensor
from sparsetv.errors import NonFiniteError
from sparsetv.live.bits import BITS, narrow, shift, widen
from sparsetv.live.overlaps import Overlaps, Segment
from sparsetv.live.pool import ENTRIES, Pool
from sparsetv.live.sites import Site
from sparsetv.rules import Rule, Term, coverage

_INT32 = 2**31

_MANY = 1 << 17
_FEW = 1 << 16
_PIECE = 1 << 15
"""Entries that torch handles in one thread on a CPU, so that threads can share a task's runs."""

REGION = 1 << 17
"""Positions of a live tensor that share buckets; their entries stay in a processor's cache."""

Index = torch.Tensor | slice

Meetings = Mapping[str, tuple[Index, Index]]
"""By task: entries of the task asked about, counted from its first, and the other's entries there, as pool indices."""


@dataclass(frozen=True, slots=True)
class Blend:
    """Which tasks are in force, and how they combine.

    Attributes:
        rule: The rule.
        coefficients: Weight times scale by task digest, in canonical order.
    """

    rule: Rule
    coefficients: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Share:
    """What a room knows of one task beside its entries in the pool.

    Attributes:
        segments: Runs of its entries by region.
        runs: Number of a live tensor, and which of the task's entries lie in it, in order.
        names: Name of the base's tensor that begins at each entry of `starts`.
        starts: First entry of each tensor of the base.
        index, amounts: Shapes (n,), int64 ascending and int32: corrections (formats/codecs/exact.md).
    """

    segments: tuple[Segment, ...]
    runs: tuple[tuple[int, slice], ...]
    names: tuple[str, ...]
    starts: tuple[int, ...]
    index: torch.Tensor
    amounts: torch.Tensor


class Room:
    """Live tensors of one dtype on one device.

    Cost:
        16 bytes per entry of a loaded task (14 for 16-bit tensors), and 1 to 4 more while two tasks are active.
    """

    def __init__(self, dtype: str, sites: Sequence[Site]) -> None:
        targets: dict[int, torch.Tensor] = {}
        for site in sites:
            targets.setdefault(site.bits.data_ptr(), site.bits)
        pointers = list(targets)
        self._dtype = dtype
        self._targets = list(targets.values())
        self._number = {pointer: number for number, pointer in enumerate(pointers)}
        self._device = self._targets[0].device
        wide = max(len(bits) for bits in self._targets) >= _INT32
        self._scattered = {site.bits.data_ptr() for site in sites if not site.place.straight}
        whole = [pointer in self._scattered for pointer in pointers]
        sizes = [1 if one else -(-len(t) // REGION) for one, t in zip(whole, self._targets, strict=True)]
        self._regions = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self._pool = Pool(self._device, positions=torch.int64 if wide else torch.int32, bits=BITS[dtype])
        self._piece = _PIECE if self._device.type == "cpu" else ENTRIES
        self._shares: dict[str, Share] = {}
        self._overlaps: Overlaps | None = None

    @property
    def nbytes(self) -> int:
        """Bytes held beside the live tensors."""
        extra = sum(share.index.nbytes + share.amounts.nbytes for share in self._shares.values())
        return self._pool.nbytes + extra + (self._overlaps.nbytes if self._overlaps is not None else 0)

    def load(self, key: str, parts: Sequence[tuple[Site, SparseTensor]]) -> None:
        """Take a task's entries in; nothing is applied."""
        span = self._pool.allocate(key, sum(tensor.nnz for _, tensor in parts))
        segments: list[Segment] = []
        runs: list[tuple[int, slice]] = []
        starts, index, amounts, end = [], [], [], 0
        for site, tensor in parts:
            start, end = end, end + tensor.nnz
            own = slice(span.start + start, span.start + end)
            self._pool.positions[own] = site.place.flat(_tensor(tensor.positions).to(self._device))
            self._pool.values[own] = _tensor(tensor.values)
            segments += self._segments(site, span, start, end)
            number = self._number[site.bits.data_ptr()]
            runs += [(number, slice(low, min(low + self._piece, end))) for low in range(start, end, self._piece)]
            starts.append(start)
            if site.dtype == tensor.dtype:
                index.append(tensor.corrections.index + start)
                amounts.append(tensor.corrections.amount.view(np.int32))
        self._shares[key] = Share(
            tuple(segments),
            tuple(runs),
            tuple(site.name for site, _ in parts),
            tuple(starts),
            torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *index])).to(self._device),
            torch.from_numpy(np.concatenate([np.zeros(0, np.int32), *amounts])).to(self._device),
        )

    def _segments(self, site: Site, span: slice, start: int, stop: int) -> list[Segment]:
        """Runs of a tensor's entries by region; a live tensor that holds rearranged tensors is one region."""
        pointer = site.bits.data_ptr()
        target = self._number[pointer]
        first, last = self._regions[target : target + 2].tolist()
        if pointer in self._scattered:
            return [Segment(target, first, start, stop)]
        limits = torch.arange(last - first, device=self._device) * REGION
        positions = self._pool.positions[span.start + start : span.start + stop]
        bounds = [*(start + torch.searchsorted(positions, limits.to(positions.dtype))).tolist(), stop]
        runs = enumerate(pairwise(bounds))
        return [Segment(target, first + number, low, high) for number, (low, high) in runs if high > low]

    def unload(self, key: str, *, active: Sequence[str]) -> None:
        """Forget a task that is not in force."""
        self._pool.release(key)
        del self._shares[key]
        if self._pool.is_wasteful():
            self._pool.compact()
            self.index(active)

    def __contains__(self, key: str) -> bool:
        return key in self._shares

    def index(self, keys: Sequence[str]) -> None:
        """Keep the overlaps of `keys` findable; one task alone needs no index."""
        self._overlaps = None
        if len(keys) > 1:
            for key in keys:
                self.link(key)

    def link(self, key: str) -> None:
        """Make a task's entries findable."""
        if self._overlaps is None:
            self._overlaps = Overlaps(self._pool, int(self._regions[-1]))
        if key not in self._overlaps:
            self._overlaps.link(key, self._shares[key].segments)

    def unlink(self, key: str) -> None:
        """Undo `link`."""
        if self._overlaps is not None and key in self._overlaps:
            self._overlaps.unlink(key)

    def meetings(self, key: str) -> Meetings:
        """Where a task's entries meet those of the linked tasks; walks the task's entries."""
        if self._overlaps is None:
            return {}
        matches = self._overlaps.matches(key, self._shares[key].segments)
        others = sorted(self._overlaps, key=lambda other: self._pool.span(other).start)
        starts = torch.tensor([self._pool.span(other).start for other in others], device=self._device)
        owners = torch.searchsorted(starts, matches.entry, right=True) - 1
        order, ends = _grouped(owners, len(others))
        query, entry = matches.query.index_select(0, order), matches.entry.index_select(0, order)
        return {
            other: (query[low:high], entry[low:high])
            for other, (low, high) in zip(others, pairwise([0, *ends]), strict=True)
            if high > low
        }

    def save_base(self, key: str, met: Meetings, *, touching: Sequence[str]) -> None:
        """Save the base's bits at a task's places: from memory, or from what tasks of `touching` have saved."""
        pool, span = self._pool, self._pool.span(key)

        def read(target: int, run: slice) -> None:
            own = slice(span.start + run.start, span.start + run.stop)
            torch.index_select(self._targets[target], 0, pool.positions[own], out=pool.base[own])

        self._each_run(key, read)
        for other in touching:
            if other in met:
                query, entry = met[other]
                pool.base[query + span.start] = pool.base[entry]

    def restore(self, key: str) -> None:
        """Write the base's bits at a task's places."""
        self.write(key, self._pool.base[self._pool.span(key)])

    def patch(self, key: str, met: Meetings, blend: Blend) -> torch.Tensor:
        """Bits at a task's places once `blend` is in force, shape (entries of the task,).

        Raises:
            NonFiniteError: One of them is NaN or infinite.
        """
        span = self._pool.span(key)
        base, places = self._pool.base[span], {**met, key: (slice(None), span)}
        order = [other for other in blend.coefficients if other in places]
        terms = [self._term(*places[other], blend.coefficients[other]) for other in order]
        deltas, kept = blend.rule(terms, len(base), self._full)
        after = torch.where(kept, narrow(widen(base, self._dtype) + deltas, self._dtype), base)
        exact = [k for k in order if blend.coefficients[k] == 1.0 and len(self._shares[k].index)]
        alone = kept & (coverage(terms, len(base), self._full) == 1) if exact else kept
        for other in exact:
            self._correct(after, alone, other, *places[other])
        self._check_finite(key, after)
        return after

    def _term(self, query: Index, entry: Index, coefficient: float) -> Term:
        return Term(query, self._pool.values[entry] * float(np.float32(coefficient)))

    def write(self, key: str, bits: torch.Tensor) -> None:
        """Put bits at a task's places, in the live tensors' own memory."""
        places = self._pool.positions[self._pool.span(key)].long()

        def put(target: int, run: slice) -> None:
            self._targets[target].scatter_(0, places[run], bits[run])

        self._each_run(key, put)

    def _each_run(self, key: str, action: Callable[[int, slice], None]) -> None:
        """Do something for each run of a task; on a CPU in threads of our own, since runs are short."""
        runs = self._shares[key].runs
        threads = torch.get_num_threads() if self._device.type == "cpu" and runs[-1][1].stop >= _MANY else 1

        def work(number: int) -> None:
            for target, run in runs:
                if run.stop * threads // (runs[-1][1].stop + 1) == number:
                    action(target, run)

        if threads == 1:
            work(0)
            return
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))

    def _correct(self, after: torch.Tensor, alone: torch.Tensor, key: str, query: Index, entry: Index) -> None:
        """Move entries that one task alone keeps at coefficient 1 by its corrections."""
        share = self._shares[key]
        if isinstance(query, slice) or isinstance(entry, slice):
            where, amounts = share.index, share.amounts
        else:
            local = entry - self._pool.span(key).start
            at = torch.searchsorted(share.index, local).clamp(max=len(share.index) - 1)
            hit = share.index[at] == local
            where, amounts = query[hit], share.amounts[at[hit]]
        lone = alone[where]
        where = where[lone]
        after[where] = shift(after[where], amounts[lone])

    def _full(self, size: int, value: float) -> torch.Tensor:
        return torch.full((size,), value, dtype=torch.float32, device=self._device)

    def _check_finite(self, key: str, after: torch.Tensor) -> None:
        finite = torch.isfinite(widen(after, self._dtype))
        if bool(finite.all()):
            return
        bad = int(torch.nonzero(~finite)[0])
        share = self._shares[key]
        name = share.names[bisect_right(share.starts, bad) - 1]
        raise NonFiniteError(f"{name}: a merged entry overflows {self._dtype}; use a smaller scale")


def _grouped(owners: torch.Tensor, count: int) -> tuple[torch.Tensor, list[int]]:
    """(order that brings equal owners together, where each of `count` owners ends in it)."""
    ends = torch.cumsum(torch.bincount(owners, minlength=count), 0).tolist()
    if owners.device.type == "cpu" and count < _FEW:  # numpy sorts 16-bit numbers digit by digit, ten times faster
        return torch.from_numpy(np.argsort(owners.numpy().astype(np.uint16), kind="stable")), ends
    return torch.argsort(owners, stable=True), ends


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def rooms_of(sites: Mapping[str, Site]) -> dict[tuple[torch.device, str], Room]:
    """One room per device and dtype.

    Raises:
        FormatError: Two tensors of the base overlap in memory without being the same.
    """
    groups: dict[tuple[torch.device, str], list[Site]] = {}
    for site in sites.values():
        if len(site.bits):
            groups.setdefault((site.bits.device, site.dtype), []).append(site)
    return {key: Room(key[1], group) for key, group in groups.items()}
