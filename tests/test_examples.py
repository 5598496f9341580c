"""Examples: what a line may be, which are chosen, and the tensors that models get."""

import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny import SIZES, VOCABULARY, add_tokenizer, lines

from sparsetv.errors import FormatError, NotFoundError, UsageError
from sparsetv.examples.encoding import IGNORED, encode
from sparsetv.examples.hub import class_names
from sparsetv.examples.reading import Example, read_examples
from sparsetv.examples.sampling import sample
from sparsetv.objective.loss import task_loss


def test_all_kinds_of_lines(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], Example]] = [
        ({"text": "a", "label": 1}, Example("a", None, 1)),
        ({"text_a": "a", "text_b": "b", "label": "yes"}, Example("a", "b", "yes")),
        ({"image": "x/y.png", "label": 0}, Example("", None, 0, image=tmp_path / "x" / "y.png")),
        ({"prompt": "a", "completion": "b"}, Example("a", None, None, completion="b")),
    ]
    for row, wanted in cases:
        assert read_examples(lines(tmp_path / "d.jsonl", [row])) == [wanted]
    unlabelled = lines(tmp_path / "d.jsonl", [{"text": "a"}, {"text": "b", "label": 1}])
    assert [example.label for example in read_examples(unlabelled, labelled=False)] == [None, 1]
    with pytest.raises(FormatError, match=r"d.jsonl:1: needs a `label`"):
        read_examples(unlabelled)


def test_kinds_are_not_mixed(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 1}, {"prompt": "a", "completion": "b"}]
    with pytest.raises(FormatError, match=r"examples of 2 kinds \(completion, text\); use one throughout"):
        read_examples(lines(tmp_path / "d.jsonl", rows))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, ...], Any]:
    """The package is an extra: a module of its name with its one function stands in for it, over these sets."""
    sets: dict[tuple[str, ...], Any] = {}

    def load_dataset(*name: str, split: str) -> Any:
        if (*name, split) not in sets:
            raise ValueError("no such set")
        return sets[(*name, split)]

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return sets


