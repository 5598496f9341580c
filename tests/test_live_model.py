"""Live models of every kind: what `attach` makes of them is what `stitch` writes, bit for bit, and it goes back."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers import ALL, Tensors, bits, read_checkpoint, tree
from torch import nn

import sparsetv
from sparsetv import PackOptions, SparseTaskVector
from sparsetv.errors import BaseMismatchError, NamesError, NonFiniteError, NotFoundError, ShapeError, UsageError
from sparsetv.jobs.models import task_model
from sparsetv.jobs.options import StitchOptions
from sparsetv.jobs.stitch import stitch
from sparsetv.live.model import LiveModel, attach
from sparsetv.localize.scope import Scope
from sparsetv.models import quiet

pytestmark = pytest.mark.usefixtures("no_sync")

TEXT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 40}
MIXTURE = {
    **TEXT, "num_key_value_heads": 2, "num_local_experts": 3, "num_experts": 3, "num_experts_per_tok": 2,
    "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8, "head_dim": 8,
}  # fmt: skip
IMAGE = {**TEXT, "image_size": 8, "patch_size": 4, "num_channels": 3}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "BertForSequenceClassification": ("BertConfig", TEXT),
    "RobertaForMaskedLM": ("RobertaConfig", TEXT),
    "GPT2LMHeadModel": ("GPT2Config", {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 40, "n_positions": 32}),
    "LlamaForCausalLM": ("LlamaConfig", {**TEXT, "num_key_value_heads": 1}),
    "ViTForImageClassification": ("ViTConfig", IMAGE),
    "CLIPVisionModel": ("CLIPVisionConfig", IMAGE),
    "MixtralForCausalLM": ("MixtralConfig", MIXTURE),
    "Qwen2MoeForCausalLM": ("Qwen2MoeConfig", MIXTURE),
    "Qwen3MoeForCausalLM": ("Qwen3MoeConfig", MIXTURE),
}


@pytest.fixture(autouse=True)
def _quietly() -> Iterator[None]:
    with quiet():
        yield


def build(kind: str, *, seed: int = 0, **more: Any) -> Any:
    config, values = KINDS[kind]
    torch.manual_seed(seed)
    model = getattr(transformers, kind)(getattr(transformers, config)(**{**values, **more}))
    return model.eval()


def move(model: nn.Module, *, seed: int) -> None:
    """Some training of everything."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


def family(path: Path, kind: str, **options: Any) -> dict[str, SparseTaskVector]:
    """A base directory and three tasks of it."""
    build(kind).save_pretrained(path / "base")
    tasks = {}
    for number, name in enumerate(["first", "second", "third"]):
        model = build(kind)
        move(model, seed=number + 1)
        model.save_pretrained(path / name)
        chosen = PackOptions(density=0.2, scope=ALL, probe=False, **options)
        tasks[name] = sparsetv.pack(path / "base", path / name, name=name, options=chosen)
    return tasks


def load(path: Path, kind: str) -> Any:
    return getattr(transformers, kind).from_pretrained(path).eval()


def parameters(model: nn.Module) -> Tensors:
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters(remove_duplicate=False)}


