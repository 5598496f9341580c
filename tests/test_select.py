"""Law 4: exactly round(d * n) entries, the largest, ties to the lower index, however files are cut."""

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ALL, Tensors, kept_positions, patterns, splits, stable_top, write_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sparsetv import difference
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.difference import TaskVector, task_vector
from sparsetv.errors import DensityError, NonFiniteError, UsageError
from sparsetv.jobs.options import PackOptions
from sparsetv.jobs.pack import pack
from sparsetv.localize import magnitude as magnitude_module
from sparsetv.localize import topk
from sparsetv.localize.magnitude import magnitude
from sparsetv.localize.problem import Localized, Problem
from sparsetv.localize.ranking import apportion, count_kept
from sparsetv.localize.topk import LargestK, keep_largest

pytestmark = pytest.mark.usefixtures("no_sync")

Arrays = dict[str, NDArray[np.float32]]


def vector_of(path: Path, deltas: Arrays) -> TaskVector:
    """Files whose deltas are exactly these numbers: the base is 0."""
    tuned: Tensors = {name: torch.from_numpy(values) for name, values in deltas.items()}
    write_checkpoint(path / "base", {name: torch.zeros_like(tensor) for name, tensor in tuned.items()})
    write_checkpoint(path / "tuned", tuned)
    return task_vector(open_checkpoint(path / "base"), open_checkpoint(path / "tuned"))


def select(vector: TaskVector, *, density: float, allocation: str = "global") -> Localized:
    return magnitude(Problem(vector, vector.base.names, density, allocation))


def positions(found: Localized) -> dict[str, list[int]]:
    return {name: where.tolist() for name, where in found.mask.positions.items()}


def largest_remainder(sizes: Sequence[int], total: int) -> list[int]:
    """Exact shares as fractions: floors first, then one each to the largest remainders, lower index first."""
    exact = [Fraction(total * size, sum(sizes)) for size in sizes]
    shares = [math.floor(share) for share in exact]
    order = sorted(range(len(sizes)), key=lambda i: exact[i] - shares[i], reverse=True)
    for index in order[: total - sum(shares)]:
        shares[index] += 1
    return shares


@st.composite
def delta_sets(draw: st.DrawFn) -> Arrays:
    """Up to 4 tensors of deltas: spread, with few distinct magnitudes, all equal, or ordered against the sample."""
    deltas = {}
    for name in ["b", "a", "c", "a.x"][: draw(st.integers(1, 4))]:
        size = draw(st.sampled_from([0, 1, 2, 17, 60]))
        style = draw(st.sampled_from(["spread", "levels", "equal", "rising", "falling"]))
        generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        if style == "levels":
            values = generator.choice([-2.0, -1.0, 0.0, 1.0, 2.0], size)
        elif style == "equal":
            values = generator.choice([-0.5, 0.5], size)
        else:
            values = generator.standard_normal(size) * 10.0 ** generator.integers(-6, 6, size)
            if style != "spread":
                values = np.sort(np.abs(values))[:: 1 if style == "rising" else -1]
        deltas[name] = values.astype(np.float32)
    if not any(map(len, deltas.values())):
        deltas["a"] = np.array([1.0, -1.0, 2.0], np.float32)
    return deltas


@settings(max_examples=120)
@given(data=st.data(), deltas=delta_sets(), density=st.floats(0.001, 1.0))
def test_the_k_largest_are_kept_whatever_the_chunks(
    fresh: Callable[[], Path], data: st.DataObject, deltas: Arrays, density: float
) -> None:
    total = sum(map(len, deltas.values()))
    k = round(density * total)
    vector = vector_of(fresh(), deltas)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(difference, "CHUNK", data.draw(st.sampled_from([1, 5, 16, 1 << 17])))
        patch.setattr(magnitude_module, "_SAMPLED", data.draw(st.sampled_from([1, 3, 1024])))
        patch.setattr(magnitude_module, "_MARGIN", data.draw(st.sampled_from([0.0, 1.15])))
        patch.setattr(topk, "_SLACK", data.draw(st.sampled_from([0, 3, 1 << 16])))
        if k == 0:
            with pytest.raises(DensityError, match=f"keeps none of {total} entries; raise it"):
                select(vector, density=density)
            return
        found = select(vector, density=density)
    assert found.mask.nnz == k
    assert positions(found) == stable_top(deltas, k)


