"""Every localizer against its equation: autograd through a functional call, or plain loops."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers import write_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import SIZES, base_of_problem, make_problem
from torch.func import functional_call
from torch.nn import functional

from sparsetv import difference
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.difference import TaskVector, task_vector
from sparsetv.errors import CheckpointError, DensityError, NonFiniteError, NotFoundError, ProbeError, UsageError
from sparsetv.jobs.learning import Learn, make_objective
from sparsetv.jobs.localize import scope_names
from sparsetv.localize import grafting, learned
from sparsetv.localize.names import LOCALIZERS, check_settings, run_localizer
from sparsetv.localize.problem import Localized, Problem
from sparsetv.localize.random import random
from sparsetv.localize.ranking import rank
from sparsetv.localize.scope import Scope
from sparsetv.localize.tall import tall
from sparsetv.objective.body import Body, delta_of
from sparsetv.objective.loss import Objective
from sparsetv.packing.carried import carry

Gates = dict[str, torch.Tensor]


def deltas_of(problem: Problem) -> Gates:
    """Fine-tuned minus base under the live model's names."""
    found = {}
    for name in problem.names:
        base = problem.vector.base.bits(name).view(np.float32)
        tuned = problem.vector.finetuned_bits(name).view(np.float32)
        found[name] = torch.from_numpy(tuned - base).reshape(problem.vector.base.shape(name))
    return found


def loss_at(problem: Problem, weights: Gates, batch: Any) -> torch.Tensor:
    """Cross-entropy with some of the model's weights replaced; base names are the model's without `bert.`."""
    assert problem.objective is not None
    own = {f"bert.{name}": tensor for name, tensor in weights.items()}
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    logits = functional_call(problem.objective.model, own, kwargs=inputs).logits
    return functional.cross_entropy(logits, batch["labels"])


def largest(scores: Gates, k: int) -> dict[str, list[int]]:
    """Positions of the k highest scores by a full stable sort."""
    entries = [(-float(s), name, i) for name in sorted(scores) for i, s in enumerate(scores[name].reshape(-1).tolist())]
    entries.sort(key=lambda entry: entry[0])
    kept: dict[str, list[int]] = {name: [] for name in scores}
    for _, name, position in entries[:k]:
        kept[name].append(position)
    return {name: sorted(found) for name, found in kept.items()}


def positions(found: Localized) -> dict[str, list[int]]:
    return {name: kept.tolist() for name, kept in found.mask.positions.items()}


def agreement(found: Localized, wanted: dict[str, list[int]]) -> float:
    """Share of the wanted entries that were found."""
    shared = sum(len(set(found.mask.positions[name].tolist()) & set(kept)) for name, kept in wanted.items())
    return shared / sum(map(len, wanted.values()))


def start(problem: Problem, deltas: Gates, density: float) -> Gates:
    """The magnitude mask as booleans."""
    total = sum(delta.numel() for delta in deltas.values())
    kept = largest({name: delta.abs() for name, delta in deltas.items()}, round(density * total))
    masks = {}
    for name, delta in deltas.items():
        mask = torch.zeros(delta.numel(), dtype=torch.bool)
        mask[kept[name]] = True
        masks[name] = mask.reshape(delta.shape)
    return masks


def order(problem: Problem, epochs: int) -> list[int]:
    assert problem.objective is not None
    generator = np.random.Generator(np.random.Philox(key=problem.seed))
    return [int(i) for _ in range(epochs) for i in generator.permutation(len(problem.objective.batches))]