def assert_same(found: Tensors, wanted: Tensors) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_array_equal(bits(found[name]), bits(wanted[name]), err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_live_model_becomes_what_stitch_writes_and_goes_back(tmp_path: Path, kind: str) -> None:
    tasks = family(tmp_path, kind)
    model = load(tmp_path / "base", kind)
    before = parameters(model)
    storage = {name: tensor.data_ptr() for name, tensor in model.named_parameters()}
    live = attach(model, *tasks.values(), rule="sum", scale="l2")
    for number, names in enumerate([["first"], ["second", "first"], ["third", "second", "first"], ["third"]]):
        weights = {names[0]: 0.5}
        live.activate(*names, weights=weights)
        target = tmp_path / f"merged-{number}"
        options = StitchOptions(rule="sum", scale="l2", weights=weights)
        stitch(tmp_path / "base", [tasks[name] for name in names], target, options=options)
        assert_same(parameters(model), parameters(load(target, kind)))
    live.deactivate()
    assert_same(parameters(model), before)
    assert {name: tensor.data_ptr() for name, tensor in model.named_parameters()} == storage
    model.save_pretrained(tmp_path / "again")
    assert_same(read_checkpoint(tmp_path / "again"), read_checkpoint(tmp_path / "base"))


@pytest.fixture
def classifiers(tmp_path: Path) -> tuple[Path, dict[str, SparseTaskVector]]:
    """A body as base, and classifiers of 2 and 5 labels, with heads of their own."""
    body = build("BertForSequenceClassification").bert
    body.save_pretrained(tmp_path / "base")
    tasks = {}
    for name, labels, seed in [("sst2", 2, 1), ("cr", 2, 2), ("trec", 5, 3)]:
        model = build("BertForSequenceClassification", seed=seed, num_labels=labels)
        model.bert.load_state_dict(body.state_dict())
        move(model, seed=seed)
        model.save_pretrained(tmp_path / name)
        options = PackOptions(density=0.3, scope=Scope("body"), probe=False)
        tasks[name] = sparsetv.pack(tmp_path / "base", tmp_path / name, name=name, options=options)
    return tmp_path, tasks


def classifier(path: Path) -> Any:
    torch.manual_seed(5)
    return transformers.BertForSequenceClassification.from_pretrained(path / "base", num_labels=2).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(12).reshape(2, 6)).logits
    return found


def stitched(path: Path, *tasks: SparseTaskVector, **options: Any) -> Path:
    target = path / ("merged " + " ".join(task.name for task in tasks))
    stitch(path / "base", tasks, target, options=StitchOptions(**options))
    return target


def test_heads_follow_the_active_task(classifiers: tuple[Path, dict[str, SparseTaskVector]]) -> None:
    path, tasks = classifiers
    model = classifier(path)
    before, own = parameters(model), logits(model)
    head = model.classifier.weight
    live = attach(model, *tasks.values())
    for name in ["sst2", "trec", "cr", "sst2"]:
        live.activate(name)
        alone = load(stitched(path, tasks[name]), "BertForSequenceClassification")
        assert torch.equal(logits(model), logits(alone))
        assert (live.head, live.active) == (name, {name: 1.0})
        assert model.config.num_labels == model.num_labels == alone.config.num_labels
        assert model.classifier.out_features == alone.config.num_labels
        assert model.config.id2label == alone.config.id2label
    assert model.classifier.weight is head
    live.deactivate()
    assert_same(parameters(model), before)
    assert torch.equal(logits(model), own)
    assert model.config.num_labels == model.num_labels == 2
    assert live.head is None


def test_several_tasks_share_the_body_and_take_the_head_that_is_named(
    classifiers: tuple[Path, dict[str, SparseTaskVector]],
) -> None:
    path, tasks = classifiers
    model = classifier(path)
    own = model.classifier.weight.detach().clone()
    live = attach(model, *tasks.values())
    live.activate("sst2", "trec", weights={"trec": 0.7})
    assert live.head is None
    assert torch.equal(model.classifier.weight, own)
    merged = stitched(path, tasks["sst2"], tasks["trec"], weights={"trec": 0.7})
    from sparsetv.checkpoint.reading import open_checkpoint
    from sparsetv.compose.base import base_of

    for name in ["sst2", "trec"]:
        live.use_head(name)
        wanted = task_model(base_of(open_checkpoint(merged), {}), tasks[name], None)
        assert torch.equal(logits(model), logits(wanted))
    live.activate("sst2", "trec", weights={"trec": 0.7}, head="trec")
    assert torch.equal(logits(model), logits(wanted))


def test_a_block_gives_back_what_was_in_force(classifiers: tuple[Path, dict[str, SparseTaskVector]]) -> None:
    path, tasks = classifiers
    model = classifier(path)
    live = attach(model, *tasks.values())
    live.activate("cr", weights={"cr": 0.5})
    before = parameters(model)
    with live.using("sst2", "trec", head="trec") as inside:
        assert inside is model
        assert live.active == {"sst2": 1.0, "trec": 1.0}
        with pytest.raises(ZeroDivisionError), live.using():
            print(1 / len(live.active))
        assert live.head == "trec"
    assert (live.active, live.head) == ({"cr": 0.5}, "cr")
    assert_same(parameters(model), before)


