"""Suites of images scored by the names of classes, and of multiple choice, on tiny random models."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tiny import clip, gpt, lines, texts

from sparsetv.bench.lab import Lab
from sparsetv.bench.run import Selection, bench
from sparsetv.bench.suite import Suite, Task
from sparsetv.errors import ProbeError, UsageError
from sparsetv.evaluation.choices import choices_accuracy, read_choices
from sparsetv.evaluation.zero_shot import zero_shot_classifier
from sparsetv.results import read_results


def moved(model: Any, seed: int) -> Any:
    """A model with noise on all of its weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    room = tmp_path_factory.mktemp("clip")
    base = room / "base"
    model, _ = clip(base)
    model.save_pretrained(base)
    settings = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 8},
                "crop_size": {"height": 8, "width": 8}}  # fmt: skip
    (base / "preprocessor_config.json").write_text(json.dumps(settings))
    pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(room / f"{number}.png")
    data = lines(room / "d.jsonl", [{"image": f"{number}.png", "label": number % 3} for number in range(24)])
    tasks = []
    for seed, name in enumerate(("one", "two")):
        moved(transformers.CLIPVisionModel.from_pretrained(base), seed).save_pretrained(room / name)
        how = {"template": "w7 {} w8", "names": ["w1", "w2 w3", "w5"]}
        tasks.append(Task(name, str(room / name), test=str(data), kind="zero-shot", settings=how))
    return Suite("images", str(base), tuple(tasks), ("one", "two"), scope=("blocks", "!text_model.*"))


def test_images_by_names_of_classes_are_merged_and_scored(images: Suite, tmp_path: Path) -> None:
    path = bench("merge", images, tmp_path, choice=Selection(methods=["average", "stitch-5"]))
    found = {(row["of"]["method"], row["of"]["task"]): row.get("value") for row in read_results(path).rows}
    base = transformers.CLIPModel.from_pretrained(images.base).eval()
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(images.base)
    processor = transformers.AutoImageProcessor.from_pretrained(images.base)
    names, template = images.tasks[0].settings["names"], images.tasks[0].settings["template"]
    room = Path(images.tasks[0].test).parent
    opened = [Image.open(room / f"{number}.png").convert("RGB") for number in range(24)]
    pixels = processor(images=opened, return_tensors="pt")["pixel_values"]

    def accuracy(vision: Any) -> float:
        with torch.no_grad():
            said = zero_shot_classifier(vision.eval(), base, tokenizer, names, template)(pixel_values=pixels).logits
        return round(float((said.argmax(dim=1) == torch.arange(24) % 3).double().mean()), 6)

    tuned = [transformers.CLIPVisionModel.from_pretrained(task.finetuned) for task in images.tasks]
    assert found["base", "one"] == accuracy(transformers.CLIPVisionModel.from_pretrained(images.base))
    assert [found["finetuned", task.name] for task in images.tasks] == [accuracy(model) for model in tuned]
    with torch.no_grad():
        for first, second in zip(tuned[0].parameters(), tuned[1].parameters(), strict=True):
            first.copy_((first + second) / 2)
    assert found["average", "one"] == accuracy(tuned[0])


def test_what_learns_is_left_out_for_images_by_names(images: Suite, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="learns from no examples here"):
        bench("merge", images, tmp_path, choice=Selection(methods=["adamerging"]))


def test_names_need_a_template_and_a_base_of_clip(images: Suite, tmp_path: Path) -> None:
    task = images.tasks[0]
    bare = Task(task.name, task.finetuned, test=task.test, kind="zero-shot")
    with pytest.raises(UsageError, match=r"settings\.template"):
        Lab(Suite("s", images.base, (bare,), ()), tmp_path).subject("one")
    unnamed = Task(task.name, task.finetuned, test=task.test, kind="zero-shot", settings={"template": "w7 {} w8"})
    with pytest.raises(UsageError, match=r"names no classes; name them in the suite: settings\.names"):
        Lab(Suite("s", images.base, (unnamed,), ()), tmp_path).subject("one")
    other = tmp_path / "base"
    shutil.copytree(Path(images.base), other)
    transformers.CLIPVisionModel.from_pretrained(images.base).save_pretrained(other)
    with pytest.raises(ProbeError, match="the base is no CLIP model"):
        Lab(Suite("s", str(other), (task,), ()), tmp_path).subject("one")


def test_multiple_choice_is_merged_and_scored(tmp_path: Path) -> None:
    base = tmp_path / "base"
    model, tokenizer = gpt(base)
    tokenizer.save_pretrained(base)
    model.save_pretrained(base)
    words = texts(60)
    rows = [{"prompt": words[3 * n], "choices": words[3 * n + 1 : 3 * n + 3], "label": n % 2} for n in range(20)]
    data = lines(tmp_path / "d.jsonl", rows)
    tasks = []
    for seed, name in enumerate(("one", "two")):
        moved(transformers.GPT2LMHeadModel.from_pretrained(base), seed).save_pretrained(tmp_path / name)
        measure = {"measure": "mass" if seed else "accuracy"}
        tasks.append(Task(name, str(tmp_path / name), test=str(data), kind="choices", settings=measure))
    suite = Suite("choices", str(base), tuple(tasks), ("one", "two"), max_length=16)
    path = bench("merge", suite, tmp_path / "o", choice=Selection(methods=["arithmetic", "stitch-5-scaled"]))
    found = {(row["of"]["method"], row["of"]["task"]): row.get("value") for row in read_results(path).rows}
    for task in tasks:
        tuned = transformers.GPT2LMHeadModel.from_pretrained(task.finetuned).eval()
        wanted = choices_accuracy(tuned, tokenizer, read_choices(data)).of(str(task.settings["measure"]))
        assert found["finetuned", task.name] == pytest.approx(wanted, abs=1e-6)
    with pytest.raises(UsageError, match="only classifiers learn"):
        bench("merge", suite, tmp_path / "o", choice=Selection(methods=["ties-tuned"]))
