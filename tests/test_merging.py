"""Dense merging against oracles entry by entry in plain Python."""

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import zstandard
from helpers import stable_top
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save

from sparsetv.errors import DensityError, NamesError, NonFiniteError, ShapeError, UsageError
from sparsetv.merging import vectors as module
from sparsetv.merging.arithmetic import arithmetic
from sparsetv.merging.consensus import consensus
from sparsetv.merging.dare import dare
from sparsetv.merging.tall import compressed, stored_bytes, tall_masks
from sparsetv.merging.ties import ties
from sparsetv.merging.vectors import Tensors, mean, times, total

F32 = np.float32
NUMBERS = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, -2.0, 1e-40, -1e-40, 3e-9, 0.1, -0.3, 65537.0])
SHAPES: list[tuple[int, ...]] = [(), (1,), (7,), (0,), (3, 4), (2, 3, 2)]
Entry = Callable[[list[float]], float]


@st.composite
def vector_sets(draw: st.DrawFn) -> list[dict[str, torch.Tensor]]:
    """Up to four tasks over one to three tensors; values repeat, cancel and vanish."""
    names = draw(st.lists(st.sampled_from(["b.0", "b.10", "b.2", "a"]), min_size=1, max_size=3, unique=True))
    shapes = {name: draw(st.sampled_from(SHAPES)) for name in names}
    shapes[names[0]] = (5,)

    def tensor(shape: tuple[int, ...]) -> torch.Tensor:
        count = math.prod(shape)
        return torch.tensor(draw(st.lists(NUMBERS, min_size=count, max_size=count)), dtype=torch.float32).reshape(shape)

    return [{name: tensor(shapes[name]) for name in names} for _ in range(draw(st.integers(1, 4)))]


def flat(vector: Tensors) -> list[float]:
    """All entries in canonical order."""
    return [value for name in sorted(vector) for value in vector[name].reshape(-1).tolist()]


def entry_by_entry(vectors: Sequence[Tensors], entry: Entry) -> list[float]:
    """`entry` of every entry's values, one per task."""
    return [entry(list(values)) for values in zip(*map(flat, vectors), strict=True)]


def sum32(values: Sequence[float]) -> np.float32:
    result = F32(0)
    for value in values:
        result = F32(result + F32(value))
    return result


def kept_share(vector: Tensors, density: float) -> dict[str, torch.Tensor]:
    """What a full stable sort keeps, the rest 0."""
    entries = sum(tensor.numel() for tensor in vector.values())
    kept = stable_top({n: t.reshape(-1).numpy() for n, t in vector.items()}, round(density * entries))
    found = {}
    for name, tensor in vector.items():
        values = [v if i in set(kept[name]) else 0.0 for i, v in enumerate(tensor.reshape(-1).tolist())]
        found[name] = torch.tensor(values, dtype=torch.float32).reshape(tensor.shape)
    return found


def elected(values: list[float]) -> float:
    """TIES at one entry: the side of the sum, the mean of those on it."""
    side = sum32(values)
    if side == 0:
        return 0.0
    agreeing = [value for value in values if (value > 0) == (side > 0) and value != 0]
    return float(F32(sum32(agreeing) / F32(len(agreeing))))


@given(vectors=vector_sets(), factor=st.sampled_from([0.4, 1.0, -0.5]))
def test_sums_averages_and_task_arithmetic(vectors: list[dict[str, torch.Tensor]], factor: float) -> None:
    before = [flat(vector) for vector in vectors]
    assert flat(total(vectors)) == entry_by_entry(vectors, lambda v: float(sum32(v)))
    assert flat(mean(vectors)) == entry_by_entry(vectors, lambda v: float(F32(sum32(v) / F32(len(v)))))
    assert flat(arithmetic(vectors, factor=factor)) == entry_by_entry(vectors, lambda v: float(sum32(v) * F32(factor)))
    assert flat(times(vectors[0], factor)) == entry_by_entry(vectors[:1], lambda v: float(F32(v[0]) * F32(factor)))
    assert {name: tensor.shape for name, tensor in mean(vectors).items()} == {n: t.shape for n, t in vectors[0].items()}
    assert [flat(vector) for vector in vectors] == before


