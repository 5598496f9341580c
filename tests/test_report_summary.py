"""What results come to, by hand and by plain loops."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import Row

from sparsetv.report.summary import Score, average, boards, number, retentions, score


def test_a_score_beside_base_and_fine_tune() -> None:
    found = score(0.85, base=0.5, finetuned=0.9)
    assert found.normalised == pytest.approx(0.944444, abs=1e-6)
    assert found.gap_closed == pytest.approx(0.875)
    assert score(0.4, base=0.5, finetuned=0.9).gap_closed == pytest.approx(-0.25)
    assert score(0.5, base=0.5, finetuned=0.5) == Score(0.5, 1.0, None)
    assert score(0.5, base=None, finetuned=0.5) == Score(0.5, 1.0, None)
    assert score(0.5, base=0.1, finetuned=None) == Score(0.5, None, None)
    assert score(0.5, base=0.1, finetuned=0.0) == Score(0.5, None, None)
    assert score(None, base=0.1, finetuned=0.9) == Score(None, None, None)


def test_averages_are_of_all_tasks_or_of_none() -> None:
    scores = [Score(0.5, 0.8, 0.5), Score(0.7, 0.9, None)]
    found = average(scores)
    assert found.value == pytest.approx(0.6)
    assert found.normalised == pytest.approx(0.85)
    assert found.gap_closed == 0.5
    assert average([*scores, Score(None)]) == Score(None)
    assert average([]) == Score(None)


@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["base", "finetuned", "m", "n"]), st.sampled_from("abc")), st.floats(0.01, 1)
    )
)
def test_boards_are_plain_loops(values: dict[tuple[str, str], float]) -> None:
    rows = [{"of": {"set": "all", "method": m, "task": t}, "value": value} for (m, t), value in values.items()]
    found = boards(rows, ("method",))
    assert len(found) == (1 if values else 0)
    for line in found[0].lines if found else ():
        tasks = {task for _, task in values}
        assert set(found[0].tasks) == tasks
        method = line.key[0]
        for task, each in line.scores.items():
            value, base, tuned = (values.get((name, task)) for name in (method, "base", "finetuned"))
            assert each.value == value
            assert each.normalised == (None if tuned is None or value is None else pytest.approx(value / tuned))
            if value is not None and base is not None and tuned is not None and tuned > base:
                assert each.gap_closed == pytest.approx((value - base) / (tuned - base))
            else:
                assert each.gap_closed is None
        whole = [values[method, task] for task in tasks if (method, task) in values]
        expected = sum(whole) / len(whole) if len(whole) == len(tasks) else None
        assert line.average.value == (None if expected is None else pytest.approx(expected))


def test_sets_and_keys_tell_lines_apart_and_later_rows_win() -> None:
    rows: list[Row] = [
        {"of": {"set": "x", "method": "base", "density": 0.0, "task": "a"}, "value": 0.2},
        {"of": {"set": "x", "method": "finetuned", "density": 0.0, "task": "a"}, "value": 0.8},
        {"of": {"set": "x", "method": "m", "density": 0.01, "task": "a"}, "value": 0.3},
        {"of": {"set": "x", "method": "m", "density": 0.05, "task": "a"}, "value": 0.1},
        {"of": {"set": "x", "method": "m", "density": 0.05, "task": "a"}, "value": 0.5},
        {"of": {"set": "x", "method": "m", "density": 0.05, "task": ""}, "label": "M", "data": "none"},
        {"of": {"set": "y", "method": "m", "density": 0.05, "task": "b"}, "value": 0.5},
        {"of": "nothing"}, {}, {"of": {"method": 3, "task": "a"}}, {"of": {"method": "m"}},
    ]  # fmt: skip
    x, y = boards(rows, ("method", "density"))
    assert [line.key for line in x.lines] == [("base", 0.0), ("finetuned", 0.0), ("m", 0.01), ("m", 0.05)]
    assert [line.label for line in x.lines] == ["base", "fine-tuned", "m", "M"]
    assert x.lines[3].average.normalised == pytest.approx(0.625)
    assert x.lines[3].average.gap_closed == pytest.approx(0.5)
    assert x.lines[3].whole["data"] == "none"
    assert (y.name, y.tasks, y.lines[0].average) == ("y", ("b",), Score(0.5))


def test_retention_is_over_the_base() -> None:
    rows: list[Row] = [
        {"of": {"method": "m", "held_out": "a"}, "label": "M", "retained": 0.6, "base": 0.8, "merged_average": 0.9},
        {"of": {"method": "m", "held_out": "b"}, "label": "M", "retained": 0.5, "base": 0.5, "merged_average": 0.7},
        {"of": {"method": "n", "held_out": "a"}, "retained": 0.4, "base": 0.8, "merged_average": 0.5},
    ]
    m, n = retentions(rows)
    assert (m.label, m.kept["b"]) == ("M", 1.0)
    assert m.kept["a"] == pytest.approx(0.75)
    assert m.average == pytest.approx(0.875)
    assert m.merged == pytest.approx(0.8)
    assert (n.label, n.kept["b"], n.average, n.merged) == ("n", None, None, 0.5)


@pytest.mark.parametrize("value", [None, "0.5", True, math.nan, math.inf, [1], 10**400])
def test_what_is_no_number_counts_as_missing(value: Any) -> None:
    assert number({"value": value}, "value") is None