@pytest.mark.parametrize("rate", [1e3, 1e7])
def test_learned_is_gradient_descent_on_equation_1(trained: Path, rate: float) -> None:
    problem, epochs, l1 = make_problem(trained), 2, 1e-4 * 1e3 / rate
    assert problem.objective is not None
    base, deltas = base_of_problem(problem), deltas_of(problem)
    gates = {n: torch.where(m, 3.0, 0.0).requires_grad_() for n, m in start(problem, deltas, 0.05).items()}
    for index in order(problem, epochs):
        moved = {name: base[name] + torch.sigmoid(gate) * deltas[name] for name, gate in gates.items()}
        penalty = l1 * sum(torch.sigmoid(gate).abs().sum() for gate in gates.values())
        total = loss_at(problem, moved, problem.objective.batches[index]) + penalty
        grads = torch.autograd.grad(total, list(gates.values()))
        gates = {n: (g - rate * d).detach().requires_grad_() for (n, g), d in zip(gates.items(), grads, strict=True)}
    options = {"variant": "paper", "rate": rate, "epochs": epochs, "l1": l1, "push": 0.0, "start": None}
    found, _ = learned.learn_gates(problem, **options)  # type: ignore[arg-type]
    if rate == 1e3:  # at the paper's rate single steps are so large that rounding decides much of what follows
        for name, gate in gates.items():
            torch.testing.assert_close(found[name], gate.detach(), rtol=2e-3, atol=2e-3)
    mask = run_localizer("learned", problem, {"rate": rate, "epochs": epochs, "l1": l1})
    total_entries = sum(problem.sizes.values())
    assert mask.mask.nnz == round(0.05 * total_entries)
    assert agreement(mask, largest({n: g.detach() for n, g in gates.items()}, mask.mask.nnz)) > 0.97


def test_learned_without_a_density_keeps_what_lies_above_one_half(trained: Path) -> None:
    problem = make_problem(trained, density=None)
    arguments = {"rate": 1e5, "epochs": 2, "l1": 1e-6, "start": 0.1}
    gates, _ = learned.learn_gates(problem, variant="paper", push=0.0, **arguments)  # type: ignore[arg-type]
    found = run_localizer("learned", problem, arguments)
    for name, gate in gates.items():
        assert found.mask.positions[name].tolist() == torch.nonzero(gate.reshape(-1) > 0).reshape(-1).tolist()
    assert found.notes["own_density"] == pytest.approx(found.mask.density)
    assert 0 < found.mask.density < 1


@pytest.mark.parametrize("push", [1.0, 10.0])
def test_the_released_variant_sums_gradients_and_polarises(trained: Path, push: float) -> None:
    problem, rate, steps = make_problem(trained), 1e3, 3
    assert problem.objective is not None
    base, deltas = base_of_problem(problem), deltas_of(problem)
    gates = {name: torch.where(mask, 5.0, -5.0) for name, mask in start(problem, deltas, 0.001).items()}
    for _ in range(steps):
        leaves = {name: (base[name] + torch.sigmoid(gates[name]) * deltas[name]).requires_grad_() for name in gates}
        total = torch.stack([loss_at(problem, leaves, batch) for batch in problem.objective.batches]).sum()
        grads = dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))
        for name, gate in gates.items():
            slope = torch.sigmoid(gate) * (1 - torch.sigmoid(gate))
            gates[name] = gate - (rate * grads[name] * deltas[name] * slope - push * torch.sign(gate) * slope)
    arguments = {"variant": "released", "rate": rate, "epochs": steps, "l1": 0.0, "push": push, "start": 0.001}
    found, _ = learned.learn_gates(problem, **arguments)  # type: ignore[arg-type]
    for name, gate in gates.items():
        torch.testing.assert_close(found[name], gate, rtol=1e-3, atol=1e-3)


def test_grafting_descends_on_equation_2_and_keeps_its_best_step(trained: Path) -> None:
    problem, rate, steps, bias = make_problem(trained), 300.0, 4, 2.0
    assert problem.objective is not None
    base, deltas = base_of_problem(problem), deltas_of(problem)
    masks = {name: mask.float() for name, mask in start(problem, deltas, 0.05).items()}
    s = {name: torch.full_like(mask, -bias).requires_grad_() for name, mask in masks.items()}
    seen: list[tuple[float, Gates]] = []
    for _ in range(steps + 1):
        gamma = {n: masks[n] * (1 - torch.sigmoid(s[n])) + (1 - masks[n]) * torch.sigmoid(s[n]) for n in s}
        moved = {name: base[name] + gamma[name] * deltas[name] for name in s}
        loss = torch.stack([loss_at(problem, moved, batch) for batch in problem.objective.batches]).mean()
        seen.append((float(loss.detach()), {name: g.detach() for name, g in gamma.items()}))
        grads = torch.autograd.grad(loss, list(s.values()))
        s = {n: (t - rate * g).detach().requires_grad_() for (n, t), g in zip(s.items(), grads, strict=True)}
    found, step, loss_found = grafting.learn_gates(problem, rate=rate, steps=steps, bias=bias)
    best = min(range(steps + 1), key=lambda i: seen[i][0])
    assert step == best
    assert loss_found == pytest.approx(seen[best][0], rel=1e-4)
    for name, gamma_best in seen[best][1].items():
        torch.testing.assert_close(torch.sigmoid(found[name]), gamma_best, rtol=2e-3, atol=2e-4)
    result = run_localizer("grafting", problem, {"rate": rate, "steps": steps, "bias": bias})
    assert result.mask.nnz == round(0.05 * sum(problem.sizes.values()))
    assert agreement(result, largest(seen[best][1], result.mask.nnz)) > 0.99