@given(vectors=vector_sets(), data=st.data())
def test_ties_keeps_exactly_k_elects_and_averages_those_that_agree(
    vectors: list[dict[str, torch.Tensor]], data: st.DataObject
) -> None:
    entries = len(flat(vectors[0]))
    density = data.draw(st.integers(1, entries)) / entries
    factor = data.draw(st.sampled_from([1.0, 0.8]))
    trimmed = [kept_share(vector, density) for vector in vectors]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE", data.draw(st.sampled_from([1, 3, 1000])))
        patch.setattr("sparsetv.merging.ties.PIECE", data.draw(st.sampled_from([1, 4, 1000])))
        found = ties(vectors, density=density, factor=factor)
    assert flat(found) == entry_by_entry(trimmed, lambda v: float(F32(elected(v)) * F32(factor)))


def test_ties_breaks_ties_of_magnitude_by_name_then_position() -> None:
    one = {"b": torch.tensor([2.0, -2.0, 1.0]), "a": torch.tensor([1.0, 2.0])}
    kept = ties([one], density=2 / 5)
    assert {name: tensor.tolist() for name, tensor in kept.items()} == {"a": [0.0, 2.0], "b": [2.0, 0.0, 0.0]}


def test_ties_elects_in_float32() -> None:
    """2^24 + 1 is 2^24 in float32, so that the third task's sign never counts."""
    vectors = [{"a": torch.tensor([value])} for value in (2.0**24, 1.0, -(2.0**24))]
    assert ties(vectors, density=1.0)["a"].tolist() == [0.0]


@pytest.mark.parametrize("merge", [ties, dare])
@pytest.mark.parametrize("density", [0.0, -0.1, 1.5, float("nan")])
def test_a_density_must_be_a_fraction(merge: Callable[..., object], density: float) -> None:
    with pytest.raises(DensityError, match=r"must lie in \(0, 1\]"):
        merge([{"a": torch.ones(3)}], density=density)


def test_what_ties_cannot_rank_is_refused() -> None:
    with pytest.raises(DensityError, match=r"density 0\.1 keeps none of 3 entries"):
        ties([{"a": torch.ones(3)}], density=0.1)
    for odd in ("nan", "inf", "-inf"):
        with pytest.raises(NonFiniteError, match="TIES ranks finite magnitudes only"):
            ties([{"a": torch.tensor([1.0, float(odd)])}], density=0.5)


