"""Training: it learns, the same each time, leaves alone what is frozen, and agrees with steps by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny import SIZES, add_tokenizer, texts

from sparsetv.bench.training import Recipe, shuffled, train
from sparsetv.errors import ProbeError, UsageError
from sparsetv.examples.encoding import Batch
from sparsetv.examples.reading import Example


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
