"""`from_pretrained` of a base with tasks: the model of the stitched directory, bit for bit, with the real classes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers import ALL, tree
from test_live_model import KINDS, TEXT, assert_same, build, family, load, move, parameters

import sparsetv
from sparsetv import PackOptions, StitchOptions
from sparsetv.errors import BaseMismatchError, CheckpointError, NamesError, ProbeError, UsageError
from sparsetv.jobs import loading
from sparsetv.jobs.loading import load_with
from sparsetv.jobs.stitch import stitch
from sparsetv.models import quiet

pytestmark = pytest.mark.usefixtures("no_sync")


@pytest.fixture(autouse=True)
def _quietly() -> Iterator[None]:
    with quiet():
        yield


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("several", [False, True])
def test_it_is_the_model_of_the_stitched_directory(kind: str, several: bool, tmp_path: Path) -> None:
    """In memory: where transformers changes what that relies on, this fails."""
    tasks = family(tmp_path, kind)
    chosen = list(tasks.values()) if several else [tasks["second"]]
    before = tree(tmp_path)
    model, way = load_with(tmp_path / "base", tasks=chosen)
    assert way == "memory"
    assert type(model).__name__ == kind
    assert tree(tmp_path) == before
    stitch(tmp_path / "base", chosen, tmp_path / "out")
    assert_same(parameters(model), parameters(load(tmp_path / "out", kind)))
    assert not model.training


@pytest.mark.parametrize("kind", ["GPT2LMHeadModel", "LlamaForCausalLM", "Qwen2MoeForCausalLM"])
def test_sharded_checkpoints_and_files_alike(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = family(tmp_path, kind)
    load(tmp_path / "base", kind).save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    model, way = load_with(tmp_path / "shards", tasks=[tasks["first"]])
    assert way == "memory"

    def fail(*args: object, **named: object) -> None:
        raise NamesError("transformers has changed")

    monkeypatch.setattr("sparsetv.live.model.attach", fail)
    other, way = load_with(tmp_path / "shards", tasks=[tasks["first"]])
    assert way == "files"
    assert_same(parameters(model), parameters(other))


def classifier(path: Path, labels: int, seed: int) -> Any:
    """A classifier whose body began as the base's."""
    config = transformers.BertConfig(**TEXT, num_labels=labels)
    torch.manual_seed(seed)
    model = transformers.BertForSequenceClassification.from_pretrained(path / "base", config=config)
    move(model, seed=seed)
    model.save_pretrained(path / f"tuned-{labels}")
    return model


@pytest.fixture
def heads(tmp_path: Path) -> dict[int, sparsetv.SparseTaskVector]:
    """Tasks of 2 and 5 classes on a body alone."""
    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig(**TEXT)).save_pretrained(tmp_path / "base")
    options = PackOptions(density=1.0, scope=ALL, probe=False)
    found = {}
    for labels in (2, 5):
        classifier(tmp_path, labels, labels)
        found[labels] = sparsetv.pack(tmp_path / "base", tmp_path / f"tuned-{labels}", options=options)
    return found


def test_one_task_brings_its_class_head_and_labels(tmp_path: Path, heads: dict[int, sparsetv.SparseTaskVector]) -> None:
    model, way = load_with(tmp_path / "base", tasks=[heads[5]])
    assert (type(model).__name__, model.config.num_labels, way) == ("BertForSequenceClassification", 5, "memory")
    wanted = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "tuned-5")
    assert_same(parameters(model), parameters(wanted))


def test_of_several_one_brings_its_head(tmp_path: Path, heads: dict[int, sparsetv.SparseTaskVector]) -> None:
    both = list(heads.values())
    body, way = load_with(tmp_path / "base", tasks=both)
    assert (type(body).__name__, way) == ("BertModel", "memory")
    model, way = load_with(tmp_path / "base", tasks=both, head="tuned-2")
    assert (type(model).__name__, model.config.num_labels, way) == ("BertForSequenceClassification", 2, "memory")
    own = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "tuned-2")
    assert torch.equal(model.classifier.weight, own.classifier.weight)
    shared = {n.removeprefix("bert."): t for n, t in parameters(model).items() if n.startswith("bert.")}
    assert_same(shared, parameters(body))