@settings(max_examples=60)
@given(data=st.data(), deltas=delta_sets(), density=st.floats(0.05, 1.0))
def test_allocation_by_tensor_gives_every_tensor_its_share(
    fresh: Callable[[], Path], data: st.DataObject, deltas: Arrays, density: float
) -> None:
    total = sum(map(len, deltas.values()))
    k = max(round(density * total), 1)
    vector = vector_of(fresh(), deltas)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(difference, "CHUNK", data.draw(st.sampled_from([5, 1 << 17])))
        patch.setattr(topk, "_SLACK", data.draw(st.sampled_from([0, 1 << 16])))
        found = select(vector, density=k / total, allocation="tensor")
    names = sorted(deltas)
    shares = largest_remainder([len(deltas[name]) for name in names], k)
    wanted = {name: stable_top({name: deltas[name]}, share)[name] for name, share in zip(names, shares, strict=True)}
    assert positions(found) == wanted
    assert found.mask.nnz == k == sum(shares)


@settings(max_examples=40)
@given(data=st.data(), deltas=delta_sets())
def test_sharding_does_not_show(fresh: Callable[[], Path], data: st.DataObject, deltas: Arrays) -> None:
    path, names = fresh(), sorted(deltas)
    k = data.draw(st.integers(1, sum(map(len, deltas.values()))))
    tuned: Tensors = {name: torch.from_numpy(values) for name, values in deltas.items()}
    base = {name: torch.zeros_like(tensor) for name, tensor in tuned.items()}
    write_checkpoint(path / "base", base, split=data.draw(splits(names)))
    write_checkpoint(path / "tuned", tuned, split=data.draw(splits(names)))
    density = k / sum(map(len, deltas.values()))
    task = pack(path / "base", path / "tuned", options=PackOptions(density=density, scope=ALL))
    assert kept_positions(task) == stable_top(deltas, k)


CHUNK, SAMPLED = difference.CHUNK, 1024
"""The sizes that the package really uses: the adversary below knows them."""