def test_a_body_takes_no_head_and_hands_it_out(classifiers: tuple[Path, dict[str, SparseTaskVector]]) -> None:
    path, tasks = classifiers
    body = transformers.BertModel.from_pretrained(path / "base").eval()
    live = attach(body, tasks["trec"])
    live.activate("trec")
    alone = load(stitched(path, tasks["trec"]), "BertForSequenceClassification")
    assert_same(parameters(body), parameters(alone.bert))
    assert live.head_of("trec") == {}
    assert attach(classifier(path), tasks["trec"]).head_of("trec")["classifier.weight"].shape == (5, 16)


def test_what_fails_changes_nothing(classifiers: tuple[Path, dict[str, SparseTaskVector]]) -> None:
    path, tasks = classifiers
    model = classifier(path)
    live = attach(model, tasks["sst2"], tasks["trec"])
    live.activate("sst2")
    before = parameters(model)
    attempts: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: live.activate("mnli"), NotFoundError, "no task 'mnli' is held; those held are sst2, trec"),
        (lambda: live.activate("trec", head="mnli"), NotFoundError, "no task 'mnli' is held"),
        (lambda: live.activate("trec", weights={"sst2": 1.0}), UsageError, "are trec, but 'sst2' is not among them"),
        (lambda: live.activate("trec", head="sst2"), UsageError, "are trec, but 'sst2' is not among them"),
        (lambda: live.activate("trec", "trec"), UsageError, "are trec, trec, but one of them is named twice"),
        (lambda: live.activate("trec", weights={"trec": float("nan")}), UsageError, "use a finite, smaller one"),
        (lambda: live.load(tasks["sst2"]), UsageError, "a task 'sst2' is held already"),
        (lambda: live.use_head("mnli"), NotFoundError, "no task 'mnli' is held"),
        (lambda: live.unload("mnli"), NotFoundError, "no task 'mnli' is held"),
    ]
    for attempt, kind, message in attempts:
        with pytest.raises(kind, match=message):
            attempt()
        assert (live.active, live.head, live.tasks) == ({"sst2": 1.0}, "sst2", ("sst2", "trec"))
        assert_same(parameters(model), before)
    live.unload("sst2")
    assert (live.active, live.head, live.tasks) == ({}, None, ("trec",))


def test_overflow_keeps_weights_and_head(classifiers: tuple[Path, dict[str, SparseTaskVector]]) -> None:
    path, tasks = classifiers
    model = classifier(path).half()
    live = attach(model, tasks["sst2"], tasks["trec"], verify="meta")
    live.activate("sst2")
    before = parameters(model)
    with pytest.raises(NonFiniteError, match="overflows F16; use a smaller scale"):
        live.activate("trec", weights={"trec": 1e8})
    assert (live.active, live.head) == ({"sst2": 1.0}, "sst2")
    assert_same(parameters(model), before)


def test_models_that_do_not_fit_are_refused_when_a_task_is_loaded(
    tmp_path: Path, classifiers: tuple[Path, dict[str, SparseTaskVector]]
) -> None:
    path, tasks = classifiers
    other = classifier(path)
    with torch.no_grad():
        other.bert.encoder.layer[1].output.dense.bias[0] += 1
    with pytest.raises(BaseMismatchError, match=r"the live Bert.* is .*encoder\.layer\.1\.output\.dense\.bias"):
        attach(other, tasks["sst2"])
    half = classifier(path).to(torch.bfloat16)
    with pytest.raises(BaseMismatchError, match=r"is F32 for sst2, but BF16 in the live .* or pass verify='meta'"):
        attach(half, tasks["sst2"])
    with pytest.raises(NamesError, match="has no place in GPT2LMHeadModel"):
        attach(build("GPT2LMHeadModel"), tasks["sst2"])
    small = build("BertForSequenceClassification", intermediate_size=24)
    with pytest.raises(ShapeError, match=r"intermediate\.dense\.bias has shape \(32,\)"):
        attach(small, tasks["sst2"])
    token = transformers.BertForTokenClassification(transformers.BertConfig(**TEXT))
    token.bert.load_state_dict(transformers.BertModel.from_pretrained(path / "base").state_dict(), strict=False)
    with pytest.raises(NamesError, match=r"pooler\.dense\.bias of the checkpoint has no place in BertForTokenClass"):
        attach(token, tasks["sst2"])
    with pytest.raises(UsageError, match="unknown rule 'vote'"):
        attach(classifier(path), rule="vote")


