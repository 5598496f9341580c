"""Merging that runs models, against autograd through functional calls and least squares on stacked inputs."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tiny import VOCABULARY, texts
from torch import nn
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.difference import task_vector
from sparsetv.errors import NamesError, ProbeError, UsageError
from sparsetv.jobs.learning import Learn, make_objective
from sparsetv.merging.adamerging import adamerging
from sparsetv.merging.fisher import diagonal_fisher, fisher_average
from sparsetv.merging.live import at
from sparsetv.merging.regmean import Gram, grams, regmean
from sparsetv.merging.vectors import mean
from sparsetv.objective.body import Body, delta_of
from sparsetv.objective.loss import Objective
from sparsetv.packing.carried import carry

Vector = dict[str, torch.Tensor]


class Task:
    """A fine-tune of the fixture `trained`: its live model at the base under its own head, and its vector."""

    def __init__(self, room: Path, name: str, *, shots: int = 3, batch_size: int = 4) -> None:
        found = task_vector(open_checkpoint(room / "base"), open_checkpoint(room / name))
        names = found.comparable()
        learn = Learn(room / "data.jsonl", shots=shots, batch_size=batch_size, target="finetuned")
        objective = make_objective(found, carry(found, names, name=name), learn, seed=0)
        batches = [{k: v for k, v in batch.items() if k in ("input_ids", "attention_mask", "token_type_ids")}
                   for batch in objective.batches]  # fmt: skip
        self.model = objective.model
        self.vector: Vector = {n: delta_of(found, n, torch.device("cpu")) for n in names}
        self.body = Body(found.base, names, Objective(self.model, batches))
        self.base: Vector = {n: self.body.base(n) for n in names}

    def logits(self, weights: Vector, batch: Any) -> torch.Tensor:
        """The model's logits with its body's weights replaced."""
        own = {f"bert.{name}": tensor for name, tensor in weights.items()}
        found: torch.Tensor = functional_call(self.model, own, kwargs=dict(batch)).logits
        return found

    def tuned(self) -> Vector:
        return {name: self.base[name] + delta for name, delta in self.vector.items()}

    def examples(self) -> Iterator[Any]:
        """Every example on its own, padding and all."""
        for batch in self.body.objective.batches:
            for i in range(len(batch["input_ids"])):
                yield {name: tensor[i : i + 1] for name, tensor in batch.items()}

    def holds_the_base(self) -> bool:
        same = all(torch.equal(part.live, self.base[part.name]) for part in self.body.parts)
        return same and all(p.grad is None and p.requires_grad for p in self.model.parameters())


@pytest.fixture
def task(trained: Path) -> Task:
    return Task(trained, "tuned")


def score_squares(task: Task, example: Any, chance: Callable[[torch.Tensor], torch.Tensor]) -> Vector:
    """Sum over classes of a weight times the squared gradient of the log probability, a pass per class."""
    weights = {name: tensor.requires_grad_() for name, tensor in task.tuned().items()}
    logs = task.logits(weights, example).log_softmax(-1)[0]
    found = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    for log, share in zip(logs, chance(logs.detach()), strict=True):
        slopes = torch.autograd.grad(log, list(weights.values()), retain_graph=True, allow_unused=True)
        for name, slope in zip(weights, slopes, strict=True):
            found[name] += share * (0 if slope is None else slope) ** 2
    return found


def test_fisher_is_the_mean_over_examples_of_the_expected_squared_score(task: Task) -> None:
    wanted = {name: torch.zeros_like(tensor) for name, tensor in task.vector.items()}
    examples = list(task.examples())
    for example in examples:
        for name, squares in score_squares(task, example, torch.exp).items():
            wanted[name] += squares / len(examples)
    seen: list[int] = []
    found = diagonal_fisher(task.body, task.vector, progress=lambda what, done, total: seen.append(done))
    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        assert bool((tensor >= 0).all())
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-4, atol=1e-9)
    assert max(float(tensor.max()) for tensor in found.values()) > 1e-3
    assert task.holds_the_base()
    assert seen == list(range(1, len(examples) + 1))


def test_fisher_of_batches_is_that_of_their_examples(task: Task) -> None:
    whole = diagonal_fisher(task.body, task.vector)
    task.body.objective = Objective(task.model, list(task.examples()))
    for name, tensor in diagonal_fisher(task.body, task.vector).items():
        assert torch.equal(tensor, whole[name])


def test_answers_are_drawn_from_what_the_model_predicts(task: Task) -> None:
    example = next(iter(task.examples()))
    task.body.objective = Objective(task.model, [example] * 30)
    found = diagonal_fisher(task.body, task.vector, classes=2, seed=5)
    with torch.no_grad():
        chances = task.logits(task.tuned(), example).double().softmax(-1)
    generator = torch.Generator().manual_seed(5)
    drawn = torch.cat([torch.multinomial(chances, 1, generator=generator) for _ in range(30)])
    shares = torch.bincount(drawn.reshape(-1), minlength=3) / 30
    for name, squares in score_squares(task, example, lambda _: shares).items():
        torch.testing.assert_close(found[name], squares, rtol=1e-4, atol=1e-9)
    other = diagonal_fisher(task.body, task.vector, classes=2, seed=6)
    assert not all(torch.equal(found[name], other[name]) for name in found)


@given(data=st.data(), tasks=st.integers(1, 4))
def test_fisher_average_is_the_weighted_mean_entry_by_entry(data: st.DataObject, tasks: int) -> None:
    numbers = st.floats(-2, 2, width=32)
    information = st.sampled_from([0.0, 1e-9, 1e-3, 2.0])
    vectors = [data.draw(st.lists(numbers, min_size=3, max_size=3)) for _ in range(tasks)]
    fishers = [data.draw(st.lists(information, min_size=3, max_size=3)) for _ in range(tasks)]
    weights = data.draw(st.none() | st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=tasks, max_size=tasks))
    found = fisher_average(
        [{"a": torch.tensor(v)} for v in vectors], [{"a": torch.tensor(f)} for f in fishers], weights=weights
    )["a"]
    for i in range(3):
        floor = 1e-6 * sum(map(sum, fishers)) / (3 * tasks) or 1.0
        shares = [(f[i] + floor) * w for f, w in zip(fishers, weights or [1.0] * tasks, strict=True)]
        wanted = sum(v[i] * share for v, share in zip(vectors, shares, strict=True)) / sum(shares)
        assert found[i].item() == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_entries_that_matter_to_nobody_get_the_simple_average() -> None:
    vectors = [{"a": torch.tensor([1.0, 1.0])}, {"a": torch.tensor([4.0, 4.0])}]
    fishers = [{"a": torch.tensor([0.0, 0.0])}, {"a": torch.tensor([0.0, 1.0])}]
    found = fisher_average(vectors, fishers)["a"]
    assert found[0].item() == pytest.approx(2.5)
    assert found[1].item() == pytest.approx(4.0, abs=1e-4)
    with pytest.raises(UsageError, match="2 tasks, 1 Fishers, 2 weights; give one per task"):
        fisher_average(vectors, fishers[:1])
    for weights, floor in (([1.0, 0.0], 1e-6), ([1.0, 1.0], 0.0)):
        with pytest.raises(UsageError, match="weights and floor must be positive"):
            fisher_average(vectors, fishers, weights=weights, floor=floor)


def seen_by(task: Task, module: str) -> list[tuple[Any, torch.Tensor]]:
    """(example, inputs of a linear layer in the fine-tune), each example on its own."""
    caught: list[torch.Tensor] = []
    hook = task.model.get_submodule(module).register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    with torch.no_grad():
        pairs = [(example, task.logits(task.tuned(), example)) for example in task.examples()]
    hook.remove()
    return [(example, inputs[0]) for (example, _), inputs in zip(pairs, caught, strict=True)]


def test_grams_count_what_is_no_padding(task: Task) -> None:
    found = grams(task.body, task.vector)
    assert task.holds_the_base()
    linear = {n for n in task.vector if n.endswith("weight") and "embeddings" not in n and "LayerNorm" not in n}
    assert found.keys() == linear
    for name, gram in found.items():
        rows = []
        for example, inputs in seen_by(task, f"bert.{name.removesuffix('.weight')}"):
            length = int(example["attention_mask"].sum())
            rows += [inputs] if inputs.dim() == 1 else list(inputs[:length])
        if "pooler" in name:
            assert len(rows) == len(list(task.examples()))
        wanted = sum(torch.outer(row.double(), row.double()) for row in rows) / len(rows)
        assert gram.axis == 1
        torch.testing.assert_close(gram.matrix.double(), wanted, rtol=1e-4, atol=1e-5)


def test_regmean_is_least_squares_on_stacked_inputs() -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = (9, 30, 17)
    inputs = [torch.randn(rows, 5, generator=generator, dtype=torch.float64) for rows in sizes]
    base = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    tuned = [torch.randn(4, 5, generator=generator, dtype=torch.float64) for _ in sizes]
    stacked = torch.cat([x / len(x) ** 0.5 for x in inputs])  # every task counts alike, however many inputs it has
    answers = torch.cat([x @ w.T / len(x) ** 0.5 for x, w in zip(inputs, tuned, strict=True)])
    wanted = torch.linalg.lstsq(stacked, answers).solution.T - base
    bias = [torch.randn(4, generator=generator) for _ in sizes]
    for axis in (0, 1):
        vectors = [
            {"w": (w - base if axis == 1 else (w - base).T).float(), "b": b} for w, b in zip(tuned, bias, strict=True)
        ]
        found = regmean(vectors, [{"w": Gram((x.T @ x / len(x)).float(), axis)} for x in inputs], shrink=1.0)
        torch.testing.assert_close(found["w"] if axis == 1 else found["w"].T, wanted.float(), rtol=1e-4, atol=1e-5)
        assert torch.equal(found["b"], mean([{"b": b} for b in bias])["b"])


def test_regmean_shrinks_off_diagonals_down_to_weighing_inputs_one_by_one() -> None:
    generator = torch.Generator().manual_seed(1)
    vectors = [{"w": torch.randn(4, 3, generator=generator)} for _ in range(2)]
    found = [{"w": Gram((x.T @ x), 1)} for x in (torch.randn(8, 3, generator=generator) for _ in range(2))]
    weights = torch.stack([gram["w"].matrix.diagonal() for gram in found])
    wanted = sum(v["w"] * w for v, w in zip(vectors, weights, strict=True)) / weights.sum(0)
    torch.testing.assert_close(regmean(vectors, found, shrink=0.0)["w"], wanted)
    half = [g["w"].matrix * 0.5 + torch.diag(g["w"].matrix.diagonal()) * 0.5 for g in found]
    right = half[0] @ vectors[0]["w"].T + half[1] @ vectors[1]["w"].T
    torch.testing.assert_close(
        (half[0] + half[1]) @ regmean(vectors, found, shrink=0.5)["w"].T, right, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("shrink", [0.9, 1.0])
def test_inputs_that_were_never_used_get_the_simple_average(shrink: float) -> None:
    vectors = [{"w": torch.tensor([[1.0, 3.0]])}, {"w": torch.tensor([[2.0, 5.0]])}]
    dead = torch.tensor([[4.0, 0.0], [0.0, 0.0]])
    assert regmean(vectors, [{"w": Gram(dead, 1)}] * 2, shrink=shrink)["w"][0].tolist() == pytest.approx([1.5, 4.0])
    nothing = [{"w": Gram(torch.zeros(2, 2), 1)}] * 2
    assert regmean(vectors, nothing, shrink=shrink)["w"][0].tolist() == pytest.approx([1.5, 4.0])


def test_regmean_of_one_task_is_that_task(task: Task) -> None:
    found = regmean([task.vector], [grams(task.body, task.vector)])
    for name, delta in task.vector.items():
        torch.testing.assert_close(found[name], delta, rtol=1e-3, atol=1e-5)


def test_what_regmean_cannot_use_is_refused() -> None:
    vectors, gram = [{"w": torch.ones(1, 2)}] * 2, {"w": Gram(torch.eye(2), 1)}
    with pytest.raises(UsageError, match="2 tasks, 1 sets of Gram matrices"):
        regmean(vectors, [gram])
    with pytest.raises(UsageError, match=r"shrink is 1\.5; it must lie in \[0, 1\]"):
        regmean(vectors, [gram] * 2, shrink=1.5)
    with pytest.raises(NamesError, match="w: only some tasks have a Gram matrix for it"):
        regmean(vectors, [gram, {}])


def entropy_at(tasks: list[Task], table: torch.Tensor, step: int, *, layerwise: bool) -> torch.Tensor:
    """Sum of the tasks' mean entropies, with a graph through the merge down to the coefficients."""
    names = sorted(tasks[0].vector)
    weights = {}
    for column, name in enumerate(names):
        moves = (table[i, column if layerwise else 0] * task.vector[name] for i, task in enumerate(tasks))
        weights[name] = tasks[0].base[name] + sum(moves)
    entropies = []
    for task in tasks:
        batches = task.body.objective.batches
        chances = task.logits(weights, batches[step % len(batches)]).softmax(-1)
        entropies.append(-(chances * chances.log()).sum(-1).mean())
    return torch.stack(entropies).sum()


