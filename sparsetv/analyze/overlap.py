"""What tasks share: how much their masks overlap, and whether they agree where they do."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, count

import numpy as np
from numpy.typing import NDArray

from sparsetv.arrays import Positions
from sparsetv.csr import SparseTensor
from sparsetv.task_vector import SparseTaskVector

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Member:
    """One task: entries of its scope, entries kept, fraction kept."""

    name: str
    entries: int
    kept: int
    density: float


@dataclass(frozen=True, slots=True)
class Pair:
    """What two tasks share.

    Attributes:
        first, second: Names of the tasks.
        shared: Entries that both keep.
        jaccard: Shared over union, in [0, 1]; 0 where both masks are empty.
        expected: The same with the number of shared entries that random masks have on average, if each keeps as many
            entries of every tensor as the task does.
        cosine: Cosine of the two masked task vectors, in [-1, 1]; None where one of them is zero.
        cosine_shared: Cosine over the shared entries alone; None where there are none, or one side is zero there.
        agree: Fraction of the shared entries at which both values have one sign (a zero agrees with nothing); None
            where there are none.
    """

    first: str
    second: str
    shared: int
    jaccard: float
    expected: float
    cosine: float | None
    cosine_shared: float | None
    agree: float | None


@dataclass(frozen=True, slots=True)
class Coverage:
    """Entries that exactly `tasks` tasks keep, and their fraction of all that any task keeps."""

    tasks: int
    entries: int
    share: float


@dataclass(frozen=True, slots=True)
class Overlap:
    """What tasks of one base share.

    Attributes:
        tasks: The tasks, in the order given.
        scope: Entries that lie in the scope of any task.
        union: Entries that any task keeps.
        union_share: Union over scope.
        coverage: For 1, 2, … n tasks, the entries that exactly so many keep.
        pairs: All pairs, in the order of `itertools.combinations`.
    """

    tasks: tuple[Member, ...]
    scope: int
    union: int
    union_share: float
    coverage: tuple[Coverage, ...]
    pairs: tuple[Pair, ...]


def compare(tasks: Sequence[SparseTaskVector]) -> Overlap:
    """Compare the masks and the masked task vectors of tasks of one base.

    Values are float32 and are summed in float64 in an order that depends on the tasks' order alone.

    Args:
        tasks: Tasks of one base; tensors of one name have one shape. Their scopes may differ.

    Reference:
        He et al., Localize-and-Stitch, arXiv:2408.13656, section 3.2: Jaccard (Figure 4a), cosine (4b), and how many
        tasks keep an entry (Figure 12). That masks of tensors with different densities overlap by chance is ours.

    Cost:
        O(nnz log n + pairs of tasks that meet, summed over entries); memory of the largest tensor's kept entries.
    """
    sums = _Sums(len(tasks))
    names = sorted({name for task in tasks for name in task.tensors})
    sizes = 0
    for name in names:
        there = [(index, task.tensors[name]) for index, task in enumerate(tasks) if name in task.tensors]
        sizes += there[0][1].numel
        sums.add(there)
    union = int(sums.coverage.sum())
    return Overlap(
        tasks=tuple(Member(task.name, task.numel, task.nnz, task.density) for task in tasks),
        scope=sizes,
        union=union,
        union_share=_ratio(union, sizes),
        coverage=tuple(
            Coverage(number, int(sums.coverage[number]), _ratio(int(sums.coverage[number]), union))
            for number in range(1, len(tasks) + 1)
        ),
        pairs=tuple(_pair(tasks, sums, *pair) for pair in combinations(range(len(tasks)), 2)),
    )


class _Sums:
    """What is added up tensor by tensor, (n, n) each; pairs lie above the diagonal."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.squares = np.zeros(n)
        self.coverage = np.zeros(n + 1, np.int64)
        self.expected = np.zeros((n, n))
        self.shared = np.zeros((n, n), np.int64)
        self.agree = np.zeros((n, n), np.int64)
        self.dots, self.first, self.second = (np.zeros((n, n)) for _ in range(3))

    def add(self, there: Sequence[tuple[int, SparseTensor]]) -> None:
        """One tensor, of the tasks that have it in scope: one merge, then each pair of tasks at each entry once."""
        self._expect(there)
        for index, tensor in there:
            self.squares[index] += np.square(tensor.values, dtype=np.float64).sum()
        positions = np.concatenate([tensor.positions for _, tensor in there])
        order = np.argsort(positions, kind="stable")  # sorted runs are merged, and tasks stay in order at each entry
        positions = positions[order]
        owners = np.repeat([index for index, _ in there], [tensor.nnz for _, tensor in there])[order]
        values = np.concatenate([tensor.values for _, tensor in there])[order].astype(np.float64)
        self.coverage += np.bincount(_run_lengths(positions), minlength=self.n + 1)
        for left, right in _meetings(positions):
            codes = owners[left] * self.n + owners[right]
            products = values[left] * values[right]
            self.shared += self._per_pair(codes).astype(np.int64)
            self.agree += self._per_pair(codes[products > 0]).astype(np.int64)
            self.dots += self._per_pair(codes, products)
            self.first += self._per_pair(codes, np.square(values[left]))
            self.second += self._per_pair(codes, np.square(values[right]))

    def _expect(self, there: Sequence[tuple[int, SparseTensor]]) -> None:
        size = there[0][1].numel
        if size:
            kept = np.zeros(self.n)
            kept[[index for index, _ in there]] = [tensor.nnz for _, tensor in there]
            self.expected += np.outer(kept, kept) / size

    def _per_pair(self, codes: NDArray[np.int64], weights: Matrix | None = None) -> Matrix:
        """Sums per pair, added in the order of the entries, whatever the machine."""
        found = np.bincount(codes, weights, minlength=self.n**2).astype(np.float64)
        return found.reshape(self.n, self.n)


def _run_lengths(ordered: Positions) -> NDArray[np.int64]:
    edges = np.flatnonzero(np.diff(ordered, prepend=-1, append=-1))
    return np.diff(edges)


def _meetings(ordered: Positions) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Indices of two entries at one place, each such two once: those next to each other, then one apart, and so on."""
    left = np.arange(len(ordered))
    for lag in count(1):
        left = left[: np.searchsorted(left, len(ordered) - lag)]
        left = left[ordered[left] == ordered[left + lag]]
        if not len(left):
            return
        yield left, left + lag


def _pair(tasks: Sequence[SparseTaskVector], sums: _Sums, i: int, j: int) -> Pair:
    shared, kept = int(sums.shared[i, j]), tasks[i].nnz + tasks[j].nnz
    expected = float(sums.expected[i, j])
    return Pair(
        first=tasks[i].name,
        second=tasks[j].name,
        shared=shared,
        jaccard=_ratio(shared, kept - shared),
        expected=_ratio(expected, kept - expected),
        cosine=_cosine(sums.dots[i, j], sums.squares[i], sums.squares[j]),
        cosine_shared=_cosine(sums.dots[i, j], sums.first[i, j], sums.second[i, j]),
        agree=int(sums.agree[i, j]) / shared if shared else None,
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _cosine(dot: float, first: float, second: float) -> float | None:
    norm = math.sqrt(first) * math.sqrt(second)
    return min(max(float(dot) / norm, -1.0), 1.0) if norm else None