@given(vectors=vector_sets(), data=st.data(), elect=st.booleans())
def test_dare_drops_by_numbers_of_the_seed_and_the_task(
    vectors: list[dict[str, torch.Tensor]], data: st.DataObject, elect: bool
) -> None:
    seed = data.draw(st.integers(0, 2**64 - 1))
    density = data.draw(st.sampled_from([0.1, 0.5, 0.75, 1.0]))
    entries = len(flat(vectors[0]))
    thinned = []
    for task, vector in enumerate(vectors):
        raw = np.random.Philox(key=seed + task * 2**64).random_raw(entries)
        stays = [int(number) / 2**64 >= 1 - density - 1e-9 for number in raw]
        values = [float(F32(v) / F32(density)) if s else 0.0 for v, s in zip(flat(vector), stays, strict=True)]
        thinned.append({"all": torch.tensor(values, dtype=torch.float32)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE", data.draw(st.sampled_from([1, 3, 1000])))
        found = dare(vectors, density=density, factor=0.5, seed=seed, elect=elect)
    rule: Entry = elected if elect else lambda v: float(sum32(v))
    assert flat(found) == entry_by_entry(thinned, lambda v: float(F32(rule(v)) * F32(0.5)))


def test_dare_keeps_the_sum_on_average_and_tasks_differ() -> None:
    one = {"a": torch.ones(200_000)}
    assert abs(float(dare([one], density=0.1, factor=1.0)["a"].mean()) - 1) < 0.03
    both = dare([one, one], density=0.5, factor=0.5)["a"]
    assert set(both.tolist()) == {0.0, 1.0, 2.0}
    assert abs(float((both == 1).float().mean()) - 0.5) < 0.01
    with pytest.raises(UsageError, match=r"seed -1 lies outside 0 to 2\^64 - 1"):
        dare([one], seed=-1)


@given(vectors=vector_sets(), factor=st.sampled_from([0.2, 0.5, 1.0]), given_merged=st.booleans(), data=st.data())
def test_tall_masks_compression_and_consensus(
    vectors: list[dict[str, torch.Tensor]], factor: float, given_merged: bool, data: st.DataObject
) -> None:
    merged = ties(vectors, density=1.0) if given_merged else total(vectors)
    masks = tall_masks(vectors, factor=factor, merged=merged if given_merged else None)
    wanted = [
        [abs(F32(own)) > F32(factor) * abs(F32(F32(sum_) - F32(own))) for own, sum_ in zip(*pair, strict=True)]
        for pair in ((flat(vector), flat(merged)) for vector in vectors)
    ]
    assert [flat(mask) for mask in masks] == wanted
    assert [flat(compressed(merged, mask)) for mask in masks] == [
        [value if kept else 0.0 for value, kept in zip(flat(merged), mask, strict=True)] for mask in wanted
    ]
    at_least = data.draw(st.integers(1, len(vectors)))
    shared = [sum(kept) >= at_least for kept in zip(*wanted, strict=True)]
    found = consensus(merged, masks, at_least=at_least, factor=0.5)
    assert flat(found) == [value * 0.5 if kept else 0.0 for value, kept in zip(flat(merged), shared, strict=True)]


def test_one_factor_per_task() -> None:
    vectors = [{"a": torch.tensor([1.0, 4.0])}, {"a": torch.tensor([2.0, 1.0])}]
    assert [m["a"].tolist() for m in tall_masks(vectors, factor=[0.2, 0.6])] == [[True, True], [True, False]]
    with pytest.raises(UsageError, match="1 factors for 2 tasks"):
        tall_masks(vectors, factor=[0.2])


@pytest.mark.parametrize("at_least", [0, 2])
def test_consensus_needs_as_many_masks_as_it_asks_for(at_least: int) -> None:
    with pytest.raises(UsageError, match=f"at_least is {at_least}; it must lie between 1 and the number of masks, 1"):
        consensus({"a": torch.ones(2)}, [{"a": torch.ones(2, dtype=torch.bool)}], at_least=at_least)


def test_stored_bytes_are_those_of_files_that_give_everything_back() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = [{n: torch.randn(40, 50, generator=generator) for n in ("b", "a")} for _ in range(3)]
    merged = total(vectors)
    masks = tall_masks(vectors, factor=0.4)
    shared = save(merged)
    assert all(torch.equal(load(shared)[name], merged[name]) for name in merged)
    size = len(shared)
    for mask in masks:
        bits = "".join(str(int(bit)) for bit in flat(mask))
        packed = bytes(int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8))
        stream = io.BytesIO(zstandard.ZstdCompressor(level=19).compress(packed))
        size += len(stream.getvalue())
    assert stored_bytes(masks, merged) == size
    assert size < len(shared) + 3 * 4000 / 8 + 100


MERGES: list[Callable[[Sequence[Tensors]], Any]] = [
    total, mean, arithmetic, ties, dare, lambda vectors: tall_masks(vectors, factor=0.4),
]  # fmt: skip


@pytest.mark.parametrize("merge", MERGES)
def test_vectors_that_do_not_fit_together_are_refused(merge: Callable[[Sequence[Tensors]], object]) -> None:
    one = {"a": torch.ones(6), "b": torch.ones(2, 2)}
    with pytest.raises(UsageError, match="there is nothing to merge"):
        merge([])
    with pytest.raises(NamesError, match="b: only one of task 0 and task 1 has it"):
        merge([one, {"a": torch.ones(6)}])
    with pytest.raises(ShapeError, match=r"a, task 1: expected .*\(6,\), cpu as in task 0; found .*\(1,\)"):
        merge([one, {**one, "a": torch.ones(1)}])
    with pytest.raises(ShapeError, match=r"b, task 0: expected torch.float32.*; found torch.bfloat16"):
        merge([{**one, "b": torch.ones(2, 2, dtype=torch.bfloat16)}])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("merge", MERGES[:-1])
def test_a_gpu_gives_the_same_merge(merge: Callable[[Sequence[Tensors]], Tensors]) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = [{"a": torch.randn(300, 70, generator=generator), "b": torch.ones(50)} for _ in range(3)]
    there = merge([{name: tensor.cuda() for name, tensor in vector.items()} for vector in vectors])
    for name, tensor in merge(vectors).items():
        assert torch.equal(there[name].cpu(), tensor)