def test_grafting_without_a_density_starts_as_the_magnitude_mask(trained: Path) -> None:
    problem = make_problem(trained, density=None)
    found = run_localizer("grafting", problem, {"steps": 0})
    assert positions(found) == positions(run_localizer("magnitude", problem.at(0.01)))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("points", [1, 3])
def test_saliency_is_gradient_times_change(trained: Path, signed: bool, points: int) -> None:
    problem = make_problem(trained)
    assert problem.objective is not None
    base, deltas = base_of_problem(problem), deltas_of(problem)
    total = {name: torch.zeros_like(delta) for name, delta in deltas.items()}
    for point in range(points):
        at = 0.0 if points == 1 else (point + 0.5) / points
        leaves = {name: (base[name] + at * deltas[name]).requires_grad_() for name in deltas}
        loss = torch.stack([loss_at(problem, leaves, batch) for batch in problem.objective.batches]).mean() / points
        for name, grad in zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True):
            total[name] += grad * deltas[name]
    scores = {name: -score if signed else score.abs() for name, score in total.items()}
    found = run_localizer("saliency", problem, {"signed": signed, "points": points})
    assert found.mask.nnz == round(0.05 * sum(problem.sizes.values()))
    assert agreement(found, largest(scores, found.mask.nnz)) > 0.99


def test_the_same_seed_gives_the_same_mask_and_the_model_is_left_as_it_was(trained: Path) -> None:
    problem = make_problem(trained)
    assert problem.objective is not None
    model = problem.objective.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    masks = [positions(run_localizer("learned", problem, {"epochs": 1})) for _ in range(2)]
    assert masks[0] == masks[1]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == wanted
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("name", ["learned", "grafting", "saliency"])
def test_gradient_checkpointing_changes_nothing(trained: Path, name: str) -> None:
    problem = make_problem(trained)
    assert problem.objective is not None
    plain, old = run_localizer(name, problem), problem.objective
    again = Objective(old.model, old.batches, old.loss, checkpointing=True)
    recomputed = run_localizer(name, Problem(problem.vector, problem.names, 0.05, objective=again))
    assert agreement(recomputed, positions(plain)) > 0.99


def test_half_precision_stays_close(trained: Path) -> None:
    problem = make_problem(trained)
    assert problem.objective is not None
    old = problem.objective
    half = Objective(old.model, old.batches, old.loss, precision="bf16")
    found = run_localizer("saliency", Problem(problem.vector, problem.names, 0.05, objective=half))
    assert agreement(found, positions(run_localizer("saliency", problem))) > 0.8


def test_random_inputs_serve_where_there_is_no_data(trained: Path) -> None:
    vector = task_vector(open_checkpoint(trained / "base"), open_checkpoint(trained / "tuned"))
    names = scope_names(vector, Scope())
    carried = carry(vector, names, name="tuned")
    objective = make_objective(vector, carried, Learn(batches=3, batch_size=4), seed=1)
    body = Body(vector.base, names, objective)
    assert body.loss(objective.batches) == pytest.approx(1.0, rel=1e-4)  # the base is as far as the base
    with body.tuning(), torch.no_grad():
        for part in body.parts:
            part.live.add_(delta_of(vector, part.name, body.device))
        reached = body.loss(objective.batches)
    assert reached < 0.05  # the whole task vector of the scope; embeddings did not change
    found = run_localizer("learned", Problem(vector, names, 0.05, objective=objective))
    assert found.mask.nnz == round(0.05 * found.mask.numel)