@pytest.mark.parametrize("layerwise", [True, False])
def test_adamerging_is_adam_on_the_entropy_through_the_merge(trained: Path, layerwise: bool) -> None:
    tasks = [Task(trained, name, shots=count) for name, count in (("tuned", 3), ("other", 2))]
    names = sorted(tasks[0].vector)
    table = torch.full((2, len(names) if layerwise else 1), 0.3, requires_grad=True)
    optimizer = torch.optim.Adam([table], lr=0.01)
    wanted_curve = []
    for step in range(6):
        entropy = entropy_at(tasks, table, step, layerwise=layerwise)
        (table.grad,) = torch.autograd.grad(entropy, [table])
        optimizer.step()
        wanted_curve.append(float(entropy.detach()))
    curve: list[float] = []
    merged, lambdas = adamerging(
        [task.body for task in tasks], [task.vector for task in tasks], steps=6, rate=0.01, layerwise=layerwise,
        progress=lambda what, done, total: curve.append(float(what.split()[-1])),
    )  # fmt: skip
    assert curve == pytest.approx(wanted_curve, abs=2e-4)
    assert list(merged) == list(lambdas) == names
    for column, name in enumerate(names):
        own = table.detach()[:, column if layerwise else 0]
        if "key.bias" not in name:  # no output depends on it, and Adam makes whole steps of rounding errors
            assert lambdas[name] == pytest.approx(own.tolist(), abs=2e-3)
        moved = sum(factor * task.vector[name] for factor, task in zip(lambdas[name], tasks, strict=True))
        torch.testing.assert_close(merged[name], moved)
    assert all(task.holds_the_base() for task in tasks)


