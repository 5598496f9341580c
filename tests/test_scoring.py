"""Scores against slow oracles: one example at a time, no batch, no padding."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny import VOCABULARY, clip, gpt, lines, texts, write_base, write_classifier

from sparsetv.errors import FormatError, NotFoundError, UsageError
from sparsetv.evaluation.choices import Choice, choices_accuracy, likelihoods, read_choices
from sparsetv.evaluation.classify import Score, accuracy, score
from sparsetv.evaluation.zero_shot import zero_shot_classifier
from sparsetv.examples.reading import read_examples


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30))
def test_f1_is_that_of_precision_and_recall(pairs: list[tuple[int, int]]) -> None:
    """`pairs` are what was said and what is true."""
    right = sum(said == true for said, true in pairs)
    found = sum(said == true == 1 for said, true in pairs)
    given_ = sum(said == 1 for said, _ in pairs)
    there = sum(true == 1 for _, true in pairs)
    got = Score(right, len(pairs), found, given_, there)
    assert got.accuracy == got.of("accuracy") == right / len(pairs)
    if found:
        precision, recall = found / given_, found / there
        assert got.of("f1") == pytest.approx(2 * precision * recall / (precision + recall))
    else:
        assert got.f1 == 0


def test_scores_count_what_a_model_says(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    path = write_classifier(tmp_path / "random", base, classes=3, seed=5)
    model = transformers.BertForSequenceClassification.from_pretrained(path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    said = [int(model(**tokenizer(text, return_tensors="pt")).logits.argmax()) for text in texts(150)]
    true = [number * number % 3 for number in range(150)]
    rows = [{"text": text, "label": label} for text, label in zip(texts(150), true, strict=True)]
    examples = read_examples(lines(tmp_path / "d.jsonl", rows))
    found = score(model, tokenizer, examples)
    pairs = list(zip(said, true, strict=True))
    assert len(set(said)) > 1
    assert found == Score(sum(a == b for a, b in pairs), 150, pairs.count((1, 1)), said.count(1), true.count(1))
    assert accuracy(model, tokenizer, examples).value == found.accuracy
    with pytest.raises(UsageError, match="unknown metric 'auc'; known are accuracy, f1"):
        found.of("auc")


# Multiple choice


def questions() -> list[dict[str, Any]]:
    """Prompts of 1 to 8 words, 2 to 4 answers of 1 to 3."""
    words = iter(" ".join(texts(400)).split())
    rows: list[dict[str, Any]] = []
    for number in range(40):
        choices = [" ".join(next(words) for _ in range(1 + (number + at) % 3)) for at in range(2 + number % 3)]
        prompt = " ".join(next(words) for _ in range(1 + number % 8))
        right = {"label": number % 2} if number % 4 else {"labels": [1, *(at % 2 for at in range(1, len(choices)))]}
        rows.append({"prompt": prompt, "choices": choices, **right})
    return rows


def likelihood(model: Any, prompt: str, choice: str, limit: int = 16) -> tuple[float, int]:
    """Token by token: each is asked for on its own, after all before it."""
    ids = [VOCABULARY.index(word) for word in f"{prompt} {choice}".split()]
    total, count = 0.0, len(choice.split())
    for at in range(len(ids) - count, len(ids)):
        seen = ids[max(len(ids) - limit, 0) : at]
        with torch.no_grad():
            chances = model(input_ids=torch.tensor([seen])).logits[0, -1].double().softmax(-1)
        total += math.log(float(chances[ids[at]]))
    return total, count


def test_choices_against_one_token_at_a_time(tmp_path: Path) -> None:
    model, tokenizer = gpt(tmp_path)
    rows = questions()
    read = read_choices(lines(tmp_path / "q.jsonl", rows))
    wanted = [[likelihood(model, row["prompt"], choice) for choice in row["choices"]] for row in rows]
    for found, row in zip(likelihoods(model, tokenizer, read), wanted, strict=True):
        assert [count for _, count in found] == [count for _, count in row]
        assert [total for total, _ in found] == pytest.approx([total for total, _ in row], abs=1e-4)
    right = [row.get("labels") or [int(at == row["label"]) for at in range(len(row["choices"]))] for row in rows]
    plain = [own[max(range(len(row)), key=lambda at: row[at][0])] for row, own in zip(wanted, right, strict=True)]
    mean = [
        own[max(range(len(row)), key=lambda at: row[at][0] / row[at][1])]
        for row, own in zip(wanted, right, strict=True)
    ]
    mass = [
        sum(math.exp(total) * is_right for (total, _), is_right in zip(row, own, strict=True))
        / sum(math.exp(total) for total, _ in row)
        for row, own in zip(wanted, right, strict=True)
    ]
    seen: list[int] = []
    found_ = choices_accuracy(model, tokenizer, read, progress=seen.append)
    assert found_.total == sum(seen) == 40
    assert (found_.accuracy, found_.normalised) == (sum(plain) / 40, sum(mean) / 40)
    assert found_.accuracy != found_.normalised
    assert found_.of("mass") == found_.mass == pytest.approx(sum(mass) / 40, abs=1e-5)
    with pytest.raises(UsageError, match="unknown measure 'f1'; known are accuracy, normalised, mass"):
        found_.of("f1")


def test_long_prompts_lose_their_beginning(tmp_path: Path) -> None:
    model, tokenizer = gpt(tmp_path)
    question = Choice(" ".join(f"w{number}" for number in range(30)), ("w3", "w4 w5"), (True, False))
    ((first, second),) = likelihoods(model, tokenizer, [question])
    assert first[0] == pytest.approx(likelihood(model, question.prompt, "w3")[0], abs=1e-4)
    assert second[0] == pytest.approx(likelihood(model, question.prompt, "w4 w5")[0], abs=1e-4)
    ((short, _),) = likelihoods(model, tokenizer, [question], max_length=3)
    assert short[0] == pytest.approx(likelihood(model, question.prompt, "w3", limit=3)[0], abs=1e-4)
    with pytest.raises(UsageError, match="question 2 has a prompt of no tokens"):
        likelihoods(model, tokenizer, [question, Choice("", ("w3", "w4"), (True, False))])
    for choice in ("", "w1 " * 16):
        with pytest.raises(UsageError, match="at least 1 and at most 15 fit"):
            likelihoods(model, tokenizer, [Choice("w1", ("w2", choice), (True, False))])
    with pytest.raises(UsageError, match="there are no questions"):
        choices_accuracy(model, tokenizer, [])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "choices": ["b"], "label": 0}, "two or more strings `choices`"),
        ({"prompt": "a", "choices": ["b", 1], "label": 0}, "two or more strings `choices`"),
        ({"choices": ["b", "c"], "label": 0}, "needs a string `prompt`"),
        ([1], "needs a string `prompt`"),
        ({"prompt": "a", "choices": ["b", "c"], "label": 2}, "needs a `label`, the number of a choice"),
        ({"prompt": "a", "choices": ["b", "c"], "label": True}, "needs a `label`, the number of a choice"),
        ({"prompt": "a", "choices": ["b", "c"], "labels": [0, 0]}, "0 or 1 for each, not all 0"),
        ({"prompt": "a", "choices": ["b", "c"], "labels": [1]}, "0 or 1 for each"),
        ({"prompt": "a", "choices": ["b", "c"], "labels": [1, [2]]}, "0 or 1 for each"),
    ],
)
def test_questions_that_are_none_are_refused_with_their_line(row: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=rf"q\.jsonl:1: .*{message}"):
        read_choices(lines(tmp_path / "q.jsonl", [row]))
    with pytest.raises(FormatError, match="no questions"):
        read_choices(lines(tmp_path / "q.jsonl", []))
    with pytest.raises(NotFoundError, match=r"none\.jsonl: no such file"):
        read_choices(tmp_path / "none.jsonl")


# Classes by name


def clip_logits(model: Any, tokenizer: Any, image: torch.Tensor, texts_: list[str]) -> list[float]:
    """One image and one text at a time, through the whole model's own forward."""
    found = []
    for text in texts_:
        inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        with torch.no_grad():
            found.append(float(model(**inputs, pixel_values=image[None]).logits_per_image))
    return found


