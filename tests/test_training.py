"""Training: it learns, the same each time, leaves alone what is frozen, and agrees with steps by hand."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny import SIZES, add_tokenizer, lines, texts, write_base

from benchmarks import finetune as finetuning
from sparsetv.bench.finetuning import Plan, finetune, start
from sparsetv.bench.suite import read_suite
from sparsetv.bench.training import Recipe, shuffled, train
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.errors import OutputError, ProbeError, UsageError
from sparsetv.examples.encoding import Batch
from sparsetv.examples.reading import Example
from sparsetv.jobs.evaluate import evaluate


def classifier(seed: int = 0, **settings: Any) -> Any:
    torch.manual_seed(seed)
    config = transformers.BertConfig(**SIZES, num_labels=2, initializer_range=0.1, **settings)
    return transformers.BertForSequenceClassification(config)


def batches(count: int = 4) -> list[Batch]:
    """The label is the half of the vocabulary that a text is from."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(4, 22, (count, 8, 5), generator=generator)
    labels = torch.randint(0, 2, (count, 8), generator=generator)
    return [{"input_ids": part + 18 * own[:, None], "labels": own} for part, own in zip(ids, labels, strict=True)]


def state(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "recipe", [Recipe(rate=5e-3, epochs=15), Recipe("sgd", rate=0.1, epochs=15, momentum=0.9)], ids=["adamw", "sgd"]
)
def test_it_learns(recipe: Recipe) -> None:
    model, data = classifier(), batches(8)
    losses = train(model, lambda _: data, recipe)
    assert len(losses) == 15
    assert losses[-1] < 0.1 < losses[0]
    assert not model.training


def test_the_same_recipe_gives_the_same_bits_and_leaves_the_generator_alone() -> None:
    data, found = batches(), []
    for seed in (3, 3, 4):
        model = classifier()
        torch.manual_seed(9)
        train(model, lambda _: data, Recipe(epochs=2, rate=1e-2, seed=seed))
        found.append((state(model), torch.rand(1)))
    torch.manual_seed(9)
    assert all(torch.equal(number, torch.rand(1, generator=torch.Generator().manual_seed(9))) for _, number in found)
    assert same(found[0][0], found[1][0])
    assert not same(found[0][0], found[2][0])  # dropout differs