def test_a_model_in_another_dtype_is_rounded_to_and_restored(
    classifiers: tuple[Path, dict[str, SparseTaskVector]],
) -> None:
    path, tasks = classifiers
    model = classifier(path).to(torch.bfloat16)
    before = parameters(model)
    live = attach(model, tasks["sst2"], verify="meta")
    live.activate("sst2")
    name = "encoder.layer.0.output.dense.weight"
    kept = tasks["sst2"].tensors[name]
    wanted = before[f"bert.{name}"].reshape(-1).clone()
    wanted[kept.positions] = (
        wanted.float()[kept.positions] + torch.from_numpy(kept.values.copy()) * live.state().active[0].scale  # type: ignore[union-attr]
    ).bfloat16()
    np.testing.assert_array_equal(bits(parameters(model)[f"bert.{name}"]), bits(wanted))
    live.deactivate()
    assert_same(parameters(model), before)


def test_added_rows_are_refused_with_advice(tmp_path: Path) -> None:
    build("BertForSequenceClassification").save_pretrained(tmp_path / "base")
    grown = build("BertForSequenceClassification")
    move(grown, seed=1)
    grown.resize_token_embeddings(43)
    grown.save_pretrained(tmp_path / "grown")
    task = sparsetv.pack(tmp_path / "base", tmp_path / "grown", name="grown", options=PackOptions(density=0.1))
    with pytest.raises(ShapeError, match=r"grown adds 3 rows to .*word_embeddings\.weight, which a live model cannot"):
        attach(load(tmp_path / "base", "BertForSequenceClassification"), task)


class Plain(nn.Module):
    """No transformers model."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(8, 8)
        self.outer = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.outer(torch.relu(self.inner(x)))
        return out


def plain_task(path: Path) -> SparseTaskVector:
    from helpers import write_checkpoint

    model = Plain()
    write_checkpoint(path / "base", {name: tensor.clone() for name, tensor in model.state_dict().items()})
    move(model, seed=4)
    write_checkpoint(path / "tuned", {name: tensor.clone() for name, tensor in model.state_dict().items()})
    options = PackOptions(density=0.5, scope=ALL, probe=False)
    return sparsetv.pack(path / "base", path / "tuned", name="task", options=options)


def test_a_compiled_model_sees_the_switch_without_being_compiled_again(tmp_path: Path) -> None:
    from torch._dynamo.testing import CompileCounter

    task, model = plain_task(tmp_path), Plain()
    counter = CompileCounter()
    torch._dynamo.reset()
    compiled: Any = torch.compile(model, backend=counter)
    x = torch.randn(4, 8)
    with torch.no_grad():
        start = compiled(x)
        live = attach(compiled, task, scale="none")
        for _ in range(3):
            live.activate("task")
            assert torch.equal(compiled(x), model(x))
            assert not torch.equal(compiled(x), start)
            live.deactivate()
            assert torch.equal(compiled(x), start)
    assert counter.frame_count == 1


def test_files_are_read_and_public_names_are_those_of_the_package(tmp_path: Path) -> None:
    task, model = plain_task(tmp_path), Plain()
    sparsetv.write_task(tmp_path / "task.stv", task)
    before = tree(tmp_path)
    live = sparsetv.attach(model, tmp_path / "task.stv")
    assert isinstance(live, LiveModel)
    assert live.tasks == ("task",)
    assert live.state().loaded == ("task",)  # type: ignore[union-attr]
    assert sparsetv.Composer is type(live._composer)
    assert tree(tmp_path) == before