def test_adamerging_without_steps_is_task_arithmetic(task: Task) -> None:
    merged, lambdas = adamerging([task.body], [task.vector], steps=0, start=0.25)
    assert set(lambdas.values()) == {(0.25,)}
    assert all(torch.equal(merged[name], delta * 0.25) for name, delta in task.vector.items())
    for bodies, steps in (([], 1), ([task.body], -1)):
        with pytest.raises(UsageError, match=f"{len(bodies)} live models for 1 tasks, {steps} steps"):
            adamerging(bodies, [task.vector], steps=steps)


def test_a_vector_of_another_scope_is_refused(task: Task) -> None:
    name, *rest = task.vector
    short = {other: task.vector[other] for other in rest}
    for run in (diagonal_fisher, grams, lambda body, vector: adamerging([body], [vector])):
        with pytest.raises(NamesError, match=f"{name}: only one of the vector and the live model's scope has it"):
            run(task.body, short)
    assert task.holds_the_base()


def test_the_base_is_back_after_a_failure(task: Task) -> None:
    with at(task.body, task.vector):
        assert all(torch.equal(part.live, task.tuned()[part.name]) for part in task.body.parts)
    assert task.holds_the_base()
    broken = {**task.vector, next(iter(task.vector)): task.vector[next(iter(task.vector))] * float("nan")}
    with pytest.raises(ProbeError, match="logits are not finite"):
        diagonal_fisher(task.body, broken)
    assert task.holds_the_base()


