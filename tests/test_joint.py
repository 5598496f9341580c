"""Scales for several tasks together, and factors per tensor: gradients, correlations, directories, live tensors."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers import read_checkpoint, weights
from hostile import run
from tiny import lines, texts

from sparsetv.calibrate.joint import Member, _Merge, correlation, correlation_loss
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.compose.base import base_of
from sparsetv.compose.record import read_record
from sparsetv.errors import ProbeError, UsageError
from sparsetv.jobs.joint import _member, match_tasks
from sparsetv.jobs.options import PackOptions, RefitOptions, StitchOptions
from sparsetv.jobs.pack import pack, pack_files
from sparsetv.jobs.stitch import add, remove, stitch
from sparsetv.live.composer import Composer
from sparsetv.rules import Rule, find_rule
from sparsetv.scales import resolve_scale, tensor_factors
from sparsetv.task_vector import SparseTaskVector
from sparsetv.taskfile import write_task

NAMES = ("tuned", "other", "third")


@pytest.fixture(scope="module")
def tasks(trained: Path) -> list[SparseTaskVector]:
    return [pack_files(trained / "base", trained / name, name=name, options=PackOptions(0.2)) for name in NAMES]


def test_correlation_is_pearson_s_and_knows_neither_shift_nor_length() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(20, 3), torch.randn(20, 3)
    flat = [(each - each.mean(dim=0)).flatten().numpy() for each in (first, second)]
    wanted = float(flat[0] @ flat[1] / np.sqrt((flat[0] @ flat[0]) * (flat[1] @ flat[1])))
    assert float(correlation(first, second)) == pytest.approx(wanted, rel=1e-5)
    assert float(correlation(3 * first + torch.tensor([1.0, -5.0, 2.0]), second)) == pytest.approx(wanted, rel=1e-4)
    assert float(correlation(first, first)) == pytest.approx(1, rel=1e-6)


def members_of(trained: Path, tasks: list[SparseTaskVector]) -> list[Member]:
    base = base_of(open_checkpoint(trained / "base"), {})
    return [_member(base, tasks, task, 1.0, 2, torch.device("cpu")) for task in tasks]


@pytest.mark.parametrize("rule", [Rule("mean"), Rule("sum"), Rule("ties"), Rule("consensus", 2)])
def test_gradients_are_those_of_finite_differences(trained: Path, tasks: list[SparseTaskVector], rule: Rule) -> None:
    members = members_of(trained, tasks)
    merge = _Merge.of(members, rule)
    logs = [torch.zeros(len(merge.names), requires_grad=True) for _ in members]
    member, batch = members[1], members[1].body.objective.batches[0]

    def loss(shift: float, number: int, at: int) -> float:
        moved = [log.detach().clone().requires_grad_() for log in logs]
        with torch.no_grad():
            moved[number][at] += shift
        with member.body.tuning():
            return merge.descend(member, moved, batch)

    with member.body.tuning():
        merge.descend(member, logs, batch)
    checked = 0
    for number in range(3):
        gradient = logs[number].grad
        if gradient is None:
            continue
        at = int(gradient.abs().argmax())
        slope = (loss(0.02, number, at) - loss(-0.02, number, at)) / 0.04
        if abs(slope) > 1e-4:
            assert float(gradient[at]) == pytest.approx(
                slope, rel=0.4 if rule.name == "ties" else 0.1, abs=2e-4
            )  # ties jumps
            checked += 1
    assert checked


def test_joint_scales_raise_the_correlation_of_the_models(trained: Path, tasks: list[SparseTaskVector]) -> None:
    base = base_of(open_checkpoint(trained / "base"), {})
    found = match_tasks(base, tasks, rule=Rule(), steps=25)
    assert set(found) == set(NAMES)
    again = match_tasks(base, list(reversed(tasks)), rule=Rule(), steps=25)
    assert again == found
    fitted: list[float] = []
    plain: list[float] = []
    for member, task in zip(members_of(trained, tasks), tasks, strict=True):
        for scores, scales in ((fitted, found), (plain, None)):
            merge = _Merge.of(members_of(trained, tasks), Rule())
            logs = []
            for other in tasks:
                scale, factors = scales[other.name] if scales else (resolve_scale(other, "l2", company=3)[1], {})
                numbers = [scale * factors.get(name, 1.0) for name in merge.names]
                logs.append(torch.tensor(numbers).log().requires_grad_())
            with member.body.tuning():
                batches = member.body.objective.batches
                scores.append(float(np.mean([merge.descend(member, logs, batch) for batch in batches])))
        assert task.probe is not None
    assert np.mean(fitted) < np.mean(plain)


def test_a_joint_stitch_records_its_numbers_and_comes_apart_again(
    trained: Path, tasks: list[SparseTaskVector], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparsetv.calibrate.joint.STEPS", 4)
    options = StitchOptions(scale="joint")
    record = stitch(trained / "base", tasks[:2], tmp_path / "two", options=options)
    assert {member.policy for member in record.members} == {"joint"}
    assert all(member.factors for member in record.members)
    assert read_record(tmp_path / "two") == record
    stitch(trained / "base", tasks, tmp_path / "three", options=options)
    add(tmp_path / "two", tasks[2:])
    assert weights(tmp_path / "two") == weights(tmp_path / "three")  # law 3: a fresh fit of the live set
    remove(tmp_path / "two", ["third"])
    stitch(trained / "base", tasks[:2], tmp_path / "again", options=options)
    assert weights(tmp_path / "two") == weights(tmp_path / "again")
    remove(tmp_path / "two", ["tuned", "other"])
    assert weights(tmp_path / "two") == weights(trained / "base")
    merged = read_checkpoint(tmp_path / "three")
    base = read_checkpoint(trained / "base")
    for name, tensor in base.items():
        kept = {int(p) for task in tasks if name in task.tensors for p in task.tensors[name].positions}
        same = (merged[name] == tensor).reshape(-1)
        assert all(bool(same[i]) for i in range(tensor.numel()) if i not in kept)


def test_factors_per_tensor_are_norm_ratios_and_reach_disk_and_memory_alike(
    trained: Path, tasks: list[SparseTaskVector], tmp_path: Path
) -> None:
    factors = tensor_factors(tasks[0], "l2-tensor")
    for name, tensor in tasks[0].tensors.items():
        if name in factors:
            kept = math.sqrt(sum(float(value) ** 2 for value in tensor.values))
            assert factors[name] == pytest.approx(tasks[0].norms[name].l2 / kept, rel=1e-6)
            assert factors[name] >= 0.9999
    assert tensor_factors(tasks[0], "l2") == {}
    record = stitch(trained / "base", tasks, tmp_path / "out", options=StitchOptions(scale="l2-tensor"))
    assert {member.scale for member in record.members} == {1.0}
    base, merged = read_checkpoint(trained / "base"), read_checkpoint(tmp_path / "out")
    ordered = sorted(tasks, key=lambda task: task.digest())
    for name, whole in base.items():
        total, count = np.full(whole.numel(), -0.0, np.float32), np.zeros(whole.numel(), np.float32)
        for task in ordered:
            if name in task.tensors:
                own = task.tensors[name]
                factor = np.float32(tensor_factors(task, "l2-tensor").get(name, 1.0))
                total[own.positions] += own.values * factor
                count[own.positions] += 1
        wanted = whole.reshape(-1).numpy() + np.where(count > 0, total / np.maximum(count, 1), np.float32(0))
        assert np.array_equal(merged[name].reshape(-1).numpy(), wanted)
    composer = Composer({n: t.clone() for n, t in base.items() if t.is_floating_point()}, scale="l2-tensor")
    for task in tasks:
        composer.add(task)
    assert all(torch.equal(tensor, merged[name]) for name, tensor in composer.tensors.items())
    add(tmp_path / "out", [])
    remove(tmp_path / "out", ["*"])
    assert weights(tmp_path / "out") == weights(trained / "base")


def test_joint_needs_probes_and_is_not_for_composers(trained: Path, tasks: list[SparseTaskVector]) -> None:
    plain = pack(trained / "base", trained / "tuned", name="plain")
    base = base_of(open_checkpoint(trained / "base"), {})
    with pytest.raises(ProbeError, match="plain was packed without a probe, so its inputs are not known"):
        match_tasks(base, [plain], rule=Rule(), steps=1)
    with pytest.raises(UsageError, match="which only `stitch`, `add` and `remove` do"):
        resolve_scale(tasks[0], "joint", company=2)


def test_tasks_that_are_negated_are_not_asked_to_answer_well(trained: Path, tasks: list[SparseTaskVector]) -> None:
    base = base_of(open_checkpoint(trained / "base"), {})
    for weight in (-1.0, 0.0, float("nan")):
        with pytest.raises(UsageError, match=r"tuned has weight .*, but scales found together need weights above 0"):
            match_tasks(base, tasks, rule=Rule(), weights={"tuned": weight})


def test_what_can_be_checked_is_checked_before_models_run(
    trained: Path, tasks: list[SparseTaskVector], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("models ran")

    monkeypatch.setattr("sparsetv.jobs.joint.match_tasks", never)
    for given, weights_, message in [
        (tasks[:2], {"typo": 2.0}, "--weight names 'typo'"),
        ([tasks[0], tasks[0]], {}, "two tasks have the name"),
    ]:
        with pytest.raises(UsageError, match=message):
            stitch(trained / "base", given, tmp_path / "x", options=StitchOptions(scale="joint", weights=weights_))


def test_a_tensor_that_only_some_classes_have_touches_those_alone(
    trained: Path, tasks: list[SparseTaskVector], tmp_path: Path
) -> None:
    model = transformers.BertForTokenClassification.from_pretrained(trained / "tuned")
    assert "bert.pooler.dense.weight" not in dict(model.named_parameters())
    model.save_pretrained(tmp_path / "tagger")
    tagger = pack_files(trained / "base", tmp_path / "tagger", name="tagger", options=PackOptions(0.2))
    tuned = transformers.BertForSequenceClassification.from_pretrained(trained / "tuned")
    with torch.no_grad():
        tuned.bert.pooler.dense.weight.mul_(1.5)
    tuned.save_pretrained(tmp_path / "pooled")
    options = PackOptions(0.2, refit=RefitOptions(steps=2, batch_size=4))
    pooled = pack_files(trained / "base", tmp_path / "pooled", name="pooled", options=options)
    assert pooled.tensors["pooler.dense.weight"].nnz
    base = base_of(open_checkpoint(trained / "base"), {})
    found = match_tasks(base, [tagger, pooled], rule=Rule(), steps=2)
    assert set(found) == {"tagger", "pooled"}


def test_a_last_example_alone_is_left_out(trained: Path, tasks: list[SparseTaskVector], tmp_path: Path) -> None:
    data = {"tuned": lines(tmp_path / "d.jsonl", [{"text": text} for text in texts(17)])}
    base = base_of(open_checkpoint(trained / "base"), {p.name: p for p in (trained / "base").iterdir()})
    assert match_tasks(base, tasks[:1], rule=Rule(), data=data, steps=3)["tuned"][0] > 0


def test_a_batch_of_one_says_nothing_of_direction(trained: Path, tasks: list[SparseTaskVector]) -> None:
    member = members_of(trained, tasks)[0]
    batch: dict[str, Any] = {name: t[:1] if t.dim() else t for name, t in member.body.objective.batches[0].items()}
    with pytest.raises(ProbeError, match="correlation needs two inputs or more"):
        correlation_loss(member.body.model, batch)


def test_joint_from_the_command_line(
    trained: Path, tasks: list[SparseTaskVector], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparsetv.calibrate.joint.STEPS", 2)
    for task in tasks[:2]:
        write_task(tmp_path / f"{task.name}.stv", task)
    files = [tmp_path / f"{task.name}.stv" for task in tasks[:2]]
    result = run("stitch", trained / "base", *files, "-o", tmp_path / "out", "--scale", "joint", "--rule", "sum")
    assert result.exit_code == 0
    assert "(joint)" in result.output
    assert find_rule("sum").name == read_record(tmp_path / "out").rule


def examples(trained: Path, tmp_path: Path, *, labelled: bool) -> dict[str, str | Path]:
    """Texts for two tasks, labelled by what each fine-tune itself says, or not at all."""
    found: dict[str, str | Path] = {}
    for name in ("tuned", "other"):
        model = transformers.BertForSequenceClassification.from_pretrained(trained / name).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(trained / name)
        with torch.inference_mode():
            said = [int(model(**tokenizer(text, return_tensors="pt")).logits.argmax()) for text in texts(40)]
        pairs = zip(texts(40), said, strict=True)
        rows = [{"text": text, "label": label} if labelled else {"text": text} for text, label in pairs]
        found[name] = lines(tmp_path / f"{name}.jsonl", rows)
    return found


@pytest.mark.parametrize("labelled", [False, True])
def test_fit_finds_one_scale_per_task_on_examples(
    trained: Path, tasks: list[SparseTaskVector], tmp_path: Path, labelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparsetv.calibrate.joint.STEPS", 3)
    data = examples(trained, tmp_path, labelled=labelled)
    record = stitch(trained / "base", tasks[:2], tmp_path / "out", options=StitchOptions(scale="fit", fit=data))
    assert {member.policy for member in record.members} == {"fit"}
    assert not any(member.factors for member in record.members)
    with pytest.raises(UsageError, match=r"scale `fit` needs examples of each task: --fit NAME=FILE\.jsonl"):
        add(tmp_path / "out", tasks[2:])
    remove(tmp_path / "out", ["other"], fit={"tuned": data["tuned"]})
    stitch(
        trained / "base",
        tasks[:1],
        tmp_path / "one",
        options=StitchOptions(scale="fit", fit={"tuned": data["tuned"]}),
    )
    assert weights(tmp_path / "out") == weights(tmp_path / "one")


def test_a_fitted_scale_lowers_the_loss(trained: Path, tasks: list[SparseTaskVector], tmp_path: Path) -> None:
    data = {"tuned": examples(trained, tmp_path, labelled=True)["tuned"]}
    base = base_of(open_checkpoint(trained / "base"), {p.name: p for p in (trained / "base").iterdir()})
    found = match_tasks(base, tasks[:1], rule=Rule(), data=data, steps=40)["tuned"][0]
    member = _member(base, tasks[:1], tasks[0], 1.0, 1, torch.device("cpu"), data["tuned"])
    merge, batches = _Merge.of([member], Rule()), member.body.objective.batches

    def loss(scale: float) -> float:
        logs = [torch.full((1,), math.log(scale), requires_grad=True)]
        with member.body.tuning():
            return sum(merge.descend(member, logs, batch) for batch in batches)

    best = min((1.03**power for power in range(-160, 161)), key=loss)
    start = resolve_scale(tasks[0], "l2", company=2)[1]
    assert loss(found) < loss(start)
    assert loss(found) - loss(best) < 0.3 * (loss(start) - loss(best))


def test_examples_fit_the_scale_and_the_tasks(trained: Path, tasks: list[SparseTaskVector], tmp_path: Path) -> None:
    data = examples(trained, tmp_path, labelled=True)
    with pytest.raises(UsageError, match=r"scale `fit` needs examples for each task and no other, .* 'other'"):
        stitch(trained / "base", tasks[:1], tmp_path / "x", options=StitchOptions(scale="fit", fit=data))
    with pytest.raises(UsageError, match="the scale is 'l2'; use `--scale fit`"):
        stitch(trained / "base", tasks[:2], tmp_path / "x", options=StitchOptions(scale="l2", fit=data))
    assert not (tmp_path / "x").exists()
