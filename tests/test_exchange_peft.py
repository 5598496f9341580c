"""SHiRA adapters, with PEFT itself on the other side."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers import bits, read_checkpoint
from hostile import run
from safetensors.torch import save_file

import sparsetv
from benchmarks.readme import README
from sparsetv.csr import Corrections, SparseTensor
from sparsetv.errors import CheckpointError
from sparsetv.jobs.exchange import EXPORTS, IMPORTS
from sparsetv.jobs.options import PackOptions, StitchOptions
from sparsetv.task_vector import SparseTaskVector

peft: Any = pytest.importorskip("peft")
pytestmark = [
    pytest.mark.usefixtures("no_sync"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning"),
]

PLAIN = StitchOptions(scale="none")
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 40}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def model(seed: int, dtype: torch.dtype) -> Any:
    torch.manual_seed(seed)
    config = transformers.BertConfig(**SIZES, initializer_range=0.5)
    return transformers.BertModel(config).to(dtype)


def merged(room: Path, adapter: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What PEFT makes of a base and an adapter, at scale 1."""
    base = transformers.BertModel.from_pretrained(room / "base", dtype=dtype)
    whole = peft.PeftModel.from_pretrained(base, adapter).merge_and_unload()
    return {name: tensor.detach() for name, tensor in whole.state_dict().items()}


@pytest.mark.parametrize("dtype", DTYPES)
def test_peft_merges_an_export_to_base_plus_delta(dtype: torch.dtype, tmp_path: Path) -> None:
    model(0, dtype).save_pretrained(tmp_path / "base")
    model(1, dtype).save_pretrained(tmp_path / "tuned")
    options = PackOptions(density=0.2, scope=sparsetv.Scope("all"))
    task = sparsetv.pack(tmp_path / "base", tmp_path / "tuned", options=options)
    done = sparsetv.export_task(task, tmp_path / "adapter", form="shira")
    left = {item.what: item.entries for item in done.left_out}
    base, found = read_checkpoint(tmp_path / "base"), merged(tmp_path, tmp_path / "adapter", dtype)
    linear = [name for name, t in task.tensors.items() if len(t.shape) == 2 and t.nnz and "embeddings" not in name]
    assert done.tensors == len(linear) == 13
    assert left["embeddings.word_embeddings.weight"] == task.tensors["embeddings.word_embeddings.weight"].nnz
    assert {name for name in left if "." in name} == {n for n, t in task.tensors.items() if t.nnz} - set(linear)
    for name, tensor in base.items():
        wanted = plus(tensor, task.tensors[name]) if name in linear else tensor
        assert (bits(found[name]) == bits(wanted)).all(), name


def plus(base: torch.Tensor, tensor: SparseTensor) -> torch.Tensor:
    flat, where = base.reshape(-1).clone(), torch.from_numpy(tensor.positions)
    flat[where] = (flat[where].float() + torch.from_numpy(tensor.values)).to(flat.dtype)
    return flat.reshape(base.shape)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_adapter_that_peft_saved_stitches_to_its_merge(dtype: torch.dtype, tmp_path: Path) -> None:
    model(0, dtype).save_pretrained(tmp_path / "base")
    config = peft.ShiraConfig(r=2, target_modules=["query", "intermediate.dense"], init_weights=False)
    base = transformers.BertModel.from_pretrained(tmp_path / "base", dtype=dtype)
    peft.get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
    made = sparsetv.import_task(tmp_path / "adapter", tmp_path / "a.stv", form="shira", base=tmp_path / "base")
    sparsetv.stitch(tmp_path / "base", [tmp_path / "a.stv"], tmp_path / "out", options=PLAIN)
    found, wanted = read_checkpoint(tmp_path / "out"), merged(tmp_path, tmp_path / "adapter", dtype)
    assert made.nnz == 2 * (2 * (16 + 16) + 2 * (16 + 32))
    assert found.keys() == wanted.keys()
    assert all((bits(found[name]) == bits(wanted[name])).all() for name in wanted)


def test_a_task_of_linear_layers_comes_back_with_its_digest(tmp_path: Path) -> None:
    model(0, torch.float32).save_pretrained(tmp_path / "base")
    model(1, torch.float32).save_pretrained(tmp_path / "tuned")
    scope = sparsetv.Scope("globs", ("*.query.weight", "*.intermediate.dense.weight"))
    task = sparsetv.pack(tmp_path / "base", tmp_path / "tuned", options=PackOptions(density=0.1, scope=scope))
    done = sparsetv.export_task(task, tmp_path / "adapter", form="shira")
    made = sparsetv.import_task(tmp_path / "adapter", tmp_path / "a.stv", form="shira", base=tmp_path / "base")
    lost = {item.what: item.entries for item in done.left_out}
    assert lost["files"] == 1
    assert lost["corrections"] == sum(len(tensor.corrections.index) for tensor in task.tensors.values()) > 0
    assert made.digest() == plain(task).digest()