def test_classes_by_name_are_clip_s_own_logits(tmp_path: Path) -> None:
    model, tokenizer = clip(tmp_path)
    model.save_pretrained(tmp_path)
    names = ["w1", "w2 w3 w4", "w5 w6"]
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = [clip_logits(model, tokenizer, image, [f"w7 {name} w8" for name in names]) for image in images]
    visions = (
        model,
        transformers.CLIPVisionModel.from_pretrained(tmp_path).eval(),
        transformers.CLIPVisionModelWithProjection.from_pretrained(tmp_path).eval(),
    )
    for vision in visions:
        classifier = zero_shot_classifier(vision, model, tokenizer, names, "w7 {} w8")
        with torch.no_grad():
            found = classifier(pixel_values=images).logits
        torch.testing.assert_close(found, torch.tensor(wanted), rtol=1e-4, atol=1e-4)


def test_several_templates_are_averaged_and_weights_are_shared(tmp_path: Path) -> None:
    model, tokenizer = clip(tmp_path)
    names, templates = ["w1", "w2 w3"], ["w4 {}", "{} w5 w6"]
    classifier = zero_shot_classifier(model, model, tokenizer, names, templates)
    image = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        vision = model.visual_projection(model.vision_model(pixel_values=image).pooler_output)[0]
        for index, name in enumerate(names):
            rows = []
            for template in templates:
                ids = tokenizer(template.format(name), return_tensors="pt")["input_ids"]
                row = model.text_projection(model.text_model(input_ids=ids).pooler_output)[0]
                rows.append(row / row.norm())
            mean = sum(rows) / 2
            wanted = float(model.logit_scale.exp() * (mean / mean.norm()) @ vision / vision.norm())
            assert float(classifier(pixel_values=image).logits[0, index]) == pytest.approx(wanted, rel=1e-4)
        before = classifier(pixel_values=image).logits
        model.vision_model.post_layernorm.bias.add_(torch.randn(12))
        assert not torch.allclose(before, classifier(pixel_values=image).logits)


