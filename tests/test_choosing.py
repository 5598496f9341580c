"""Choosing entries from the command line and through `pack`: localizers, masks, and what they learn from."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
import transformers
from hostile import run
from safetensors.torch import load_file, save_file
from tiny import lines

from sparsetv.container.writer import encode
from sparsetv.errors import CheckpointError, DensityError, NotFoundError, OutputError, ShapeError, UsageError
from sparsetv.jobs.grafts import graft_accuracy
from sparsetv.jobs.learning import Learn, make_objective
from sparsetv.jobs.localize import find_mask, open_pair, scope_names
from sparsetv.jobs.options import PackOptions
from sparsetv.jobs.pack import pack
from sparsetv.localize.scope import Scope
from sparsetv.maskfile import read_mask
from sparsetv.packing.carried import carry
from sparsetv.taskfile import read_task


def kept(task: Any) -> dict[str, list[int]]:
    return {name: tensor.positions.tolist() for name, tensor in task.tensors.items()}


@pytest.mark.parametrize(
    "words",
    [
        ["--localizer", "learned", "--set", "epochs=1"],
        ["--localizer", "learned", "--set", "variant=released", "--target", "finetuned"],
        ["--localizer", "grafting", "--set", "steps=2", "--checkpointing"],
        ["--localizer", "saliency", "--set", "points=2", "--precision", "bf16", "--shots", "all"],
        ["--localizer", "random", "--seed", "7", "--allocation", "tensor"],
    ],
)
def test_a_mask_packs_what_its_localizer_packs(trained: Path, tmp_path: Path, words: list[str]) -> None:
    pair = [trained / "base", trained / "tuned"]
    given = ["--density", "0.05", "--data", trained / "data.jsonl", "--batch-size", "8", *words]
    first = run("localize", *pair, "-o", tmp_path / "m.safetensors", *given, "--json")
    shown = json.loads(first.stdout)
    assert shown["density"] == pytest.approx(0.05, rel=0.01)
    run("pack", *pair, "-o", tmp_path / "a.stv", "--no-probe", "--mask", tmp_path / "m.safetensors")
    run("pack", *pair, "-o", tmp_path / "b.stv", "--no-probe", *given)
    first_task, second_task = read_task(tmp_path / "a.stv"), read_task(tmp_path / "b.stv")
    assert kept(first_task) == kept(second_task)
    assert sum(map(len, kept(first_task).values())) == sum(shown["kept"].values())
    assert first_task.recipe.localizer == "mask"
    assert second_task.recipe.localizer == words[1]
    assert f"density {first_task.density:.6g}, mask" in run("inspect", tmp_path / "a.stv").output


def test_the_paper_s_defaults_run_unchanged_without_data_or_with(trained: Path, tmp_path: Path) -> None:
    for number, words in enumerate([[], ["--data", trained / "data.jsonl"]]):
        out = tmp_path / f"{number}.stv"
        run("pack", trained / "base", trained / "tuned", "-o", out, "--localizer", "learned", *words)
        task = read_task(out)
        assert task.nnz == round(0.01 * task.numel)
        assert task.probe is not None


def test_a_method_s_own_density_is_what_its_threshold_gives(trained: Path, tmp_path: Path) -> None:
    words = ["--localizer", "learned", "--density", "own", "--set", "rate=1e5", "--data", trained / "data.jsonl"]
    result = run("localize", trained / "base", trained / "tuned", "-o", tmp_path / "m", *words)
    assert "own density" in result.output
    vector = open_pair(trained / "base", trained / "tuned")
    mask = read_mask(tmp_path / "m", {n: vector.base.shape(n) for n in scope_names(vector, Scope())})
    options = PackOptions(density=None, mask=tmp_path / "m")
    task = pack(trained / "base", trained / "tuned", options=options)
    assert task.nnz == mask.nnz
    assert task.recipe.density == pytest.approx(mask.density)


def test_tall_chooses_its_factor_by_accuracy_the_smallest_of_equals(trained: Path, tmp_path: Path) -> None:
    learn = Learn(trained / "data.jsonl", shots=5, batch_size=4)
    others = (trained / "other", trained / "third")
    options = PackOptions(density=None, localizer="tall", others=others, learn=learn)
    found = find_mask(trained / "base", trained / "tuned", options=options)
    vector = open_pair(trained / "base", trained / "tuned")
    names = scope_names(vector, Scope())
    carried = carry(vector, names, name="tuned")
    scores = {}
    for factor in (0.2, 0.3, 0.4, 0.5, 0.6):
        own = PackOptions(density=None, localizer="tall", others=others, settings={"factor": factor})
        mask = find_mask(trained / "base", trained / "tuned", options=own).mask
        scores[factor] = graft_accuracy(vector, mask, make_objective(vector, carried, learn, seed=0))
    best = max(scores.values())
    assert found.notes["accuracy"] == pytest.approx(best)
    assert found.notes["factor"] == min(factor for factor, score in scores.items() if score == best)
    with pytest.raises(UsageError, match="tall chooses its factor by accuracy on examples: give --data"):
        find_mask(trained / "base", trained / "tuned", options=PackOptions(None, localizer="tall", others=others))


def test_the_accuracy_of_a_graft_of_everything_is_the_fine_tune_s(trained: Path) -> None:
    vector = open_pair(trained / "base", trained / "tuned")
    names = scope_names(vector, Scope())
    mask = find_mask(trained / "base", trained / "tuned", options=PackOptions(density=1.0)).mask
    model = transformers.BertForSequenceClassification.from_pretrained(trained / "tuned").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained / "tuned")
    rows = [json.loads(line) for line in (trained / "data.jsonl").read_text().splitlines()]
    with torch.inference_mode():
        said = [int(model(**tokenizer(row["text"], return_tensors="pt")).logits.argmax()) for row in rows]
    wanted = np.mean([label == row["label"] for label, row in zip(said, rows, strict=True)])
    learn = Learn(trained / "data.jsonl", shots=None, batch_size=7)
    objective = make_objective(vector, carry(vector, names, name="t"), learn, seed=0)
    assert graft_accuracy(vector, mask, objective) == pytest.approx(wanted)


def test_unlabelled_examples_have_no_accuracy(trained: Path, tmp_path: Path) -> None:
    vector = open_pair(trained / "base", trained / "tuned")
    names = scope_names(vector, Scope())
    mask = find_mask(trained / "base", trained / "tuned").mask
    data = lines(tmp_path / "d.jsonl", [{"text": "w1"}, {"text": "w2 w3"}])
    objective = make_objective(vector, carry(vector, names, name="t"), Learn(data), seed=0)
    with pytest.raises(UsageError, match="accuracy needs examples with a label each"):
        graft_accuracy(vector, mask, objective)


def test_a_mask_of_another_base_or_scope_is_refused(trained: Path, tmp_path: Path) -> None:
    whole = PackOptions(scope=Scope("all"), density=1.0)
    find_mask(trained / "base", trained / "tuned", output=tmp_path / "m", options=whole)
    with pytest.raises(Exception, match="which the scope does not cover; widen it with --scope"):
        pack(trained / "base", trained / "tuned", options=PackOptions(mask=tmp_path / "m"))
    with pytest.raises(NotFoundError, match="none: no such file"):
        pack(trained / "base", trained / "tuned", options=PackOptions(mask=tmp_path / "none"))
    vector = open_pair(trained / "base", trained / "tuned")
    shapes = {name: (1, *vector.base.shape(name)) for name in vector.base.names}
    with pytest.raises(ShapeError, match="is it this base's mask"):
        read_mask(tmp_path / "m", shapes)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--set", "rate=1"], 2, "magnitude has no setting 'rate'; it has none"),
        (["--density", "own"], 2, "magnitude ranks entries and has no density of its own"),
        (["--localizer", "saliency", "--set", "points=0"], 2, "points is 0; give 1 or more"),
        (["--localizer", "learned", "--set", "epochs=-1"], 2, "epochs is -1; give 0 or more"),
        (["--localizer", "tall"], 2, "name them with --other"),
        (["--localizer", "saliency", "--data", "none.jsonl"], 5, "none.jsonl: no such file"),
        (["--localizer", "saliency", "--device", "tpu"], 2, "device 'tpu'"),
        (["--localizer", "saliency", "--shots", "0", "--data", "DATA"], 2, "shots is 0"),
    ],
)
def test_wrong_words(trained: Path, tmp_path: Path, words: list[str], code: int, message: str) -> None:
    given = [str(trained / "data.jsonl") if word == "DATA" else word for word in words]
    result = run("localize", trained / "base", trained / "tuned", "-o", tmp_path / "m", *given)
    assert message in str(result.exception)
    assert getattr(result.exception, "exit_code", None) == code
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "rate"], "'rate' is not NAME=VALUE"),
        (["--shots", "few"], "'few' is neither a number nor 'all'"),
        (["--shots", "1.5"], "'1.5' is no whole number"),
        (["--shots", "nan"], "'nan' is no whole number"),
        (["--density", "dense"], "'dense' is neither a number nor 'own'"),
    ],
)
def test_words_that_are_no_options(trained: Path, tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(click.BadParameter, match=message):
        run("localize", trained / "base", trained / "tuned", "-o", tmp_path / "m", *words)


def test_only_a_mask_is_written_over(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((trained / "base" / "model.safetensors").read_bytes())
    with pytest.raises(OutputError, match="exists and is no mask file; choose another output"):
        find_mask(trained / "base", trained / "tuned", output=tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").read_bytes() == (trained / "base" / "model.safetensors").read_bytes()
    for _ in range(2):
        find_mask(trained / "base", trained / "tuned", output=tmp_path / "m")
    with pytest.raises(OutputError):
        find_mask(trained / "base", trained / "tuned", output=tmp_path / "nowhere" / "m")


@pytest.mark.parametrize(
    "options",
    [
        PackOptions(None, localizer="tall", settings={"factor": 1e9}),
        PackOptions(1e-4, localizer="random", settings={"exact": False}),
    ],
)
def test_a_mask_of_nothing_is_refused(trained: Path, options: PackOptions) -> None:
    with pytest.raises(DensityError, match="no entry is kept: nothing passes the threshold"):
        find_mask(trained / "base", trained / "tuned", options=replace(options, others=(trained / "other",)))


def test_labels_that_are_not_used_may_be_anything(trained: Path, tmp_path: Path) -> None:
    rows = [{"text": "w1 w2", "label": "pos"}, {"text": "w3", "label": 0.25}, {"text": "w4 w5", "label": 99}]
    learn = Learn(lines(tmp_path / "d.jsonl", rows), target="finetuned")
    options = PackOptions(0.1, localizer="saliency", learn=learn)
    assert find_mask(trained / "base", trained / "tuned", options=options).mask.nnz


def test_other_tasks_of_tall_must_have_the_scope(trained: Path, tmp_path: Path) -> None:
    lacking = load_file(trained / "other" / "model.safetensors")
    gone = next(name for name in sorted(lacking) if "encoder" in name)
    del lacking[gone]
    save_file(lacking, tmp_path / "other.safetensors", metadata={"format": "pt"})
    options = PackOptions(0.1, localizer="tall", others=(tmp_path / "other.safetensors",))
    with pytest.raises(CheckpointError, match=r"other\.safetensors: has no encoder"):
        find_mask(trained / "base", trained / "tuned", options=options)


def test_tensors_that_are_one_in_the_model_are_refused_together(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=40, n_positions=40, n_embd=16, n_layer=1, n_head=2)
    model = transformers.GPT2LMHeadModel(config)
    for name in ("base", "tuned"):
        if name == "tuned":
            with torch.no_grad():
                model.transformer.wte.weight.add_(0.1)
        model.save_pretrained(tmp_path / name)
        tensors = load_file(tmp_path / name / "model.safetensors")
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
        save_file(tensors, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
    options = PackOptions(0.1, scope=Scope("all"), localizer="saliency")
    with pytest.raises(UsageError, match="are one tensor in the model; leave one out"):
        find_mask(tmp_path / "base", tmp_path / "tuned", options=options)


def test_a_prompt_and_its_completion_teach_a_causal_model(tmp_path: Path) -> None:
    from tiny import add_tokenizer

    config = transformers.GPT2Config(vocab_size=40, n_positions=32, n_embd=16, n_layer=1, n_head=2)
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(tmp_path / "base")
    with torch.no_grad():
        for parameter in model.transformer.h.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "tuned")
    add_tokenizer(tmp_path / "tuned")
    data = lines(tmp_path / "d.jsonl", [{"prompt": f"w{i} w{i + 1}", "completion": f"w{i + 2}"} for i in range(12)])
    for name in ("learned", "saliency"):
        learn = Learn(data, shots=8, batch_size=4)
        found = find_mask(tmp_path / "base", tmp_path / "tuned", options=PackOptions(0.1, localizer=name, learn=learn))
        assert found.mask.nnz == round(0.1 * found.mask.numel)
    random = find_mask(tmp_path / "base", tmp_path / "tuned", options=PackOptions(0.1, localizer="saliency"))
    assert random.mask.nnz == round(0.1 * random.mask.numel)


def test_images_teach_a_vision_model(tmp_path: Path) -> None:
    from PIL import Image

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=2)
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(config)
    model.save_pretrained(tmp_path / "base")
    with torch.no_grad():
        for parameter in model.vit.layers.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "tuned")
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}
    (tmp_path / "tuned" / "preprocessor_config.json").write_text(json.dumps(processor))
    generator = np.random.default_rng(0)
    rows = []
    for number in range(6):
        Image.fromarray(generator.integers(0, 255, (9, 9, 3), np.uint8)).save(tmp_path / f"{number}.png")
        rows.append({"image": f"{number}.png", "label": number % 2})
    data = lines(tmp_path / "d.jsonl", rows)
    for learn in (Learn(data, batch_size=3), Learn(batches=2, batch_size=3)):
        options = PackOptions(0.1, localizer="learned", learn=learn)
        found = find_mask(tmp_path / "base", tmp_path / "tuned", options=options)
        assert found.mask.nnz == round(0.1 * found.mask.numel)


def test_a_density_of_one_is_the_same_task_as_a_whole_number(trained: Path) -> None:
    """SPEC 3.1: the recipe's density is a number with a point, whatever the caller wrote."""
    whole, real = (pack(trained / "base", trained / "tuned", options=PackOptions(density=one)) for one in (1, 1.0))
    assert encode(whole).tobytes() == encode(real).tobytes()