def test_sgd_is_what_hand_and_pencil_give() -> None:
    """Rates rise over a fifth of the steps and fall to a last step above zero; matrices alone decay."""
    model, data = classifier(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), batches(2)
    other = classifier(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    train(model, lambda _: data, Recipe("sgd", rate=0.1, epochs=5, weight_decay=0.3, warmup=0.2))
    rates = [0.1 / 3, 0.2 / 3, *(0.1 * left / 8 for left in range(8, 0, -1))]
    for step, rate in enumerate(rates):
        batch = data[step % 2]
        loss = other(input_ids=batch["input_ids"], labels=batch["labels"]).loss
        gradients = torch.autograd.grad(loss, list(other.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(other.parameters(), gradients, strict=True):
                decay = 0.3 * parameter if parameter.dim() > 1 else 0.0
                parameter.sub_(rate * (gradient + decay))
    for name, tensor in state(model).items():
        torch.testing.assert_close(tensor, other.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_frozen_parameters_keep_their_bits_and_their_wishes() -> None:
    model, data = classifier(), batches()
    model.classifier.bias.requires_grad_(False)
    before = state(model)
    train(model, lambda _: data, Recipe(rate=1e-2, frozen=("embeddings", "bert.pooler")))
    moved = {name for name, tensor in state(model).items() if not torch.equal(tensor, before[name])}
    assert moved
    assert not [name for name in moved if name.startswith(("bert.embeddings", "bert.pooler"))]
    assert {name for name, _ in model.named_parameters()} - moved == {
        name for name, _ in model.named_parameters() if name.startswith(("bert.embeddings", "bert.pooler"))
    }
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert [name for name, wants in wanted.items() if not wants] == ["classifier.bias"]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_bf16_products_leave_weights_in_float32() -> None:
    model, data = classifier(), batches()
    train(model, lambda _: data, Recipe(rate=5e-3, precision="bf16"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_progress_counts_steps() -> None:
    seen: list[tuple[str, int, int]] = []
    data = batches(3)
    train(classifier(), lambda _: data, Recipe(epochs=2), progress=lambda *report: seen.append(report))
    assert seen == [("train", step, 6) for step in range(1, 7)]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe("lion"), "unknown optimizer 'lion'; known are adamw, sgd"),
        (Recipe(frozen=("decoder",)), r"no parameter begins with 'decoder'; the first is bert\.embeddings"),
        (Recipe(frozen=("bert", "classifier")), "nothing is left to train: bert, classifier is all there is"),
        (Recipe(precision="fp8"), "unknown precision 'fp8'"),
    ],
)
def test_recipes_that_cannot_be_are_refused(recipe: Recipe, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        train(classifier(), lambda _: batches(1), recipe)


def test_no_batches_and_infinite_losses_are_refused() -> None:
    with pytest.raises(UsageError, match="no batches"):
        train(classifier(), lambda _: [], Recipe())
    model = classifier()
    with torch.no_grad():
        model.classifier.bias.fill_(torch.inf)
    with pytest.raises(ProbeError, match="the loss is nan"):
        train(model, lambda _: batches(1), Recipe())
    assert not model.training


def test_batches_are_all_examples_in_another_order_each_epoch(tmp_path: Path) -> None:
    add_tokenizer(tmp_path)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    examples = [Example(text, None, number % 2) for number, text in enumerate(texts(11))]
    epoch = shuffled(classifier(), tokenizer, examples, batch_size=4, seed=5)

    def rows(parts: Sequence[Batch]) -> list[tuple[list[int], int]]:
        return [
            ([token for token in row.tolist() if token], int(label))
            for part in parts
            for row, label in zip(part["input_ids"], part["labels"], strict=True)
        ]

    first, again, second = rows(epoch(0)), rows(epoch(0)), rows(epoch(1))
    assert [len(part["labels"]) for part in epoch(0)] == [4, 4, 3]
    assert first == again != second
    assert sorted(first) == sorted(second)
    assert len(epoch(1)) == 3


# Fine-tunes of a suite


def write_suite(path: Path) -> Path:
    """A base, and one task whose labels are names: which half of the vocabulary a text is from."""
    (path / "tasks").mkdir(parents=True)
    add_tokenizer(path / "base")
    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig(**SIZES, initializer_range=0.1)).save_pretrained(path / "base")
    rows = [
        {"text": " ".join(f"w{18 * half + (number * 7 + at) % 18}" for at in range(5)), "label": ("low", "high")[half]}
        for number in range(60)
        for half in range(2)
    ]
    lines(path / "tasks" / "train.jsonl", rows[:80])
    lines(path / "tasks" / "test.jsonl", rows[80:])
    toml = 'name = "halves"\nbase = "base"\nmax_length = 16\n[[tasks]]\nname = "half"\ndata = "tasks"\n'
    (path / "suite.toml").write_text(toml + '[[tasks]]\nname = "bare"\n')
    return path / "suite.toml"


def test_fine_tunes_are_made_once_and_learn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_suite(tmp_path / "suite")
    options = ["--tasks", "half", "--shots", "20", "--rate", "0.01", "--batch-size", "8", "--device", "cpu"]
    command = [str(source), "-o", str(tmp_path / "out"), *options]
    finetuning.main(command)
    name, state_, reached = capsys.readouterr().out.strip().split("\t")
    assert (name, state_) == ("half", "made")
    assert float(reached.split()[1]) > 0.9
    result = evaluate(tmp_path / "out" / "half", tmp_path / "suite" / "tasks" / "test.jsonl")
    assert f"accuracy {result.value:.4f} of 40" == reached
    before = (tmp_path / "out/half/model.safetensors").stat().st_mtime_ns
    finetuning.main(command)
    assert capsys.readouterr().out == f"half\twas there\t{reached}\n"
    assert (tmp_path / "out/half/model.safetensors").stat().st_mtime_ns == before
    first = (tmp_path / "out/half/model.safetensors").read_bytes()
    finetuning.main([*command[:3], *options[2:], "--tasks", "half", "--epochs", "1"])
    assert "made" in capsys.readouterr().out
    assert (tmp_path / "out/half/model.safetensors").read_bytes() != first
    config = transformers.AutoConfig.from_pretrained(tmp_path / "out/half")
    assert config.id2label == {0: "high", 1: "low"}


def test_only_classifications_with_data_are_fine_tuned(tmp_path: Path) -> None:
    suite = read_suite(write_suite(tmp_path / "suite"))
    with pytest.raises(UsageError, match="bare: the suite names no training data"):
        finetune(suite, suite.task("bare"), tmp_path / "out", Plan())
    with pytest.raises(UsageError, match="half: only classifiers are fine-tuned here, not choices"):
        finetune(suite, replace(suite.task("half"), kind="choices"), tmp_path / "out", Plan())
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match=r"out: it exists, and holds no training\.json"):
        finetune(suite, suite.task("half"), tmp_path / "out", Plan())


def test_numbers_and_names_are_not_mixed_as_labels(tmp_path: Path) -> None:
    base = open_checkpoint(write_base(tmp_path / "base"))
    examples = [Example("w1", None, 1), Example("w2", None, "yes")]
    with pytest.raises(UsageError, match="some labels are numbers and some are names"):
        start(base, examples, seed=0)
    model, _ = start(base, [replace(example, label=4) for example in examples], seed=0)
    again, _ = start(base, [replace(example, label=4) for example in examples], seed=0)
    assert model.get_parameter("classifier.weight").shape[0] == 5
    assert same(state(model), state(again))