def test_experts_that_transformers_fuses_get_their_own_gradients(tmp_path: Path) -> None:
    sizes = {"vocab_size": 20, "hidden_size": 8, "intermediate_size": 12, "max_position_embeddings": 16}
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "num_local_experts": 2}
    config = transformers.MixtralConfig(**sizes, **layers)
    for number, name in enumerate(["base", "tuned"]):
        torch.manual_seed(number)
        transformers.MixtralForCausalLM(config).save_pretrained(tmp_path / name)
    vector = task_vector(open_checkpoint(tmp_path / "base"), open_checkpoint(tmp_path / "tuned"))
    names = scope_names(vector, Scope())
    model = transformers.MixtralForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    ids = torch.arange(12).reshape(2, 6) % 20
    objective = Objective(model, [{"input_ids": ids, "labels": ids}])
    body = Body(vector.base, names, objective)
    experts = [name for name in names if ".experts." in name]
    assert len(experts) == 6
    with body.tuning():
        body.gradient(objective.batches)
        by_name = {part.name: part.gradient().clone() for part in body.parts}
    for name in experts:  # a finite difference along the gradient itself
        body.reset()
        part = next(part for part in body.parts if part.name == name)
        assert torch.equal(part.live, body.base(name))
        grad, size = by_name[name], 1e-3 / max(float(by_name[name].norm()), 1e-6)
        with torch.no_grad():
            part.live.add_(grad, alpha=size)
            up = body.loss(objective.batches)
            part.live.add_(grad, alpha=-2 * size)
            down = body.loss(objective.batches)
        assert (up - down) / (2 * size) == pytest.approx(float(grad.square().sum()), rel=0.05, abs=1e-6)


@settings(max_examples=40)
@given(data=st.data())
def test_tall_follows_its_equation(fresh: Callable[[], Path], data: st.DataObject) -> None:
    path, names = fresh(), ["a", "b"]
    levels = st.lists(st.integers(-3, 3), min_size=8, max_size=8)
    vectors = [{name: np.array(data.draw(levels), np.float32) for name in names} for _ in range(3)]
    write_checkpoint(path / "base", {name: torch.zeros(8) for name in names})
    opened = []
    for number, vector in enumerate(vectors):
        write_checkpoint(path / f"t{number}", {name: torch.from_numpy(v) for name, v in vector.items()})
        opened.append(task_vector(open_checkpoint(path / "base"), open_checkpoint(path / f"t{number}")))
    problem = Problem(opened[0], ("a", "b"), None, others=tuple(opened[1:]))
    own = {name: np.abs(vectors[0][name]) for name in names}
    rest = {name: np.abs(vectors[1][name] + vectors[2][name]) for name in names}
    factor = data.draw(st.sampled_from([0.2, 0.5, 1.0, 2.0]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(difference, "CHUNK", data.draw(st.sampled_from([3, 100])))
        exact = tall(problem.at(0.25))
        if not any((own[name] > np.float32(factor) * rest[name]).any() for name in names):
            with pytest.raises(DensityError, match="no entry is kept"):
                tall(problem, factor=factor)
            return
        found = tall(problem, factor=factor)
    for name in names:
        wanted = [i for i in range(8) if own[name][i] > np.float32(factor) * rest[name][i]]
        assert found.mask.positions[name].tolist() == wanted
    ratios = {
        name: torch.tensor(
            [0.0 if o == 0 else float("inf") if r == 0 else o / r for o, r in zip(own[name], rest[name], strict=True)]
        )
        for name in names
    }
    assert positions(exact) == largest(ratios, 4)


def test_tall_needs_others_of_one_base_and_one_of_density_and_factor(trained: Path, tmp_path: Path) -> None:
    vector = task_vector(open_checkpoint(trained / "base"), open_checkpoint(trained / "tuned"))
    other = task_vector(open_checkpoint(trained / "base"), open_checkpoint(trained / "other"))
    names = scope_names(vector, Scope())
    with pytest.raises(UsageError, match="name them with --other"):
        tall(Problem(vector, names))
    for density, factor in [(None, None), (0.1, 0.4)]:
        with pytest.raises(UsageError, match="tall takes a density, or a factor and no density"):
            tall(Problem(vector, names, density, others=(other,)), factor=factor)
    write_checkpoint(tmp_path / "x", {name: torch.zeros(2) for name in names})
    write_checkpoint(tmp_path / "y", {name: torch.ones(2) for name in names})
    stranger = task_vector(open_checkpoint(tmp_path / "x"), open_checkpoint(tmp_path / "y"))
    with pytest.raises(CheckpointError, match="name fine-tunes of one base"):
        tall(Problem(vector, names, others=(stranger,)))


def plain_vector(path: Path, sizes: Sequence[int]) -> TaskVector:
    tensors = {f"t{i}": torch.arange(1.0, size + 1) for i, size in enumerate(sizes)}
    write_checkpoint(path / "base", {name: torch.zeros_like(tensor) for name, tensor in tensors.items()})
    write_checkpoint(path / "tuned", tensors)
    return task_vector(open_checkpoint(path / "base"), open_checkpoint(path / "tuned"))


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=4), seed=st.integers(0, 2**128 - 1), data=st.data())
def test_random_masks_depend_on_the_seed_alone(
    fresh: Callable[[], Path], sizes: list[int], seed: int, data: st.DataObject
) -> None:
    vector = plain_vector(fresh(), sizes)
    names = vector.base.names
    raw = np.random.Philox(key=seed).random_raw(sum(sizes)) >> np.uint64(40)
    split = np.split(raw, np.cumsum(sizes)[:-1])
    k = data.draw(st.integers(1, sum(sizes)))
    with pytest.MonkeyPatch.context() as patch:
        import sparsetv.draws as module

        patch.setattr(module, "_CHUNK", data.draw(st.sampled_from([1, 7, 1000])))
        found = random(Problem(vector, names, k / sum(sizes), seed=seed))
        if int(raw.max()) < np.float32(0.7 * 2**24):
            with pytest.raises(DensityError, match="no entry is kept"):
                random(Problem(vector, names, 0.3, seed=seed), exact=False)
            return
        loose = random(Problem(vector, names, 0.3, seed=seed), exact=False)
    numbered = {name: torch.tensor(part.astype(np.float64)) for name, part in zip(names, split, strict=True)}
    assert positions(found) == largest(numbered, k)
    for name, numbers in zip(names, split, strict=True):
        assert loose.mask.positions[name].tolist() == np.flatnonzero(numbers >= np.float32(0.7 * 2**24)).tolist()


