"""Law 2: several tasks meet in float32, in canonical order, with one rounding; what nobody keeps is the base's bits."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import (
    TORCH,
    Tensors,
    bits,
    floats,
    kept_positions,
    pack_pair,
    patterns,
    read_checkpoint,
    tree,
    weights,
    write_checkpoint,
)
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from oracle import merged

from sparsetv.errors import BaseMismatchError, NonFiniteError, UsageError
from sparsetv.jobs.options import StitchOptions
from sparsetv.jobs.stitch import stitch
from sparsetv.task_vector import SparseTaskVector

pytestmark = pytest.mark.usefixtures("no_sync")

RULES = ["mean", "sum", "ties", "consensus"]
FACTORS = [1.0, 0.5, 2.0, -1.0, 0.3, 0.0]
NAMES = ["first", "second", "third", "fourth"]


def assert_same(found: Tensors, wanted: Tensors) -> None:
    assert sorted(found) == sorted(wanted)
    for name in wanted:
        assert found[name].dtype == wanted[name].dtype
        np.testing.assert_array_equal(bits(found[name]), bits(wanted[name]), err_msg=name)


@st.composite
def families(draw: st.DrawFn, *, negative_zero: bool) -> tuple[Tensors, dict[str, Tensors]]:
    """A base and 2 to 4 fine-tunes that overlap a lot; -0.0 in the base only where asked for."""
    element = patterns(largest=135)
    count = 10
    whole = st.lists(element, min_size=count, max_size=count)
    base: Tensors = {}
    for name in ["a", "b"]:
        numbers = floats(draw(whole))
        numbers = numbers if negative_zero else torch.where(numbers == 0, torch.zeros(count), numbers)
        base[name] = numbers.reshape(2, 5).to(TORCH[draw(st.sampled_from(sorted(TORCH)))])
        if not negative_zero:
            base[name] = torch.where(base[name] == 0, torch.zeros_like(base[name]), base[name])
    tuned: dict[str, Tensors] = {}
    for task in NAMES[: draw(st.integers(2, 4))]:
        tuned[task] = {}
        for name, tensor in base.items():
            step = floats(draw(whole)).reshape(2, 5)
            relation = draw(st.sampled_from(["replace", "move", "halves"]))
            if relation == "halves":
                step = torch.tensor(draw(st.lists(st.sampled_from([-0.5, 0.5]), min_size=count, max_size=count)))
                step = step.reshape(2, 5)
            moved = step if relation == "replace" else tensor.float() + step
            tuned[task][name] = moved.to(tensor.dtype)
    return base, tuned


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=60)
@given(data=st.data())
def test_merging_follows_the_formula(fresh: Callable[[], Path], data: st.DataObject, rule: str) -> None:
    base, tuned = data.draw(families(negative_zero=False))
    path = fresh()
    density = data.draw(st.sampled_from([0.1, 0.5, 1.0]))
    tasks = [pack_pair(path, base, model, density=density, name=name) for name, model in tuned.items()]
    assume(len({task.digest() for task in tasks}) == len(tasks))
    weight = {name: data.draw(st.sampled_from(FACTORS)) for name in tuned}
    number = data.draw(st.sampled_from([1.0, 0.7]))
    options = StitchOptions(rule=rule, scale=number, weights=weight)
    record = stitch(path / "base", tasks, path / "merged", options=options)
    scale = {name: weight[name] * number for name in tuned}
    assert {member.name: member.coefficient for member in record.members} == scale
    assert_same(read_checkpoint(path / "merged"), merged(base, tuned, tasks, rule=rule, scale=scale))


def three_tasks(path: Path) -> tuple[Tensors, dict[str, Tensors], list[SparseTaskVector]]:
    """A base and three overlapping tasks of it."""
    generator = torch.Generator().manual_seed(11)
    base = {"a": torch.randn(6, 5, generator=generator).bfloat16(), "b": torch.randn(20, generator=generator)}
    tuned: dict[str, Tensors] = {name: {} for name in NAMES[:3]}
    for model in tuned.values():
        for key, tensor in base.items():
            model[key] = tensor + torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
    return base, tuned, [pack_pair(path, base, model, density=0.6, name=name) for name, model in tuned.items()]


@pytest.mark.parametrize("rule", RULES)
def test_order_of_arguments_does_not_show(tmp_path: Path, rule: str) -> None:
    base, tuned, tasks = three_tasks(tmp_path)
    options = StitchOptions(rule=rule, scale=0.9, weights={"second": 0.3})
    results = []
    for number, order in enumerate(itertools.permutations(tasks)):
        stitch(tmp_path / "base", order, tmp_path / f"merged-{number}", options=options)
        results.append(tree(tmp_path / f"merged-{number}"))
    assert all(result == results[0] for result in results)
    scale = {"first": 0.9, "second": 0.3 * 0.9, "third": 0.9}
    wanted = merged(base, tuned, tasks, rule=rule, scale=scale)
    assert_same(read_checkpoint(tmp_path / "merged-0"), wanted)


def test_addition_order_would_show(tmp_path: Path) -> None:
    """The premise of canonical order: float32 sums of these terms differ by order."""
    base = {"w": torch.zeros(64)}
    generator = torch.Generator().manual_seed(5)
    tuned = {name: {"w": torch.randn(64, generator=generator) * 10.0 ** (3 * i)} for i, name in enumerate(NAMES[:3])}
    tasks = [pack_pair(tmp_path, base, model, density=1.0, name=name) for name, model in tuned.items()]
    sums = set()
    for order in itertools.permutations(tuned.values()):
        sums.add(bits((order[0]["w"] + order[1]["w"]) + order[2]["w"]).tobytes())
    assert len(sums) > 1
    stitch(tmp_path / "base", tasks, tmp_path / "merged", options=StitchOptions(rule="sum", scale="none"))
    first, second, third = (tuned[task.name]["w"] for task in sorted(tasks, key=lambda task: task.digest()))
    np.testing.assert_array_equal(bits(read_checkpoint(tmp_path / "merged")["w"]), bits((first + second) + third))


def test_the_result_is_rounded_once(tmp_path: Path) -> None:
    """Adding bf16 deltas one after the other in bf16 would lose both of these small steps."""
    base = {"w": torch.full((4,), 256.0).bfloat16()}
    small = {"w": base["w"].clone()}
    small["w"][:] = 258.0  # one bf16 step of 2
    tuned = {"first": small, "second": {"w": small["w"].clone()}}
    tuned["second"]["w"][0] = 260.0
    tasks = [pack_pair(tmp_path, base, model, density=1.0, name=name) for name, model in tuned.items()]
    options = StitchOptions(rule="sum", scale="none", weights={"first": 0.5, "second": 0.5})
    stitch(tmp_path / "base", tasks, tmp_path / "merged", options=options)
    # 256 + 0.5*2 + 0.5*4 = 259 (a tie, to even 260); 256 + 0.5*2 + 0.5*2 = 258: one step twice halved, not lost
    assert read_checkpoint(tmp_path / "merged")["w"].tolist() == [260.0, 258.0, 258.0, 258.0]


def test_untouched_tensors_and_entries_are_the_bases_bits(tmp_path: Path) -> None:
    base = {"w": floats([0x8000_0000, 0x0000_0001, 0x3F80_0001, 0x4000_0000]), "never": floats([0x8000_0000] * 3)}
    tuned = {name: {key: tensor.clone() for key, tensor in base.items()} for name in NAMES[:2]}
    tuned["first"]["w"][3] = 5.0
    tuned["second"]["w"][2] = -5.0
    tasks = [pack_pair(tmp_path, base, model, density=1 / 7, name=name) for name, model in tuned.items()]
    assert [kept_positions(task)["w"] for task in tasks] == [[3], [2]]
    stitch(tmp_path / "base", tasks, tmp_path / "merged", options=StitchOptions(scale="none"))
    found = read_checkpoint(tmp_path / "merged")
    assert bits(found["w"])[:2].tolist() == bits(base["w"])[:2].tolist()
    assert found["w"][2:].tolist() == [-5.0, 5.0]
    np.testing.assert_array_equal(bits(found["never"]), bits(base["never"]))


def test_ties_drops_what_cancels(tmp_path: Path) -> None:
    base = {"w": torch.tensor([1.0, 1.0, 1.0])}
    tuned = {"first": {"w": torch.tensor([3.0, 4.0, 2.0])}, "second": {"w": torch.tensor([-1.0, -1.0, 4.0])}}
    tasks = [pack_pair(tmp_path, base, model, density=1.0, name=name) for name, model in tuned.items()]
    stitch(tmp_path / "base", tasks, tmp_path / "merged", options=StitchOptions(rule="ties", scale="none"))
    assert read_checkpoint(tmp_path / "merged")["w"].tolist() == [1.0, 4.0, 3.0]


def test_no_task_gives_the_base(tmp_path: Path) -> None:
    base = {"a": torch.randn(3, 3).half(), "b": floats([0x7FC0_0001, 0x7F80_0000, 0x8000_0000])}
    write_checkpoint(tmp_path / "base", base, split={"a": 0, "b": 1})
    stitch(tmp_path / "base", [], tmp_path / "merged")
    assert weights(tmp_path / "merged") == weights(tmp_path / "base")


def negative_zeros(path: Path, tuned: Tensors, *, weight: float, rule: str) -> list[int]:
    """Bits of a base of -0.0 and 1 after one task that keeps every entry."""
    base = {"w": torch.tensor([-0.0, 1.0])}
    task = pack_pair(path, base, tuned, density=1.0)
    stitch(
        path / "base", [task], path / "merged", options=StitchOptions(rule=rule, scale="none", weights={"task": weight})
    )
    found: list[int] = bits(read_checkpoint(path / "merged")["w"]).view(np.uint32).tolist()
    return found


def test_ties_keeps_a_negative_zero_that_did_not_change(tmp_path: Path) -> None:
    found = negative_zeros(tmp_path, {"w": torch.tensor([-0.0, 2.0])}, weight=1.0, rule="ties")
    assert found == [0x8000_0000, 0x4000_0000]


@pytest.mark.parametrize("rule", ["mean", "sum"])
def test_sign_of_zero_follows_the_formula(tmp_path: Path, rule: str) -> None:
    """-0.0 + -1 * +0.0 is -0.0: a sum must not start from +0.0 (SPEC 10.1)."""
    found = negative_zeros(tmp_path, {"w": torch.tensor([-0.0, 2.0])}, weight=-1.0, rule=rule)
    assert found == [0x8000_0000, 0x0000_0000]


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=30, phases=[Phase.generate])
@given(data=st.data())
def test_zeros_of_both_signs_follow_the_formula(fresh: Callable[[], Path], data: st.DataObject, rule: str) -> None:
    path = fresh()
    zeros = st.lists(st.sampled_from([0x8000_0000, 0, 0x3F80_0000, 0xBF80_0000]), min_size=8, max_size=8)
    base = {"w": floats(data.draw(zeros))}
    tuned = {name: {"w": floats(data.draw(zeros))} for name in NAMES[: data.draw(st.integers(1, 2))]}
    density = data.draw(st.sampled_from([0.5, 1.0]))
    tasks = [pack_pair(path, base, model, density=density, name=name) for name, model in tuned.items()]
    assume(len({task.digest() for task in tasks}) == len(tasks))
    weight = {name: data.draw(st.sampled_from([1.0, -1.0, 0.0])) for name in tuned}
    options = StitchOptions(rule=rule, scale="none", weights=weight)
    stitch(path / "base", tasks, path / "merged", options=options)
    assert_same(read_checkpoint(path / "merged"), merged(base, tuned, tasks, rule=rule, scale=weight))


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_overflow_is_refused_and_nothing_is_written(tmp_path: Path, dtype: str) -> None:
    huge = float(torch.finfo(TORCH[dtype]).max)
    base = {"w": torch.tensor([1.0, huge]).to(TORCH[dtype])}
    tuned = {"w": torch.tensor([2.0, huge / 2]).to(TORCH[dtype])}
    task = pack_pair(tmp_path, base, tuned, density=1.0)
    with pytest.raises(NonFiniteError, match=rf"w: .* position 1 overflows {dtype}; use a smaller scale"):
        stitch(tmp_path / "base", [task], tmp_path / "merged", options=StitchOptions(scale=-3.0))
    assert not (tmp_path / "merged").exists()


def test_another_base_is_refused(tmp_path: Path) -> None:
    base = {"same": torch.ones(3), "other": torch.ones(3)}
    task = pack_pair(tmp_path, base, {name: tensor * 2 for name, tensor in base.items()}, density=1.0)
    write_checkpoint(tmp_path / "changed", {**base, "other": torch.tensor([1.0, 1.0, 1.5])})
    write_checkpoint(tmp_path / "reshaped", {**base, "other": torch.ones(4)})
    write_checkpoint(tmp_path / "lacking", {"same": base["same"]})
    for found, message in [
        ("changed", r"packed against base [0-9a-f]{12}… but .*changed is [0-9a-f]{12}… \(first difference: other\)"),
        ("reshaped", r"other is F32 \(3,\) for task, but F32 \(4,\) in base .*reshaped; pass the base"),
        ("lacking", r"task needs tensor other, which base .*lacking lacks; pass the base"),
    ]:
        with pytest.raises(BaseMismatchError, match=message):
            stitch(tmp_path / found, [task], tmp_path / "merged")
        assert not (tmp_path / "merged").exists()


def test_the_same_task_twice_is_refused(tmp_path: Path) -> None:
    base = {"w": torch.ones(3)}
    tuned = {"w": torch.tensor([1.0, 2.0, 3.0])}
    task = pack_pair(tmp_path, base, tuned, density=1.0)
    twin = pack_pair(tmp_path, base, tuned, density=1.0, name="twin")
    namesake = pack_pair(tmp_path, base, {"w": torch.zeros(3)}, density=1.0)
    with pytest.raises(UsageError, match=r"two tasks have the content '[0-9a-f]{40}'"):
        stitch(tmp_path / "base", [task, twin], tmp_path / "merged")
    with pytest.raises(UsageError, match="two tasks have the name 'task'"):
        stitch(tmp_path / "base", [task, namesake], tmp_path / "merged")


def test_unknown_rule_scale_and_weight_are_refused(tmp_path: Path) -> None:
    base = {"w": torch.ones(3)}
    task = pack_pair(tmp_path, base, {"w": torch.zeros(3)}, density=1.0)
    for options, message in [
        (StitchOptions(rule="median"), "unknown rule 'median'; known are mean, sum, ties"),
        (
            StitchOptions(scale="best"),
            "unknown scale 'best'; known are auto, none, l2, l2-tensor, graft, match, joint, fit",
        ),
        (StitchOptions(weights={"tusk": 1.0}), "--weight names 'tusk', but the tasks are task"),
    ]:
        with pytest.raises(UsageError, match=message):
            stitch(tmp_path / "base", [task], tmp_path / "merged", options=options)
        assert not (tmp_path / "merged").exists()
