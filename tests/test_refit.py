"""Refitting against torch's own optimizer and autograd; random inputs and distances against plain sums."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers import weights
from hostile import run
from tiny import SIZES, base_of_problem, make_problem
from torch.func import functional_call

from sparsetv.calibrate.refit import refit
from sparsetv.csr import SparseTensor
from sparsetv.errors import ProbeError, UsageError, VerifyError
from sparsetv.jobs.learning import Learn
from sparsetv.jobs.options import PackOptions, RefitOptions, StitchOptions
from sparsetv.jobs.pack import pack, pack_files, pack_to
from sparsetv.jobs.stitch import stitch
from sparsetv.jobs.verify import verify
from sparsetv.localize.magnitude import magnitude
from sparsetv.localize.problem import Problem
from sparsetv.localize.scope import Scope
from sparsetv.objective.body import Body
from sparsetv.objective.distil import Distance, outputs, with_targets
from sparsetv.objective.loss import Objective
from sparsetv.objective.noise import Noise
from sparsetv.objective.setup import Setup, choose_setup
from sparsetv.packing.gather import gather
from sparsetv.quantize.named import quantize
from sparsetv.scales import resolve_scale
from sparsetv.taskfile import read_task, write_task

TOKENS = {"vocabulary": 3000, "shortest": 3, "longest": 9, "first": 7, "last": 8, "pad": 1}


def test_random_tokens_are_seeded_and_framed() -> None:
    noise = Noise(Setup("tokens", 5, 0, TOKENS), batches=3, batch_size=400)
    assert len(noise) == 3
    for name, tensor in noise[1].items():
        assert torch.equal(tensor, Noise(Setup("tokens", 5, 0, TOKENS), batches=9, batch_size=400)[1][name])
        assert not torch.equal(tensor, noise[2][name])
    ids, mask = noise[0]["input_ids"], noise[0]["attention_mask"]
    lengths = mask.sum(dim=1)
    assert int(lengths.min()) == 3
    assert int(lengths.max()) == 9
    assert set(ids[:, 0].tolist()) == {7}
    assert set(ids[torch.arange(400), lengths - 1].tolist()) == {8}
    assert set(ids[mask == 0].tolist()) == {1}
    assert int(ids.max()) < 3000
    inner = [ids[row, 1 : int(lengths[row]) - 1].float().mean() for row in range(400) if lengths[row] > 2]
    assert np.mean(inner[0::2]) < 0.85 * np.mean(inner[1::2])  # low ids are commoner in every other sequence
    assert [len(batch) for batch in noise[1:]] == [2, 2]
    with pytest.raises(IndexError):
        noise[3]


def test_random_images_have_unit_deviation() -> None:
    params = {"channels": 3, "height": 20, "width": 12}
    images = Noise(Setup("pixels", 1, 0, params), batches=1, batch_size=50)[0]["pixel_values"]
    assert images.shape == (50, 3, 20, 12)
    assert float(images.std()) == pytest.approx(1, abs=0.01)


def classifier(classes: int) -> Any:
    torch.manual_seed(classes)
    return transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES, num_labels=classes)).eval()


def test_the_distance_is_1_at_the_base_and_0_at_the_teacher() -> None:
    torch.manual_seed(0)
    base, teacher = classifier(3), classifier(3)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        teacher.classifier.bias.add_(5.0)  # the same for all classes: says nothing
    setup = choose_setup(base, seed=3)
    batches = with_targets(teacher, Noise(setup, batches=4, batch_size=5))
    distance = Distance(base, batches)
    with torch.no_grad():
        assert sum(float(distance(base, batch)) for batch in batches) / 4 == pytest.approx(1, rel=1e-5)
        assert float(distance(teacher, batches[0])) < 1e-9
        logits = [
            model(input_ids=batches[0]["input_ids"], attention_mask=batches[0]["attention_mask"]).logits
            for model in (base, teacher)
        ]
        centred = [each - each.mean(dim=1, keepdim=True) for each in logits]
        apart = float((centred[0] - centred[1]).square().mean())
        assert float(distance(base, batches[0])) * distance._whole == pytest.approx(apart, rel=1e-4)
    with pytest.raises(ProbeError, match="fine-tuning changed no output on these inputs"):
        Distance(teacher, batches)


def test_wide_outputs_are_projected_and_keep_their_distances_on_average() -> None:
    config = transformers.GPT2Config(vocab_size=500, n_positions=16, n_embd=8, n_layer=1, n_head=2)
    torch.manual_seed(1)
    first, second = (transformers.GPT2LMHeadModel(config).eval() for _ in range(2))
    mask = torch.tensor([[1] * 6, [1, 1, 1, 1, 0, 0]])
    inputs = {"input_ids": torch.arange(12).reshape(2, 6), "attention_mask": mask}
    with torch.no_grad():
        whole = first(**inputs).logits - second(**inputs).logits
        whole = (whole - whole.mean(dim=-1, keepdim=True))[inputs["attention_mask"].bool()]
        found = [outputs(first, inputs, seed=seed) - outputs(second, inputs, seed=seed) for seed in range(60)]
    assert found[0].shape == (10, 64)
    assert not torch.equal(found[0], found[1])
    average = np.mean([float(each.square().sum()) for each in found])
    assert average == pytest.approx(float(whole.square().sum()), rel=0.05)


def test_a_body_alone_is_matched_by_its_hidden_states() -> None:
    body = transformers.BertModel(transformers.BertConfig(**SIZES)).eval()
    inputs = {"input_ids": torch.full((2, 4), 5), "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])}
    assert outputs(body, inputs, seed=0).shape == (6, 16)


def kept(problem: Problem) -> dict[str, SparseTensor]:
    return gather(problem.vector, magnitude(problem).mask)


@pytest.mark.parametrize("values", ["exact", "sign", "q2"])
def test_refitting_is_adam_on_the_kept_values(trained: Path, values: str) -> None:
    problem = make_problem(trained, density=0.1)
    assert problem.objective is not None
    objective, base, steps, rate, scale = problem.objective, base_of_problem(problem), 12, 0.05, 1.5
    tensors = quantize(kept(problem), values)
    signs = values != "exact"
    found = refit(
        Body(problem.vector.base, problem.names, objective),
        tensors,
        scales=dict.fromkeys(tensors, scale),
        shared=signs,
        steps=steps,
        rate=rate,
    )
    used = {name: tensor for name, tensor in tensors.items() if tensor.nnz}
    starts = {name: torch.from_numpy(tensor.values) * scale for name, tensor in used.items()}
    signed = {name: torch.sign(start) for name, start in starts.items()}
    tables = {name: sorted(set(start.abs().tolist())) for name, start in starts.items()}
    codes = {n: torch.tensor([tables[n].index(v) for v in s.abs().tolist()]) for n, s in starts.items()}
    free = {n: (torch.tensor(tables[n]) if signs else s.clone()).requires_grad_() for n, s in starts.items()}
    count = sum(len(start) for start in starts.values())
    size = rate * math.sqrt(sum(float(start.square().sum()) for start in starts.values()) / count)
    optimizer = torch.optim.Adam(free.values(), lr=1.0, betas=(0.9, 0.99), eps=1e-8)
    for step in range(steps):
        optimizer.zero_grad()
        moved = {}
        for name, tensor in used.items():
            deltas = free[name][codes[name]] * signed[name] if signs else free[name]
            index = (torch.from_numpy(tensor.positions),)
            flat = base[name].reshape(-1).index_put(index, deltas, accumulate=True)
            moved[f"bert.{name}"] = flat.reshape(tensor.shape)
        batch = objective.batches[step % len(objective.batches)]
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        logits = functional_call(objective.model, moved, kwargs=inputs).logits
        torch.nn.functional.cross_entropy(logits, batch["labels"]).backward()  # type: ignore[no-untyped-call]
        share = min(1, (step + 1) / 5) * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.param_groups[0]["lr"] = size * share
        optimizer.step()
        with torch.no_grad():
            for parameter in free.values() if signs else ():
                parameter.clamp_(min=0)
    for name in used.keys() - {name for name in used if name.endswith("key.bias")}:  # 0 but for rounding
        tensor = used[name]
        deltas = (free[name][codes[name]] * signed[name] if signs else free[name]).detach()
        near = 2e-3 if signs else 8e-3  # 8 bits are kept: half a unit is 0.4 %
        reached = torch.from_numpy(found.tensors[name].values)
        torch.testing.assert_close(reached, deltas, rtol=near, atol=0.02 * size)
        assert np.array_equal(found.tensors[name].positions, tensor.positions)
        assert not len(found.tensors[name].corrections.index)


def test_values_are_trained_as_the_base_s_dtype_rounds_them(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = make_problem(trained, density=0.1)
    assert problem.objective is not None
    from sparsetv.calibrate import refit as module

    name = next(name for name, tensor in kept(problem).items() if tensor.nnz)
    tensors = {n: SparseTensor("BF16", t.shape, t.positions, t.values) for n, t in kept(problem).items()}
    seen = []
    plain = problem.objective.loss

    def watched(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        live = dict(model.named_parameters())[f"bert.{name}"].detach().reshape(-1)
        seen.append(live[torch.from_numpy(tensors[name].positions)].clone())
        return plain(model, batch)

    objective = Objective(problem.objective.model, problem.objective.batches, watched)
    body = Body(problem.vector.base, problem.names, objective)
    module.refit(body, tensors, scales=dict.fromkeys(tensors, 1.0), steps=3, rate=0.15)
    assert len(seen) == 3
    assert all(torch.equal(values, values.bfloat16().float()) for values in seen)
    assert not torch.equal(seen[1], seen[2])


@pytest.fixture(scope="module")
def packed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = PackOptions(density=0.1, refit=RefitOptions(steps=30, batch_size=8))
    path = tmp_path_factory.mktemp("packed") / "refit.stv"
    pack_to(path, trained / "base", trained / "tuned", options=options)
    return path


def test_a_refitted_file_answers_nearer_to_the_fine_tune(trained: Path, packed: Path, tmp_path: Path) -> None:
    plain = pack_files(trained / "base", trained / "tuned", options=PackOptions(density=0.1))
    task = read_task(packed)
    assert task.recipe.values == "refit"
    assert not task.exact
    assert task.probe is not None
    assert task.probe.scale == 1.0
    assert plain.probe is not None
    assert 0 < task.probe.distance < 1
    assert task.probe.distance != plain.probe.distance
    assert {n: t.positions.tolist() for n, t in task.tensors.items()} == {
        n: t.positions.tolist() for n, t in plain.tensors.items()
    }
    stitch(trained / "base", [packed], tmp_path / "from-refit")
    stitch(trained / "base", [plain], tmp_path / "from-match")
    teacher = transformers.BertForSequenceClassification.from_pretrained(trained / "tuned").eval()
    setup = choose_setup(teacher, frame=(2, 3), seed=99)
    batches = with_targets(teacher, Noise(setup, batches=8, batch_size=16))
    apart = []
    for name in ("from-refit", "from-match"):
        model = transformers.BertForSequenceClassification.from_pretrained(tmp_path / name).eval()
        with torch.no_grad():
            apart.append(
                np.mean([float((outputs(model, batch, seed=0) - batch["target"]).square().mean()) for batch in batches])
            )
    assert apart[0] < 0.8 * apart[1]


def test_a_refitted_file_is_the_same_every_time(trained: Path, packed: Path, tmp_path: Path) -> None:
    options = PackOptions(density=0.1, refit=RefitOptions(steps=30, batch_size=8))
    pack_to(tmp_path / "refit.stv", trained / "base", trained / "tuned", options=options)
    assert (tmp_path / "refit.stv").read_bytes() == packed.read_bytes()


def test_a_refitted_file_verifies_against_its_fine_tune_alone(trained: Path, packed: Path) -> None:
    checks = {check.name: check.found for check in verify(packed, base=trained / "base", finetuned=trained / "tuned")}
    assert "kept entries were refitted; the whole task vector has the recorded norms" in checks["entries"]
    with pytest.raises(VerifyError, match="the task vector has other norms than the file"):
        verify(packed, base=trained / "base", finetuned=trained / "other")


def test_refitted_signs_keep_one_magnitude_per_tensor(trained: Path, tmp_path: Path) -> None:
    options = PackOptions(density=0.1, values="sign", refit=RefitOptions(steps=10, batch_size=8))
    task = pack_files(trained / "base", trained / "tuned", name="signs", options=options)
    assert task.recipe.values == "sign-refit"
    assert resolve_scale(task, "auto", company=3) == ("none", 1.0)
    for tensor in task.tensors.values():
        assert len(set(np.abs(tensor.values).tolist())) <= 1
    write_task(tmp_path / "s.stv", task)
    checks = {c.name: c.found for c in verify(tmp_path / "s.stv", base=trained / "base", finetuned=trained / "tuned")}
    assert "kept entries have the fine-tune's signs" in checks["entries"]


def test_examples_serve_as_well_and_their_labels_are_not_used(trained: Path, tmp_path: Path) -> None:
    how = RefitOptions(data=trained / "data.jsonl", shots=4, steps=4, batch_size=6)
    task = pack_files(trained / "base", trained / "tuned", options=PackOptions(density=0.1, refit=how))
    unlabelled = tmp_path / "unlabelled.jsonl"
    rows = [line.split(', "label"')[0] + "}" for line in (trained / "data.jsonl").read_text().splitlines()]
    unlabelled.write_text("\n".join(rows))
    whole = RefitOptions(data=unlabelled, shots=None, steps=4, batch_size=6)
    again = pack_files(trained / "base", trained / "tuned", options=PackOptions(density=0.1, refit=whole))
    assert again.recipe.values == task.recipe.values == "refit"


def test_refitting_from_the_command_line(trained: Path, tmp_path: Path) -> None:
    task = tmp_path / "t.stv"
    words = ["--density", "0.1", "--refit", "random", "--refit-steps", "2"]
    result = run("pack", trained / "base", trained / "tuned", "-o", task, *words)
    assert result.exit_code == 0
    assert read_task(task).recipe.values == "refit"
    assert "values refit" in run("inspect", task).output
    stitch(trained / "base", [task], tmp_path / "out", options=StitchOptions(scale="auto"))
    assert weights(tmp_path / "out")


def test_what_lies_between_blocks_and_head_is_kept_at_a_density_of_its_own(trained: Path, tmp_path: Path) -> None:
    model = transformers.BertForSequenceClassification.from_pretrained(trained / "tuned")
    torch.manual_seed(5)
    with torch.no_grad():
        model.bert.pooler.dense.weight.add_(0.3 * torch.randn_like(model.bert.pooler.dense.weight))
    model.save_pretrained(tmp_path / "tuned")
    steps = RefitOptions(steps=2, batch_size=4)
    with_tail = pack_files(trained / "base", tmp_path / "tuned", options=PackOptions(0.1, refit=steps))
    pooler = with_tail.tensors["pooler.dense.weight"]
    assert pooler.nnz == round(0.1 * pooler.numel)
    assert list(with_tail.tensors) == sorted(with_tail.tensors)
    assert "pooler.dense.weight" not in dict(with_tail.finetuned.outside)
    steps = RefitOptions(steps=2, batch_size=4, tail=0)
    without = pack_files(trained / "base", tmp_path / "tuned", options=PackOptions(0.1, refit=steps))
    assert "pooler.dense.weight" not in without.tensors
    assert "pooler.dense.weight" in dict(without.finetuned.outside)
    shared = without.tensors.keys() & with_tail.tensors.keys()
    assert all(np.array_equal(without.tensors[n].positions, with_tail.tensors[n].positions) for n in shared)
    write_task(tmp_path / "t.stv", with_tail)
    assert verify(tmp_path / "t.stv", base=trained / "base", finetuned=tmp_path / "tuned")


def test_a_narrower_scope_has_no_tail_and_what_is_excluded_stays_out(trained: Path) -> None:
    for words in (["*attention*", "blocks"], ["blocks", "!*bias"]):
        scope = Scope.parse(words)
        options = PackOptions(0.2, scope=scope, refit=RefitOptions(steps=1, batch_size=4))
        task = pack_files(trained / "base", trained / "tuned", options=options)
        assert set(task.tensors) <= set(Scope("body", scope.include, scope.exclude).covered(task.base.names))


def test_packing_without_models_does_not_pretend_to_refit(trained: Path) -> None:
    with pytest.raises(UsageError, match="refitting runs the models; use `pack_files` or `pack_to`"):
        pack(trained / "base", trained / "tuned", options=PackOptions(refit=RefitOptions()))
    with pytest.raises(UsageError, match="refitting starts from the probe's scale; leave out --no-probe"):
        pack_files(trained / "base", trained / "tuned", options=PackOptions(refit=RefitOptions(), probe=False))


def test_learning_needs_a_device_that_is_there(trained: Path) -> None:
    options = PackOptions(learn=Learn(device="tpu"), refit=RefitOptions(steps=1))
    with pytest.raises(Exception, match="device 'tpu'"):
        pack_files(trained / "base", trained / "tuned", options=options)