def test_images_in_files_are_scored_by_names(tmp_path: Path) -> None:
    model, tokenizer = clip(tmp_path)
    settings = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 8},
                "crop_size": {"height": 8, "width": 8}}  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    classifier = zero_shot_classifier(model, model, tokenizer, ["w1", "w2", "w3"], "w4 {}")
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    said = []
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
        inputs = processor(images=Image.fromarray(image), return_tensors="pt")["pixel_values"]
        said.append(int(classifier(pixel_values=inputs).logits.argmax()))
    assert len(set(said)) > 1
    rows = [{"image": f"{number}.png", "label": f"w{1 + label}"} for number, label in enumerate(said)]
    assert score(classifier, processor, read_examples(lines(tmp_path / "d.jsonl", rows))).accuracy == 1.0


def test_names_and_templates_that_cannot_be_are_refused(tmp_path: Path) -> None:
    model, tokenizer = clip(tmp_path)
    for names, template, message in (
        ([], "{}", "names of classes must be there, and differ"),
        (["a", "a"], "{}", "names of classes must be there, and differ"),
        (["a"], "a photo", r"a template needs \{\} where the name of a class goes"),
        (["a"], [], r"a template needs \{\}"),
    ):
        with pytest.raises(UsageError, match=message):
            zero_shot_classifier(model, model, tokenizer, names, template)