def test_random_masks_hold_their_density_on_average(tmp_path: Path) -> None:
    vector = plain_vector(tmp_path, [200_000])
    found = random(Problem(vector, ("t0",), 0.1, seed=3), exact=False)
    assert abs(found.mask.density - 0.1) < 0.003
    assert random(Problem(vector, ("t0",), 0.1, seed=4)).mask.nnz == 20_000
    with pytest.raises(DensityError, match=r"must lie in \(0, 1\]"):
        random(Problem(vector, ("t0",), 1.5), exact=False)
    with pytest.raises(UsageError, match=r"seed -1 lies outside 0 to 2\^128 - 1"):
        random(Problem(vector, ("t0",), seed=-1))


@settings(max_examples=60)
@given(data=st.data(), allocation=st.sampled_from(["global", "tensor"]))
def test_ranking_keeps_the_highest_scores_of_either_sign(data: st.DataObject, allocation: str) -> None:
    number = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-40, -1e-40, 3.5, -3.5, float("inf"), -float("inf")])
    scores = {n: np.array(data.draw(st.lists(number, min_size=1, max_size=12)), np.float32) for n in ("a", "b")}
    sizes = {name: len(values) for name, values in scores.items()}
    total = sum(sizes.values())
    k = data.draw(st.integers(1, total))
    cut = data.draw(st.integers(1, 5))
    pieces = {name: np.array_split(values, cut) for name, values in scores.items()}
    found = rank(sizes, pieces.__getitem__, density=k / total, allocation=allocation)
    assert sum(map(len, found.values())) == k
    if allocation == "global":
        wanted = largest({name: torch.from_numpy(values) for name, values in scores.items()}, k)
    else:
        wanted = {n: largest({n: torch.from_numpy(scores[n])}, len(found[n]))[n] for n in scores}
    assert {name: kept.tolist() for name, kept in found.items()} == wanted


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(NonFiniteError, match="a: the score of entry 1 is not a number"):
        rank({"a": 2}, lambda _: [np.array([1, np.nan], np.float32)], density=0.5)


@pytest.mark.parametrize("name", ["learned", "grafting", "saliency"])
def test_localizers_that_learn_need_something_to_learn_from(trained: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} learns from examples; give some with --data"):
        run_localizer(name, make_problem(trained, objective=None))