def test_files_give_the_same_head(
    tmp_path: Path, heads: dict[int, sparsetv.SparseTaskVector], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = list(heads.values())
    model = sparsetv.from_pretrained(tmp_path / "base", tasks=both, head="tuned-2")
    monkeypatch.setattr(loading._Asked, "fits_memory", False)
    other, way = load_with(tmp_path / "base", tasks=both, head="tuned-2")
    assert way == "files"
    assert_same(parameters(model), parameters(other))
    assert other.config.num_labels == 2


def test_added_rows_come_through_files(tmp_path: Path) -> None:
    model = build("GPT2LMHeadModel")
    model.save_pretrained(tmp_path / "base")
    model.resize_token_embeddings(43)
    move(model, seed=1)
    model.save_pretrained(tmp_path / "tuned")
    options = PackOptions(density=1.0, scope=ALL, probe=False)
    task = sparsetv.pack(tmp_path / "base", tmp_path / "tuned", options=options)
    found, way = load_with(tmp_path / "base", tasks=[task])
    assert way == "files"
    assert_same(parameters(found), parameters(load(tmp_path / "tuned", "GPT2LMHeadModel")))


def test_another_dtype_is_rounded_once(tmp_path: Path) -> None:
    """From the stitched float32 weights, not from a rounded base."""
    tasks = family(tmp_path, "LlamaForCausalLM")
    model, way = load_with(tmp_path / "base", tasks=[tasks["first"]], dtype=torch.bfloat16)
    assert way == "files"
    wanted = sparsetv.from_pretrained(tmp_path / "base", tasks=[tasks["first"]], dtype=torch.float32)
    assert_same(parameters(model), {name: tensor.bfloat16() for name, tensor in parameters(wanted).items()})


def test_options_and_transformers_own_arguments_are_passed_on(tmp_path: Path) -> None:
    tasks = family(tmp_path, "LlamaForCausalLM")
    options = StitchOptions(rule="sum", scale="l2", weights={"first": 0.5})
    chosen = [tasks["first"], tasks["second"]]
    model = sparsetv.from_pretrained(tmp_path / "base", tasks=chosen, options=options, attn_implementation="eager")
    stitch(tmp_path / "base", chosen, tmp_path / "out", options=options)
    assert_same(parameters(model), parameters(load(tmp_path / "out", "LlamaForCausalLM")))
    assert model.config._attn_implementation == "eager"


def test_no_task_is_the_base(tmp_path: Path) -> None:
    build("GPT2LMHeadModel").save_pretrained(tmp_path / "base")
    model = sparsetv.from_pretrained(tmp_path / "base", tasks=[])
    assert_same(parameters(model), parameters(load(tmp_path / "base", "GPT2LMHeadModel")))


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    tasks = family(tmp_path, "GPT2LMHeadModel")
    one = [tasks["first"]]
    with pytest.raises(BaseMismatchError, match="first was packed against base"):
        sparsetv.from_pretrained(tmp_path / "second", tasks=one)
    with pytest.raises(UsageError, match="head 'third' is not among first"):
        sparsetv.from_pretrained(tmp_path / "base", tasks=one, head="third")
    with pytest.raises(UsageError, match="code of a model's repository is never run"):
        sparsetv.from_pretrained(tmp_path / "base", tasks=one, trust_remote_code=True)
    with pytest.raises(UsageError, match="a weight names 'x'"):
        sparsetv.from_pretrained(tmp_path / "base", tasks=one, options=StitchOptions(weights={"x": 1.0}))
    with pytest.raises(CheckpointError, match="a lone weight file has no configuration"):
        sparsetv.from_pretrained(tmp_path / "base" / "model.safetensors", tasks=one)
    (tmp_path / "base" / "config.json").write_text('{"model_type": "gpt2", "architectures": ["Nobody"]}')
    with pytest.raises(ProbeError, match="names no transformers class"):
        sparsetv.from_pretrained(tmp_path / "base", tasks=[])