class Plain(nn.Module):
    """Hidden states but no logits."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(x)
        return found


class Source:
    """A base that is held in memory."""

    def __init__(self, model: nn.Module) -> None:
        self._tensors = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
        self.names = tuple(sorted(self._tensors))

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> str:
        return "F32"

    def bits(self, name: str) -> Any:
        return self._tensors[name].reshape(-1).numpy().view("u4")


def test_a_model_without_logits_has_no_distribution() -> None:
    model = Plain()
    source = Source(model)
    body = Body(source, source.names, Objective(model, [{"x": torch.ones(2, 3)}]))
    vector = {name: torch.zeros(source.shape(name)) for name in source.names}
    with pytest.raises(ProbeError, match="Plain gives no logits"):
        diagonal_fisher(body, vector)
    assert grams(body, vector)["layer.weight"].matrix.tolist() == torch.ones(3, 3).tolist()


@pytest.fixture
def causal() -> tuple[nn.Module, Body, Vector]:
    """GPT-2, whose linear layers hold their weights the other way round, and texts padded behind."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(VOCABULARY), n_embd=8, n_layer=1, n_head=2, n_positions=24, bos_token_id=2, eos_token_id=3,
        pad_token_id=0, tie_word_embeddings=False, use_cache=False, initializer_range=0.5,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).eval()
    rows = [[VOCABULARY.index(word) for word in text.split()] for text in texts(4)]
    width = max(map(len, rows))
    batch = {
        "input_ids": torch.tensor([row + [0] * (width - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
    }
    source = Source(model)
    names = tuple(name for name in source.names if ".h." in name)
    body = Body(source, names, Objective(model, [batch]))
    return model, body, {name: 0.1 * torch.randn(source.shape(name)) for name in names}


def test_conv1d_weights_are_fitted_along_their_first_axis(causal: tuple[nn.Module, Body, Vector]) -> None:
    model, body, vector = causal
    found = grams(body, vector)
    assert {gram.axis for gram in found.values()} == {0}
    assert {name for name in vector if name.endswith("weight") and ".ln_" not in name} == found.keys()
    name = "transformer.h.0.mlp.c_proj.weight"
    layer = model.get_submodule("transformer.h.0.mlp.c_proj")
    assert isinstance(layer, Conv1D)
    assert found[name].matrix.shape == (32, 32)
    other = {n: torch.randn_like(tensor) for n, tensor in vector.items()}
    caught: list[torch.Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].detach()))
    for each in (vector, other):
        with at(body, each):
            model(**body.objective.batches[0])
    hook.remove()
    mask = body.objective.batches[0]["attention_mask"].bool()
    inputs = [x[mask].double() for x in caught]
    merged = regmean([vector, other], [found, grams(body, other)], shrink=0.5)[name].double()
    moments = [x.T @ x / len(x) for x in inputs]
    shrunk = [m / 2 + m.diagonal().diag() / 2 for m in moments]
    right = shrunk[0] @ vector[name].double() + shrunk[1] @ other[name].double()
    torch.testing.assert_close((shrunk[0] + shrunk[1]) @ merged, right, rtol=1e-3, atol=1e-3)


def test_fisher_of_a_causal_model_draws_a_token_at_each_unmasked_position(
    causal: tuple[nn.Module, Body, Vector],
) -> None:
    model, body, vector = causal
    found = diagonal_fisher(body, vector, seed=3)
    batch = body.objective.batches[0]
    generator = torch.Generator().manual_seed(3)
    wanted = {name: torch.zeros_like(tensor) for name, tensor in vector.items()}
    weights = {name: (body.base(name) + delta).requires_grad_() for name, delta in vector.items()}
    for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        text = ids[: int(mask.sum())][None]
        logs = functional_call(model, weights, kwargs={"input_ids": text}).logits[0].log_softmax(-1)
        drawn = torch.multinomial(logs.detach().double().exp(), 1, generator=generator)
        slopes = torch.autograd.grad(logs.gather(1, drawn).sum(), list(weights.values()))
        for name, slope in zip(weights, slopes, strict=True):
            wanted[name] += slope.square() / len(batch["input_ids"])
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-3, atol=1e-6 * float(wanted[name].max()))


def test_entropy_of_a_causal_model_leaves_padding_out(causal: tuple[nn.Module, Body, Vector]) -> None:
    _, body, vector = causal
    curves: list[list[str]] = []
    batch = dict(body.objective.batches[0])
    for padding in (0, 5):
        batch["input_ids"] = torch.where(batch["attention_mask"] == 1, batch["input_ids"], padding)
        body.objective = Objective(body.model, [batch])
        curves.append([])
        adamerging([body], [vector], steps=2, progress=lambda what, done, total: curves[-1].append(what))
    assert curves[0] == curves[1]