@pytest.mark.parametrize("name", ["magnitude", "saliency", "random"])
def test_localizers_that_rank_need_a_density(trained: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} ranks entries and has no density of its own; give --density"):
        run_localizer(name, make_problem(trained, density=None))


def test_settings_are_checked() -> None:
    assert check_settings("learned", {"rate": "1e3", "epochs": "4", "variant": "released"}) == {
        "rate": 1000.0,
        "epochs": 4,
        "variant": "released",
    }
    assert check_settings("saliency", {"signed": "true"}) == {"signed": True}
    assert check_settings("tall", {"factor": "0.4"}) == {"factor": 0.4}
    for name, settings_, message in [
        ("magnitude", {"rate": "1"}, "magnitude has no setting 'rate'; it has none"),
        ("learned", {"speed": "1"}, "learned has no setting 'speed'; it has variant, rate"),
        ("learned", {"epochs": "1.5"}, "learned, epochs: '1.5' is no int"),
        ("saliency", {"signed": "maybe"}, "saliency, signed: 'maybe' is no bool"),
        ("tall", {"factor": "much"}, "tall, factor: 'much' is no float"),
        ("best", {}, f"unknown localizer 'best'; known are {', '.join(LOCALIZERS)}"),
    ]:
        with pytest.raises(UsageError, match=message):
            check_settings(name, settings_)


def test_an_unknown_variant_is_refused(trained: Path) -> None:
    with pytest.raises(UsageError, match="unknown variant 'mine'; known are paper, released"):
        run_localizer("learned", make_problem(trained), {"variant": "mine"})


def test_models_in_half_precision_are_refused_with_advice(trained: Path) -> None:
    problem = make_problem(trained)
    assert problem.objective is not None
    half = Objective(problem.objective.model.to(torch.bfloat16), problem.objective.batches)
    with pytest.raises(CheckpointError, match=r"is torch.bfloat16; learning needs float32 weights: call model.float"):
        run_localizer("learned", Problem(problem.vector, problem.names, objective=half))


def test_a_loss_that_is_not_finite_is_refused(trained: Path) -> None:
    problem = make_problem(trained)
    assert problem.objective is not None

    def broken(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        return next(iter(model.parameters())).sum() * float("nan")

    odd = Objective(problem.objective.model, problem.objective.batches, broken)
    with pytest.raises(ProbeError, match="the loss is nan; check the model and its data"):
        run_localizer("saliency", Problem(problem.vector, problem.names, objective=odd))


def test_any_model_and_loss_from_python(tmp_path: Path) -> None:
    """A plain module whose state names are the checkpoint's: no transformers, no files beside the weights."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
    base = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    write_checkpoint(tmp_path / "base", base)
    write_checkpoint(tmp_path / "tuned", {name: tensor + torch.randn_like(tensor) for name, tensor in base.items()})
    vector = task_vector(open_checkpoint(tmp_path / "base"), open_checkpoint(tmp_path / "tuned"))
    batches = [{"x": torch.randn(4, 6), "y": torch.randn(4, 1)} for _ in range(2)]

    def squared(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        return functional.mse_loss(model(batch["x"]), batch["y"])

    problem = Problem(vector, vector.base.names, 0.2, objective=Objective(module, batches, squared))
    for name in ("learned", "grafting", "saliency"):
        assert run_localizer(name, problem).mask.nnz == round(0.2 * sum(problem.sizes.values()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", ["learned", "grafting", "saliency"])
def test_a_gpu_gives_the_same_mask(trained: Path, name: str) -> None:
    problem = make_problem(trained)
    there = make_problem(trained, device=torch.device("cuda"))
    assert agreement(run_localizer(name, there), positions(run_localizer(name, problem))) > 0.98


def test_data_of_the_hub_needs_its_package(trained: Path) -> None:
    assert SIZES["vocab_size"] == 40
    vector = task_vector(open_checkpoint(trained / "base"), open_checkpoint(trained / "tuned"))
    names = scope_names(vector, Scope())
    carried = carry(vector, names, name="tuned")
    with pytest.raises(NotFoundError, match=r"no such file"):
        make_objective(vector, carried, Learn(trained / "none.jsonl"), seed=0)
