"""Exports are read back by the tools they are for, and what comes back in gives the same weights, bit for bit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from helpers import Tensors, bits, model_pairs, pack_pair, read_checkpoint, write_checkpoint
from hostile import run
from hypothesis import given, settings
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import sparsetv
from sparsetv.jobs.options import StitchOptions
from sparsetv.scales import resolve_scale, tensor_factors
from sparsetv.task_vector import SparseTaskVector

pytestmark = pytest.mark.usefixtures("no_sync")

PLAIN = StitchOptions(scale="none")
Fresh = Callable[[], Path]


def task_file(room: Path, base: Tensors, tuned: Tensors, *, density: float = 0.6) -> tuple[Path, SparseTaskVector]:
    task = pack_pair(room, base, tuned, density=density)
    sparsetv.write_task(room / "task.stv", task)
    return room / "task.stv", task


def stitched(room: Path, task: Path, target: str) -> Tensors:
    sparsetv.stitch(room / "base", [task], room / target, options=PLAIN)
    return read_checkpoint(room / target)


def same(found: Tensors, wanted: Tensors) -> bool:
    return found.keys() == wanted.keys() and all((bits(found[n]) == bits(wanted[n])).all() for n in wanted)


def plus(base: Tensors, task: SparseTaskVector) -> Tensors:
    """round(base + delta) with torch, without corrections."""
    merged = {name: tensor.clone() for name, tensor in base.items()}
    for name, tensor in task.tensors.items():
        flat = merged[name].reshape(-1)
        where = torch.from_numpy(tensor.positions)
        flat[where] = (flat[where].float() + torch.from_numpy(tensor.values)).to(flat.dtype)
        merged[name] = flat.reshape(merged[name].shape)
    return merged


def pair(dtype: torch.dtype = torch.float32) -> tuple[Tensors, Tensors]:
    """A base of a matrix, a row and four dimensions, and a fine-tune that differs everywhere."""
    torch.manual_seed(5)
    shapes: dict[str, tuple[int, ...]] = {"h.0.w": (6, 5), "h.1.b": (7,), "h.2.conv": (2, 3, 2, 2)}
    base = {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()}
    return base, {name: (tensor + torch.randn(tensor.shape)).to(dtype) for name, tensor in base.items()}


@given(models=model_pairs())
@settings(max_examples=15)
def test_scipy_alone_reads_every_tensor(models: tuple[Tensors, Tensors], fresh: Fresh) -> None:
    room = fresh()
    path, task = task_file(room, *models)
    sparsetv.export_task(path, room / "npz", form="scipy")
    index = json.loads((room / "npz" / "index.json").read_text())["tensors"]
    assert [item["name"] for item in index] == [name for name, tensor in task.tensors.items() if tensor.nnz]
    for item in index:
        tensor, found = task.tensors[item["name"]], scipy.sparse.load_npz(room / "npz" / item["file"])
        assert tuple(item["shape"]) == tensor.shape
        assert found.dtype == np.float32
        flat = found.tocoo()
        assert (flat.row.astype(np.int64) * found.shape[1] + flat.col).tolist() == tensor.positions.tolist()
        assert flat.data.tobytes() == tensor.values.tobytes()


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@given(models=model_pairs())
@settings(max_examples=15)
def test_torch_reads_the_csr_arrays(models: tuple[Tensors, Tensors], fresh: Fresh) -> None:
    room = fresh()
    path, task = task_file(room, *models)
    done = sparsetv.export_task(path, room / "csr.safetensors", form="safetensors")
    arrays = load_file(room / "csr.safetensors")
    with safe_open(room / "csr.safetensors", "np") as file:
        described = json.loads(file.metadata()["binsparse"])
    assert done.entries == task.nnz
    assert described.keys() == {name for name, tensor in task.tensors.items() if tensor.nnz}
    for name, words in described.items():
        crow, col, values = (arrays[f"{name}.{part}"] for part in ("crow_indices", "col_indices", "values"))
        matrix = torch.sparse_csr_tensor(crow, col, values, size=words["shape"], check_invariants=True)
        wanted = task.tensors[name].to_dense().reshape(words["shape"])
        assert words["format"] == "CSR"
        assert words["number_of_stored_values"] == len(values)
        assert words["data_types"] == {"pointers_to_1": "int32", "indices_1": "int32", "values": "float32"}
        assert (matrix.to_dense().numpy() == wanted).all()


@given(models=model_pairs())
@settings(max_examples=15)
def test_deltas_go_out_and_come_back_to_the_same_weights(models: tuple[Tensors, Tensors], fresh: Fresh) -> None:
    room = fresh()
    path, task = task_file(room, *models)
    kept = {name: tensor for name, tensor in task.tensors.items() if tensor.values.any()}
    sparsetv.export_task(path, room / "deltas.safetensors", form="dense")
    deltas = load_file(room / "deltas.safetensors")
    for name, tensor in kept.items():
        assert deltas[name].dtype == torch.float32
        assert deltas[name].numpy().tobytes() == tensor.to_dense().tobytes()
    if not kept:
        with pytest.raises(sparsetv.FormatError, match="holds no delta that changes the base"):
            sparsetv.import_task(room / "deltas.safetensors", room / "b.stv", form="dense", base=room / "base")
        return
    sparsetv.import_task(room / "deltas.safetensors", room / "back.stv", form="dense", base=room / "base")
    found, wanted = stitched(room, room / "back.stv", "out"), plus(models[0], task)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)  # 0.0 where a zero delta met -0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_task_without_corrections_comes_back_with_its_digest(dtype: torch.dtype, tmp_path: Path) -> None:
    base, _ = pair(dtype)
    tuned = {name: (tensor.float() + 0.5).to(dtype) for name, tensor in base.items()}
    path, task = task_file(tmp_path, base, tuned)
    sparsetv.export_task(path, tmp_path / "deltas.safetensors", form="dense")
    made = sparsetv.import_task(
        tmp_path / "deltas.safetensors", tmp_path / "b.stv", form="dense", base=tmp_path / "base"
    )
    read = sparsetv.read_task(tmp_path / "b.stv")
    assert not any(len(tensor.corrections.index) for tensor in task.tensors.values())
    assert made.digest() == read.digest() == task.digest()
    assert read.base == task.base
    assert (read.recipe.localizer, read.recipe.preset, read.recipe.values) == ("imported", "imported", "exact")
    assert read.name == "b"


def test_scales_from_norms_are_1_where_nobody_knows_what_was_dropped(tmp_path: Path) -> None:
    base, tuned = pair()
    path, task = task_file(tmp_path, base, tuned)
    sparsetv.export_task(path, tmp_path / "deltas.safetensors", form="dense")
    made = sparsetv.import_task(
        tmp_path / "deltas.safetensors", tmp_path / "b.stv", form="dense", base=tmp_path / "base"
    )
    assert task.norm_ratios()[1] > 1.01
    assert [resolve_scale(made, policy, company=2)[1] for policy in ("auto", "l2", "graft")] == [1.0, 1.0, 1.0]
    assert tensor_factors(made, "l2-tensor") == {}
    for name, tensor in made.tensors.items():
        assert made.norms[name].l2 == pytest.approx(np.linalg.norm(tensor.values), rel=1e-5)


def test_deltas_in_the_dtype_of_the_base_are_rounded_once(tmp_path: Path) -> None:
    path, task = task_file(tmp_path, *pair(torch.bfloat16))
    sparsetv.export_task(path, tmp_path / "deltas.safetensors", form="dense", dtype="base")
    for name, tensor in load_file(tmp_path / "deltas.safetensors").items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, torch.from_numpy(task.tensors[name].to_dense()).bfloat16())


def test_carried_tensors_go_along_with_deltas_and_what_has_no_place_is_named(tmp_path: Path) -> None:
    base, tuned = pair()
    tuned = {f"model.{name}": tensor for name, tensor in tuned.items()} | {"head.weight": torch.ones(2, 3).half()}
    write_checkpoint(tmp_path / "base", base)
    write_checkpoint(tmp_path / "task", tuned, files={"config.json": b"{}"})
    task = sparsetv.pack(tmp_path / "base", tmp_path / "task", options=sparsetv.PackOptions(density=0.5))
    done = sparsetv.export_task(task, tmp_path / "deltas.safetensors", form="dense")
    made = sparsetv.import_task(
        tmp_path / "deltas.safetensors", tmp_path / "b.stv", form="dense", base=tmp_path / "base"
    )
    assert torch.equal(load_file(tmp_path / "deltas.safetensors")["head.weight"], tuned["head.weight"])
    assert {item.what for item in done.left_out} <= {"files", "corrections"}
    assert made.finetuned.prefix == task.finetuned.prefix == ("", "model.")
    assert made.extras["head.weight"].data.tobytes() == task.extras["head.weight"].data.tobytes()
    elsewhere = sparsetv.export_task(task, tmp_path / "npz", form="scipy")
    assert [(i.what, i.entries) for i in elsewhere.left_out if i.what != "corrections"] == [
        ("head.weight", 0), ("files", 1),
    ]  # fmt: skip


# vLLM


def apply_patches(base: Tensors, file: Path) -> Tensors:
    """As vLLM documents it: a tensor of NaN that gets the values at flat indices replaces what is not NaN."""
    arrays, merged = load_file(file), {name: tensor.clone() for name, tensor in base.items()}
    with safe_open(file, "np") as opened:
        patches = json.loads(opened.metadata()["patches"])
    for name, patch in patches.items():
        values, indices = arrays[f"{name}.values"], arrays[f"{name}.indices"]
        assert (str(values.dtype), list(base[name].shape)) == (f"torch.{patch['dtype']}", patch["shape"])
        assert not values.isnan().any()
        assert indices.dtype in (torch.int32, torch.int64)
        flat = torch.full((base[name].numel(),), float("nan"), dtype=values.dtype)
        flat.index_copy_(0, indices.long(), values)
        source = flat.view(patch["shape"])
        merged[name] = torch.where(source.isnan(), merged[name], source)
    return merged


@given(models=model_pairs())
@settings(max_examples=15)
def test_a_weight_patch_gives_the_stitched_weights(models: tuple[Tensors, Tensors], fresh: Fresh) -> None:
    room = fresh()
    path, _ = task_file(room, *models)
    sparsetv.export_task(path, room / "patch.safetensors", form="vllm-patch", base=room / "base")
    assert same(apply_patches(models[0], room / "patch.safetensors"), stitched(room, path, "out"))


def test_a_weight_patch_takes_a_scale_and_its_own_base_alone(tmp_path: Path) -> None:
    base, tuned = pair(torch.bfloat16)
    path, _ = task_file(tmp_path, base, tuned)
    sparsetv.export_task(path, tmp_path / "p.safetensors", form="vllm-patch", base=tmp_path / "base", scale=1.5)
    sparsetv.stitch(tmp_path / "base", [path], tmp_path / "out", options=StitchOptions(scale=1.5))
    assert same(apply_patches(base, tmp_path / "p.safetensors"), read_checkpoint(tmp_path / "out"))
    write_checkpoint(tmp_path / "other", tuned)
    before = (tmp_path / "p.safetensors").read_bytes()
    done = run("export", path, "--to", "vllm-patch", "-o", tmp_path / "p.safetensors", "--base", tmp_path / "other")
    assert done.exit_code != 0
    assert isinstance(done.exception, sparsetv.SparseTVError)
    assert "was packed against base" in str(done.exception)
    assert (tmp_path / "p.safetensors").read_bytes() == before


# TALL-masks


def tall_set(room: Path, vector: Tensors, masks: dict[str, dict[str, torch.Tensor]], *, packed: bool) -> Path:
    """As their authors release it: per task one vector of bits over tensors in order of names."""
    room.mkdir()
    save_file(vector, room / "multitask.safetensors")
    flat = {
        task: np.concatenate([mask[name].numpy().reshape(-1) for name in sorted(vector)])
        for task, mask in masks.items()
    }
    stored = {task: torch.from_numpy(np.packbits(mask) if packed else mask) for task, mask in flat.items()}
    save_file(stored, room / "masks.safetensors")
    return room


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_tall_mask_selects_from_the_multi_task_vector(packed: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    base, tuned = pair(dtype)
    write_checkpoint(tmp_path / "base", base)
    vector = {name: tuned[name].float() - base[name].float() for name in base}
    torch.manual_seed(1)
    masks = {task: {name: torch.rand(tensor.shape) < 0.4 for name, tensor in base.items()} for task in ("one", "two")}
    tall = tall_set(tmp_path / "tall", vector, masks, packed=packed)
    made = sparsetv.import_task(tall, tmp_path / "two.stv", form="tall", base=tmp_path / "base", task="two")
    wanted = {
        name: torch.where(masks["two"][name], (base[name].float() + vector[name]).to(dtype), base[name])
        for name in base
    }
    assert made.nnz == sum(int((mask & (vector[name] != 0)).sum()) for name, mask in masks["two"].items())
    assert same(stitched(tmp_path, tmp_path / "two.stv", "out"), wanted)


# Command line


def test_the_command_line_exports_imports_and_names_what_is_left_out(tmp_path: Path) -> None:
    base, tuned = pair()
    path, task = task_file(tmp_path, base, tuned)
    done = run("export", path, "--to", "dense", "-o", tmp_path / "d.safetensors", "--json")
    shown: dict[str, Any] = json.loads(done.stdout)
    assert (shown["form"], shown["entries"], shown["tensors"]) == ("dense", task.nnz, 3)
    done = run("export", path, "--to", "shira", "-o", tmp_path / "adapter")
    assert "SHiRA carries nothing else" in str(done.exception)
    assert not (tmp_path / "adapter").exists()
    done = run(
        "import", tmp_path / "d.safetensors", "--from", "dense", "-o", tmp_path / "b.stv", "--base", tmp_path / "base"
    )
    assert done.stdout.startswith(f"{tmp_path / 'b.stv'}: {task.nnz} entries of 3 tensors, digest ")