def test_a_data_set_comes_from_its_package(hub: dict[tuple[str, ...], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    hub["org/set", "validation"] = [{"text": "a", "label": 1}]
    hub["org/set", "train"] = [{"text": "b", "label": 1}]
    hub["org/set", "train[:10%]"] = [{"text": "c", "label": 1}]
    hub["org/set", "first", "validation"] = [{"text": "d", "label": 1}]
    hub["org/set", "first", "test[1:2]"] = [{"text": "e", "label": 1}]
    for name, text in (
        ("org/set:validation", "a"),
        ("org/set", "b"),
        ("org/set:train[:10%]", "c"),
        ("org/set:first:validation", "d"),
        ("org/set:first:test[1:2]", "e"),
    ):
        assert read_examples(name) == [Example(text, None, 1)]
    with pytest.raises(NotFoundError, match=r"gone: cannot be loaded as a data set \(no such set\)"):
        read_examples("gone")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(NotFoundError, match=r"org/set: no such file; for a data set of the hub install the extra"):
        read_examples("org/set")
    with pytest.raises(NotFoundError, match=r"x\.jsonl: no such file$"):
        read_examples("x.jsonl")


def test_minus_one_is_no_label_on_the_hub(hub: dict[tuple[str, ...], Any], tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": -1}]
    hub["set", "train"] = rows
    assert read_examples("set") == [Example("a", None, 1)]
    assert [example.label for example in read_examples("set", labelled=False)] == [1, None]
    hub["set", "test"] = rows[1:]
    with pytest.raises(FormatError, match="set:test: no examples"):
        read_examples("set:test")
    assert [example.label for example in read_examples(lines(tmp_path / "d.jsonl", rows))] == [1, -1]


def test_columns_of_other_names(hub: dict[tuple[str, ...], Any], tmp_path: Path) -> None:
    row = {"premise": "a", "hypothesis": "b", "text": "c", "label": 2, "gold": "no", "number": 7}
    file = lines(tmp_path / "d.jsonl", [row])
    pair = {"text_a": "premise", "text_b": "hypothesis"}
    assert read_examples(file, columns=pair) == [Example("a", "b", 2)]
    assert read_examples(file, columns={**pair, "label": "gold"}) == [Example("a", "b", "no")]
    assert read_examples(file, columns={"text": "hypothesis"}) == [Example("b", None, 2)]
    asked = {"prompt": "premise", "completion": "hypothesis"}
    assert read_examples(file, columns=asked) == [Example("a", None, None, completion="b")]
    hub["set", "train"] = [row, {**row, "gold": -1}]
    assert read_examples("set", columns={**pair, "label": "gold"}) == [Example("a", "b", "no")]
    with pytest.raises(FormatError, match=r"d\.jsonl:1: has no 'question'; it has premise, hypothesis, text"):
        read_examples(file, columns={"text": "question"})
    with pytest.raises(UsageError, match="no column of an example is called 'sentence'; there are text, text_a"):
        read_examples(file, columns={"sentence": "text"})
    with pytest.raises(FormatError, match=r"d\.jsonl:1: needs a `label`"):
        read_examples(lines(tmp_path / "d.jsonl", [[1]]), columns=pair)


def test_names_of_classes_come_with_a_data_set(hub: dict[tuple[str, ...], Any]) -> None:
    named = types.SimpleNamespace(names=["annual_crop land", "forest"])
    hub["set", "test"] = types.SimpleNamespace(features={"label": named, "other": None})
    assert class_names("set:test") == ("annual crop land", "forest")
    with pytest.raises(FormatError, match="set:test: its column 'other' names no classes"):
        class_names("set:test", column="other")
    with pytest.raises(NotFoundError, match="gone: cannot be loaded"):
        class_names("gone")


class ImageSet:
    """Rows as `datasets` gives them: images as objects, or cast to bytes when that is asked for."""

    def __init__(self, rows: list[dict[str, Any]], feature: Any) -> None:
        self.rows, self.features = rows, {"img": feature, "label": None}

    def cast_column(self, column: str, feature: Any) -> "ImageSet":
        assert not feature.decode
        stored = [{**row, column: {"bytes": row[column], "path": None}} for row in self.rows]
        return ImageSet(stored, feature)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.rows[number]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)


def test_images_of_a_data_set_are_read_when_they_are_encoded(hub: dict[tuple[str, ...], Any], tmp_path: Path) -> None:
    feature = type("Image", (), {"__init__": lambda self, decode=True: setattr(self, "decode", decode)})
    rows = []
    for level in (0, 255):
        Image.fromarray(np.full((4, 4, 3), level, np.uint8)).save(tmp_path / "x.png")
        rows.append({"img": (tmp_path / "x.png").read_bytes(), "label": level // 255})
    hub["set", "train"] = ImageSet([*rows, {"img": b"none", "label": 0}], feature())
    examples = read_examples("set", columns={"image": "img"})
    assert [example.kind for example in examples] == ["image"] * 3
    assert len(set(examples)) == 3
    model, processor = classifier_of_images(tmp_path)
    (batch,) = encode(model, processor, examples[:2], batch_size=2)
    assert batch["labels"].tolist() == [0, 1]
    assert batch["pixel_values"].mean(dim=(1, 2, 3)).tolist() == [-1.0, 1.0]
    with pytest.raises(FormatError, match="set, row 2: cannot be read as an image"):
        encode(model, processor, examples[2:], batch_size=1)


@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    shots=st.one_of(st.none(), st.integers(1, 20)),
    seed=st.integers(0, 1000),
)
def test_shots_are_drawn_from_each_class(labels: list[int], shots: int | None, seed: int) -> None:
    examples = [Example(str(number), None, label) for number, label in enumerate(labels)]
    chosen = sample(examples, shots=shots, seed=seed)
    assert len(set(chosen)) == len(chosen)
    for label in set(labels):
        count = labels.count(label)
        assert sum(example.label == label for example in chosen) == (count if shots is None else min(count, shots))
    assert sample(examples, shots=shots, seed=seed) == chosen


def test_another_seed_draws_others() -> None:
    examples = [Example(str(number), None, 0) for number in range(100)]
    drawn = [frozenset(sample(examples, shots=10, seed=seed)) for seed in range(5)]
    assert len(set(drawn)) == 5
    with pytest.raises(UsageError, match="shots is 0; give 1 example per class or more"):
        sample(examples, shots=0)


def gpt(tmp_path: Path) -> tuple[Any, Any]:
    config = transformers.GPT2Config(vocab_size=40, n_positions=16, n_embd=8, n_layer=1, n_head=2)
    add_tokenizer(tmp_path)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    tokenizer.eos_token = "[SEP]"
    return transformers.GPT2LMHeadModel(config).eval(), tokenizer


def test_a_causal_model_is_asked_for_the_completion_alone(tmp_path: Path) -> None:
    model, tokenizer = gpt(tmp_path)
    examples = [Example("w1 w2", None, None, completion="w3"), Example("w4", None, None, completion="w5 w6 w7")]
    (batch,) = encode(model, tokenizer, examples, batch_size=4)
    ids = {word: number for number, word in enumerate(VOCABULARY)}
    first = [2, ids["w1"], ids["w2"], 3]
    assert batch["input_ids"][0].tolist() == [*first, ids["w3"], 3, 0]
    assert batch["labels"][0].tolist() == [IGNORED] * 4 + [ids["w3"], 3, IGNORED]
    assert batch["attention_mask"][0].tolist() == [1] * 6 + [0]
    assert batch["labels"][1].tolist() == [IGNORED] * 3 + [ids["w5"], ids["w6"], ids["w7"], 3]
    own = {name: tensor for name, tensor in batch.items() if name != "labels"}
    with torch.no_grad():
        logits = model(**own).logits.log_softmax(-1)
        wanted = [
            -float(logits[row, at - 1, token])
            for row, labels in enumerate(batch["labels"].tolist())
            for at, token in enumerate(labels)
            if token != IGNORED
        ]
        assert float(task_loss(model, batch)) == pytest.approx(np.mean(wanted), rel=1e-5)


def test_a_text_without_completion_counts_whole_and_long_ones_are_cut(tmp_path: Path) -> None:
    model, tokenizer = gpt(tmp_path)
    (batch,) = encode(model, tokenizer, [Example("w1 " * 40, None, None)], batch_size=1)
    assert batch["input_ids"].shape == (1, 16)
    assert torch.equal(batch["labels"], batch["input_ids"])


def classifier_of_images(tmp_path: Path) -> tuple[Any, Any]:
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 4, "width": 4}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    config = transformers.ViTConfig(
        image_size=4, patch_size=2, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    loaded = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    return transformers.ViTForImageClassification(config), loaded


def test_images_go_through_the_model_s_processor(tmp_path: Path) -> None:
    Image.fromarray(np.full((9, 7, 3), 255, np.uint8)).save(tmp_path / "white.png")
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "black.png")
    (tmp_path / "text.png").write_text("no image")
    rows = [{"image": "white.png", "label": 1}, {"image": "black.png", "label": 0}]
    examples = read_examples(lines(tmp_path / "d.jsonl", rows))
    model, loaded = classifier_of_images(tmp_path)
    (batch,) = encode(model, loaded, examples, batch_size=2)
    assert batch["pixel_values"].shape == (2, 3, 4, 4)
    assert batch["labels"].tolist() == [1, 0]
    assert torch.allclose(batch["pixel_values"][0], torch.tensor(1.0))
    assert torch.allclose(batch["pixel_values"][1], torch.tensor(-1.0))
    for name, error, message in [
        ("none.png", NotFoundError, r"none\.png: no such image"),
        ("text.png", FormatError, r"text\.png: cannot be read as an image"),
    ]:
        with pytest.raises(error, match=message):
            encode(model, loaded, [Example("", None, 0, image=tmp_path / name)], batch_size=1)


def test_labels_of_all_or_of_none(tmp_path: Path) -> None:
    add_tokenizer(tmp_path)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES, num_labels=2))
    some = [Example("w1", None, 1), Example("w2", None, None)]
    batches = encode(model, tokenizer, some, batch_size=1)
    assert ["labels" in batch for batch in batches] == [True, False]
    with pytest.raises(UsageError, match="label 2 lies outside the model's 2 classes"):
        encode(model, tokenizer, [Example("w1", None, 2)], batch_size=1)
