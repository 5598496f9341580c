"""Rules on hand-computed numbers: who keeps what, what it becomes, what is dropped."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsetv.compose.combine import full, union
from sparsetv.errors import UsageError
from sparsetv.masks import Mask, jaccard, overlap
from sparsetv.rules import Term, coverage, find_rule

Entries = dict[int, float]


def terms(*tasks: Entries) -> list[Term]:
    """One term per task from {place: delta}."""
    return [
        Term(np.array(sorted(task), np.int64), np.array([task[place] for place in sorted(task)], np.float32))
        for task in tasks
    ]


def apply(rule: str, tasks: Sequence[Entries], size: int) -> list[float | None]:
    """Deltas per entry, None where the entry stays the base's."""
    deltas, kept = find_rule(rule)(terms(*tasks), size, full)
    assert deltas.dtype == np.float32
    return [float(delta) if keep else None for delta, keep in zip(deltas, kept, strict=True)]


TASKS: list[Entries] = [{0: 1.0, 1: 2.0, 2: -3.0, 5: 4.0}, {1: 4.0, 2: 1.0, 5: -4.0}, {1: -9.0, 2: -1.0, 4: 0.0}]


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("mean", [1.0, -1.0, -1.0, None, 0.0, 0.0]),
        ("sum", [1.0, -3.0, -3.0, None, 0.0, 0.0]),
        ("ties", [1.0, -9.0, -2.0, None, None, None]),
        ("consensus", [None, -3.0, -3.0, None, None, 0.0]),
    ],
)
def test_by_hand(rule: str, wanted: list[float | None]) -> None:
    assert apply(rule, TASKS, 6) == wanted


def test_coverage_counts_tasks() -> None:
    assert coverage(terms(*TASKS), 6, full).tolist() == [1, 3, 3, 0, 1, 2]
    assert coverage([], 2, full).tolist() == [0, 0]


def test_ties_elects_by_mass_and_not_by_number() -> None:
    assert apply("ties", [{0: 5.0}, {0: -1.0}, {0: -2.0}], 1) == [5.0]
    assert apply("ties", [{0: 5.0}, {0: -3.0}, {0: -4.0}], 1) == [-3.5]


def test_ties_does_not_count_zeros_among_those_that_agree() -> None:
    assert apply("ties", [{0: 4.0}, {0: 0.0}, {0: -0.0}, {0: 2.0}], 1) == [3.0]


def test_sums_are_float32_and_in_the_order_given() -> None:
    tasks: list[Entries] = [{0: 2.0**24}, {0: 1.0}, {0: 1.0}]
    assert apply("sum", tasks, 1) == [2.0**24]
    assert apply("sum", tasks[::-1], 1) == [2.0**24 + 2]


def test_mean_divides_in_float32() -> None:
    assert apply("mean", [{0: 1.0}, {0: 0.0}, {0: 0.0}], 1) == [float(np.float32(1) / np.float32(3))]


@pytest.mark.parametrize("rule", ["mean", "sum", "ties"])
@given(st.dictionaries(st.integers(0, 9), st.floats(-(2.0**100), 2.0**100, width=32).filter(bool), max_size=10))
def test_one_task_alone_is_itself(rule: str, task: Entries) -> None:
    assert apply(rule, [task], 10) == [task.get(place) for place in range(10)]


def test_unknown_rule() -> None:
    with pytest.raises(UsageError, match="unknown rule 'median'; known are mean, sum, ties, consensus"):
        find_rule("median")
    with pytest.raises(UsageError, match="min_tasks is 0; a rule can ask for 1 task or more"):
        find_rule("consensus", min_tasks=0)


def test_consensus_asks_for_as_many_tasks_as_it_is_told() -> None:
    for min_tasks, wanted in [(1, [1.0, -3.0, -3.0, None, 0.0, 0.0]), (3, [None, -3.0, -3.0, None, None, None])]:
        deltas, kept = find_rule("consensus", min_tasks=min_tasks)(terms(*TASKS), 6, full)
        assert [float(d) if k else None for d, k in zip(deltas, kept, strict=True)] == wanted


@given(
    st.dictionaries(st.sampled_from("abc"), st.sets(st.integers(0, 20))),
    st.dictionaries(st.sampled_from("abc"), st.sets(st.integers(0, 20))),
)
def test_overlap_and_jaccard_are_those_of_sets(first: dict[str, set[int]], second: dict[str, set[int]]) -> None:
    masks = [
        Mask(dict.fromkeys(side, (21,)), {name: np.array(sorted(kept), np.int64) for name, kept in side.items()})
        for side in (first, second)
    ]
    flat = [{(name, position) for name, kept in side.items() for position in kept} for side in (first, second)]
    assert overlap(*masks) == len(flat[0] & flat[1])
    union = len(flat[0] | flat[1])
    assert jaccard(*masks) == (len(flat[0] & flat[1]) / union if union else 0.0)
    assert masks[0].nnz == len(flat[0])
    assert masks[0].density == (len(flat[0]) / (21 * len(first)) if first else 0.0)


@given(st.lists(st.sets(st.integers(0, 2**40) | st.integers(0, 30), max_size=40), min_size=1, max_size=6))
def test_union_of_sorted_positions(kept: list[set[int]]) -> None:
    found = union([np.array(sorted(one), np.int64) for one in kept])
    assert found.dtype == np.int64
    assert found.tolist() == sorted(set().union(*kept))