def plain(task: SparseTaskVector) -> SparseTaskVector:
    """Without corrections and files, which SHiRA has no place for."""
    tensors = {name: replace(tensor, corrections=Corrections.none()) for name, tensor in task.tensors.items()}
    return replace(task, tensors=tensors, files={})


def test_padding_leaves_negative_zeros_of_the_base(tmp_path: Path) -> None:
    base, tuned = model(0, torch.float32), model(0, torch.float32)
    name = "encoder.layer.0.attention.self.query.weight"
    with torch.no_grad():
        base.get_parameter(name).fill_(-0.0)
        tuned.get_parameter(name).fill_(-0.0)[3, 4] = 1.0
    base.save_pretrained(tmp_path / "base")
    tuned.save_pretrained(tmp_path / "tuned")
    options = PackOptions(density=1 / 256, scope=sparsetv.Scope("globs", (name,)))
    task = sparsetv.pack(tmp_path / "base", tmp_path / "tuned", options=options)
    sparsetv.export_task(task, tmp_path / "adapter", form="shira")
    found = merged(tmp_path, tmp_path / "adapter", torch.float32)[name]
    assert (bits(found) == bits(tuned.get_parameter(name).detach())).all()


def test_the_head_that_peft_saved_whole_is_carried(tmp_path: Path) -> None:
    model(0, torch.float32).save_pretrained(tmp_path / "base")
    classifier = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3)
    config = peft.ShiraConfig(r=1, target_modules=["value"], init_weights=False, modules_to_save=["classifier"])
    peft.get_peft_model(classifier, config).save_pretrained(tmp_path / "adapter")
    made = sparsetv.import_task(tmp_path / "adapter", tmp_path / "a.stv", form="shira", base=tmp_path / "base")
    sparsetv.stitch(tmp_path / "base", [tmp_path / "a.stv"], tmp_path / "out", options=PLAIN)
    found = read_checkpoint(tmp_path / "out")
    assert sorted(made.extras) == ["classifier.bias", "classifier.weight"]
    assert made.finetuned.prefix == ("", "bert.")
    assert torch.equal(found["classifier.weight"], classifier.classifier.weight.detach())
    assert "bert.encoder.layer.0.attention.self.value.weight" in found


# What is refused


def test_layers_too_small_for_the_common_rank_are_refused(tmp_path: Path) -> None:
    model(0, torch.float32).save_pretrained(tmp_path / "base")
    model(1, torch.float32).save_pretrained(tmp_path / "tuned")
    options = PackOptions(
        density=1.0, scope=sparsetv.Scope("globs", ("*.intermediate.dense.weight", "*.0.*query.weight"))
    )
    task = sparsetv.pack(tmp_path / "base", tmp_path / "tuned", options=options)
    with pytest.raises(CheckpointError, match=r"SHiRA needs r = 11, which is 352 entries here, and it has 256"):
        sparsetv.export_task(task, tmp_path / "adapter", form="shira")
    assert not (tmp_path / "adapter").exists()


def test_the_commands_that_the_readme_shows_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, beside a base, a task and a TALL-mask set."""
    room, text = tmp_path / "room", README.read_text()
    section = text.partition("## To and from other tools\n")[2].partition("\n## ")[0]
    lines = [line.split("#")[0].split()[1:] for line in section.splitlines() if line.startswith("    sparsetv ")]
    forms = {words[words.index(flag) + 1] for words in lines for flag in ("--to", "--from") if flag in words}
    assert forms == {*EXPORTS, *IMPORTS}
    room.mkdir()
    model(0, torch.float32).save_pretrained(room / "BASE")
    model(1, torch.float32).save_pretrained(room / "tuned")
    sparsetv.pack_to(room / "sst2.stv", room / "BASE", room / "tuned", options=PackOptions(density=0.1, probe=False))
    base = read_checkpoint(room / "BASE")
    (room / "TALL").mkdir()
    save_file({"pooler.dense.weight": base["pooler.dense.weight"]}, room / "TALL" / "multitask.safetensors")
    masks = {"sst2": torch.ones(256, dtype=torch.bool), "cr": torch.zeros(256, dtype=torch.bool)}
    save_file(masks, room / "TALL" / "masks.safetensors")
    monkeypatch.chdir(room)
    for words in lines:
        assert run(*words).exit_code == 0, words
    assert {path.name for path in room.glob("*.stv")} == {"sst2.stv", "again.stv", "deltas.stv", "tall.stv"}