@pytest.mark.parametrize("where", ["inside the samples", "outside the samples", "in the last chunk"])
def test_an_order_that_misleads_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """All large entries where the bracket looks, or none of them."""
    entries = 3 * CHUNK + 5000
    index = np.arange(entries)
    sampled = index % CHUNK < SAMPLED
    large = {
        "inside the samples": sampled,
        "outside the samples": ~sampled,
        "in the last chunk": index >= entries - 2000,
    }[where]
    noise = np.random.default_rng(0).random(entries).astype(np.float32)
    deltas = {"w": np.where(large, 10 + noise, noise / 100).astype(np.float32)}
    deltas["w"][::7] = 10.5  # ties across every chunk, on both sides of the threshold
    made: list[LargestK] = []

    class Counting(LargestK):
        def __init__(self, k: int, *, floor: int = 0) -> None:
            super().__init__(k, floor=floor)
            made.append(self)

    monkeypatch.setattr(magnitude_module, "LargestK", Counting)
    vector = vector_of(tmp_path, deltas)
    for k in [5, 2500, entries // 6, entries // 2, entries]:
        found = magnitude(Problem(vector, ("w",), k / entries))
        order = np.argsort(-np.abs(deltas["w"]), kind="stable")
        np.testing.assert_array_equal(found.mask.positions["w"], np.sort(order[:k]))
    if where == "inside the samples":
        assert len(made) > 5, "the sample misled nobody: this test no longer tests the second scan"


@pytest.mark.parametrize("chunk", [1, 7, 4096, 1 << 17])
def test_norms_are_those_of_the_whole_vector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    generator = np.random.default_rng(4)
    deltas = {
        "long": (generator.standard_normal(9000) * 10.0 ** generator.uniform(-4, 2, 9000)).astype(np.float32),
        "one": np.array([-3.0], np.float32),
        "none": np.zeros(0, np.float32),
        "zero": np.zeros(10, np.float32),
    }
    vector = vector_of(tmp_path, deltas)
    monkeypatch.setattr(difference, "CHUNK", chunk)
    found = select(vector, density=0.01)
    for name, values in deltas.items():
        numbers = [abs(float(value)) for value in values]
        assert found.norms[name].l1 == pytest.approx(math.fsum(numbers), rel=1e-5)
        assert found.norms[name].l2 == pytest.approx(math.sqrt(math.fsum(n * n for n in numbers)), rel=1e-5)
        for norm in (found.norms[name].l1, found.norms[name].l2):
            assert float(f"{norm:.5e}") == norm


@pytest.mark.parametrize("size", [1e-30, 1e25, 1e38])
def test_norms_of_very_small_and_very_large_deltas(tmp_path: Path, size: float) -> None:
    """Squares leave float32 long before the deltas do."""
    found = select(vector_of(tmp_path, {"w": np.full(4, size, np.float32)}), density=0.5)
    assert found.norms["w"].l1 == pytest.approx(4 * size, rel=1e-5, abs=0)
    assert found.norms["w"].l2 == pytest.approx(2 * size, rel=1e-5, abs=0)


@pytest.mark.parametrize("allocation", ["global", "tensor"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_deltas_that_are_no_numbers_are_refused(tmp_path: Path, allocation: str, bad: float) -> None:
    deltas = {"fine": np.ones(50, np.float32), "odd": np.ones(50, np.float32)}
    deltas["odd"][31] = bad
    vector = vector_of(tmp_path, deltas)
    message = r"odd: fine-tuned minus base is NaN or infinite at position 31; repair the checkpoint or leave the tensor"
    for density in [0.01, 0.5, 1.0]:
        with pytest.raises(NonFiniteError, match=message):
            select(vector, density=density, allocation=allocation)


def test_a_nan_in_a_tensor_that_keeps_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `tensor` and a tiny density some tensors keep none of their entries; a NaN there still is an error."""
    deltas = {"a": np.ones(2000, np.float32), "b": np.ones(1000, np.float32)}
    deltas["b"][990] = float("nan")
    monkeypatch.setattr(difference, "CHUNK", 16)
    monkeypatch.setattr(topk, "_SLACK", 0)
    with pytest.raises(NonFiniteError, match="b: fine-tuned minus base is NaN or infinite at position 990"):
        select(vector_of(tmp_path, deltas), density=1 / 3000, allocation="tensor")


@pytest.mark.parametrize("density", [0, -0.1, 1.0000001, 5, float("nan"), float("inf")])
def test_densities_outside_their_range(density: float) -> None:
    with pytest.raises(DensityError, match=r"must lie in \(0, 1\]; found"):
        count_kept(100, density)


def test_counting_rounds_half_to_even_and_refuses_nothing() -> None:
    assert [count_kept(n, 0.5) for n in (2, 3, 5, 7)] == [1, 2, 2, 4]
    assert count_kept(10**12 + 1, 1) == 10**12 + 1
    with pytest.raises(DensityError, match=r"density 0\.5 keeps none of 1 entries; raise it"):
        count_kept(1, 0.5)
    with pytest.raises(DensityError, match=r"density 1 keeps none of 0 entries; raise it"):
        count_kept(0, 1)


def test_unknown_allocation(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown allocation 'rows'; known are global, tensor"):
        select(vector_of(tmp_path, {"w": np.ones(3, np.float32)}), density=1, allocation="rows")


@given(sizes=st.lists(st.integers(0, 10**12), min_size=1, max_size=12), data=st.data())
def test_apportioning_is_exact(sizes: list[int], data: st.DataObject) -> None:
    sizes = [*sizes, 1]
    total = data.draw(st.integers(0, sum(sizes)))
    shares = apportion(sizes, total)
    assert shares == largest_remainder(sizes, total)
    assert sum(shares) == total
    assert all(0 <= share <= size for share, size in zip(shares, sizes, strict=True))


MAGNITUDES = [st.integers(0, 6), patterns().map(lambda bits: bits & 0x7FFF_FFFF)]


@settings(max_examples=100)
@given(numbers=st.one_of(*(st.lists(kind, min_size=1, max_size=30) for kind in MAGNITUDES)), data=st.data())
def test_the_accumulator_keeps_the_first_among_equals(numbers: list[int], data: st.DataObject) -> None:
    k = data.draw(st.integers(0, len(numbers)))
    wanted = sorted(sorted(range(len(numbers)), key=lambda i: -numbers[i])[:k])
    assert keep_largest(np.array(numbers, np.uint32), k).tolist() == wanted
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topk, "_SLACK", data.draw(st.sampled_from([0, 2, 100])))
        best, start = LargestK(k), 0
        while start < len(numbers):
            stop = start + data.draw(st.integers(1, 7))
            piece = np.array(numbers[start:stop], np.uint32)
            index = np.arange(start, start + len(piece), dtype=np.int64)
            seen = piece >= best.floor
            best.offer(index[seen], piece[seen])
            start = stop
        assert best.result().tolist() == wanted


@pytest.mark.parametrize("step", [1, 2, 3])
def test_the_accumulator_on_every_short_stream(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """All streams of five numbers among three neighbours: ties and floors at every place."""
    monkeypatch.setattr(topk, "_SLACK", 0)
    for numbers in itertools.product([7, 8, 9], repeat=5):
        order = sorted(range(5), key=[-number for number in numbers].__getitem__)
        for k in range(6):
            best = LargestK(k)
            for start in range(0, 5, step):
                index = [i for i in range(start, min(start + step, 5)) if numbers[i] >= best.floor]
                best.offer(np.array(index, np.int64), np.array([numbers[i] for i in index], np.uint32))
            assert best.result().tolist() == sorted(order[:k]), (numbers, k)
