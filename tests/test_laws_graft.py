"""Law 1: kept entries of a stitched checkpoint are the fine-tune's bits, every other entry is the base's."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import (
    ALL,
    SHAPES,
    TORCH,
    Tensors,
    bits,
    dense_deltas,
    floats,
    kept_positions,
    model_pairs,
    patterns,
    read_checkpoint,
    splits,
    stable_top,
    tree,
    write_checkpoint,
    write_loose,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.compose import weights as compose_weights
from sparsetv.jobs.options import PackOptions, StitchOptions
from sparsetv.jobs.pack import pack
from sparsetv.jobs.stitch import stitch
from sparsetv.task_vector import SparseTaskVector
from sparsetv.taskfile import read_task, write_task

pytestmark = pytest.mark.usefixtures("no_sync")

PLAIN = StitchOptions(scale="none")
DENSITIES = st.sampled_from([1.0, 0.9, 0.5, 0.25, 0.1])


def expected(base: Tensors, tuned: Tensors, *, density: float) -> Tensors:
    """The graft by its definition: fine-tuned numbers at the k largest deltas, base elsewhere."""
    deltas = {name: dense_deltas(base[name], tuned[name]) for name in base}
    kept = stable_top(deltas, round(density * sum(map(len, deltas.values()))))
    result = {}
    for name, tensor in base.items():
        flat, target = tensor.reshape(-1).clone(), tuned[name].to(tensor.dtype).reshape(-1)
        for position in kept[name]:
            flat[position] = target[position]
        result[name] = flat.reshape(tensor.shape)
    return result


def assert_same_tensors(found: Tensors, wanted: Tensors) -> None:
    assert sorted(found) == sorted(wanted)
    for name, tensor in wanted.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        np.testing.assert_array_equal(bits(found[name]), bits(tensor), err_msg=name)


def dense_enough(base: Tensors, density: float) -> float:
    """The density, raised to one kept entry where it would keep none."""
    entries = sum(tensor.numel() for tensor in base.values())
    return density if round(density * entries) else 1 / entries


@pytest.mark.parametrize("largest", [141, 180])
@settings(max_examples=80)
@given(data=st.data())
def test_kept_entries_are_the_fine_tunes_bits_and_the_rest_the_bases(
    fresh: Callable[[], Path], data: st.DataObject, largest: int
) -> None:
    path = fresh()
    base, tuned = data.draw(model_pairs(largest=largest))
    density = dense_enough(base, data.draw(DENSITIES))
    names = sorted(base)
    write_checkpoint(path / "base", base, split=data.draw(splits(names)))
    write_checkpoint(path / "tuned", tuned, split=data.draw(splits(names)))
    task = pack(path / "base", path / "tuned", options=PackOptions(density=density, scope=ALL))
    stitch(path / "base", [task], path / "merged", options=PLAIN)
    assert_same_tensors(read_checkpoint(path / "merged"), expected(base, tuned, density=density))


@settings(max_examples=25)
@given(data=st.data())
def test_the_file_carries_the_law(fresh: Callable[[], Path], data: st.DataObject) -> None:
    path = fresh()
    base, tuned = data.draw(model_pairs())
    write_checkpoint(path / "base", base)
    write_checkpoint(path / "tuned", tuned)
    density = dense_enough(base, data.draw(DENSITIES))
    task = pack(path / "base", path / "tuned", options=PackOptions(density=density, scope=ALL))
    write_task(path / "task.stv", task)
    stitch(path / "base", [path / "task.stv"], path / "from file", options=PLAIN)
    stitch(path / "base", [task], path / "from memory", options=PLAIN)
    assert tree(path / "from file") == tree(path / "from memory")
    assert_same_tensors(read_checkpoint(path / "from file"), expected(base, tuned, density=density))


@pytest.mark.parametrize("source", sorted(TORCH))
@pytest.mark.parametrize("target", sorted(TORCH))
def test_every_pair_of_dtypes(tmp_path: Path, target: str, source: str) -> None:
    generator = torch.Generator().manual_seed(0)
    base = {"w": torch.randn(40, 50, generator=generator).to(TORCH[target])}
    step = torch.randn(40, 50, generator=generator) * 10 ** (torch.rand(40, 50, generator=generator) * 8 - 7)
    tuned = {"w": (base["w"].float() + step).to(TORCH[source])}
    write_checkpoint(tmp_path / "base", base)
    write_checkpoint(tmp_path / "tuned", tuned)
    task = pack(tmp_path / "base", tmp_path / "tuned", options=PackOptions(density=0.4, scope=ALL))
    assert task.finetuned.dtype == (None if source == target else source)
    stitch(tmp_path / "base", [task], tmp_path / "merged", options=PLAIN)
    assert_same_tensors(read_checkpoint(tmp_path / "merged"), expected(base, tuned, density=0.4))


def test_corrections_are_needed_and_used(tmp_path: Path) -> None:
    """The premise of the codec: without corrections, this fine-tune would not come back."""
    base = {"w": torch.tensor([1e-30, 1.0, -0.0, 0.0, 3.0e-45])}
    tuned = {"w": torch.tensor([1.0, 1e-30, 0.0, -0.0, -1.0])}
    write_checkpoint(tmp_path / "base", base)
    write_checkpoint(tmp_path / "tuned", tuned)
    task = pack(tmp_path / "base", tmp_path / "tuned", options=PackOptions(density=1.0, scope=ALL))
    naive = base["w"] + torch.from_numpy(task.tensors["w"].values)
    wrong = np.flatnonzero(bits(naive) != bits(tuned["w"]))
    assert wrong.tolist() == task.tensors["w"].corrections.index.tolist() == [1, 3]
    stitch(tmp_path / "base", [task], tmp_path / "merged", options=PLAIN)
    assert_same_tensors(read_checkpoint(tmp_path / "merged"), tuned)


@settings(max_examples=15)
@given(data=st.data())
def test_density_one_gives_the_fine_tune(fresh: Callable[[], Path], data: st.DataObject) -> None:
    path = fresh()
    shape = data.draw(st.sampled_from([shape for shape in SHAPES if np.prod(shape)]))
    count = int(np.prod(shape))
    drawn = [floats(data.draw(st.lists(patterns(), min_size=count, max_size=count))) for _ in range(2)]
    base, tuned = ({"w": numbers.reshape(shape)} for numbers in drawn)
    write_checkpoint(path / "base", base)
    write_checkpoint(path / "tuned", tuned)
    task = pack(path / "base", path / "tuned", options=PackOptions(density=1, scope=ALL))
    assert task.nnz == count
    stitch(path / "base", [task], path / "merged", options=PLAIN)
    assert_same_tensors(read_checkpoint(path / "merged"), tuned)


@pytest.mark.parametrize("step", [4, 8, 64])
def test_chunks_of_writing_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    generator = torch.Generator().manual_seed(3)
    base = {"w": torch.randn(13, 7, generator=generator), "v": torch.randn(9, generator=generator).bfloat16()}
    tuned = {name: tensor + 1 for name, tensor in base.items()}
    write_checkpoint(tmp_path / "base", base)
    write_checkpoint(tmp_path / "tuned", tuned)
    task = pack(tmp_path / "base", tmp_path / "tuned", options=PackOptions(density=0.5, scope=ALL))
    stitch(tmp_path / "base", [task], tmp_path / "whole", options=PLAIN)
    monkeypatch.setattr(compose_weights, "CHUNK_BYTES", step)
    stitch(tmp_path / "base", [task], tmp_path / "pieces", options=PLAIN)
    assert tree(tmp_path / "whole") == tree(tmp_path / "pieces")
    assert_same_tensors(read_checkpoint(tmp_path / "pieces"), expected(base, tuned, density=0.5))


@pytest.mark.parametrize("pad", range(1, 8))
def test_unaligned_files_in_any_order(tmp_path: Path, pad: int) -> None:
    """safetensors allows headers of any length and tensors in any order; other writers use that."""
    base = {
        "b": torch.tensor([1.0, 2.0, 3.0]).half(),
        "c": torch.zeros(0, 4),
        "a": torch.tensor([[1.0, -2.0], [0.5, 4.0]]),
        "d": torch.tensor(7.0).bfloat16(),
    }
    tuned = {name: tensor * 1.5 for name, tensor in base.items()}
    (tmp_path / "base").mkdir()
    write_loose(tmp_path / "base" / "model.safetensors", base, pad=pad)
    write_loose(tmp_path / "tuned.safetensors", {name: tuned[name] for name in "dcba"}, pad=(pad + 3) % 8)
    task = pack(tmp_path / "base", tmp_path / "tuned.safetensors", options=PackOptions(density=0.6, scope=ALL))
    stitch(tmp_path / "base", [task], tmp_path / "merged", options=PLAIN)
    assert_same_tensors(read_checkpoint(tmp_path / "merged"), expected(base, tuned, density=0.6))


def test_a_task_that_keeps_nothing_in_a_tensor_leaves_its_bytes(tmp_path: Path) -> None:
    base = {"loud": torch.zeros(4), "quiet": torch.tensor([-0.0, 1e-45, 3.0, float("inf")])}
    tuned = {"loud": torch.ones(4), "quiet": base["quiet"].clone()}
    write_checkpoint(tmp_path / "base", base)
    write_checkpoint(tmp_path / "tuned", tuned)
    scope = PackOptions(density=1.0, scope=type(ALL)("globs", ("loud",)))
    task: SparseTaskVector = pack(tmp_path / "base", tmp_path / "tuned", options=scope)
    assert kept_positions(task) == {"loud": [0, 1, 2, 3]}
    write_task(tmp_path / "task.stv", task)
    stitch(tmp_path / "base", [read_task(tmp_path / "task.stv")], tmp_path / "merged", options=PLAIN)
    assert_same_tensors(read_checkpoint(tmp_path / "merged"), tuned)


@pytest.mark.parametrize("padding", range(8))
def test_files_that_do_not_align_their_tensors_are_read_without_copies(tmp_path: Path, padding: int) -> None:
    """safetensors pads its header to 8 bytes; other writers need not."""
    paths = []
    for name, value in (("base", 1.0), ("tuned", 1.5)):
        path = write_checkpoint(tmp_path / name, {"w": torch.full((50,), value)})
        data = (path / "model.safetensors").read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = data[8 : 8 + size].rstrip(b" ") + b" " * padding
        (path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])
        paths.append(path)
    opened = open_checkpoint(paths[0])
    assert np.shares_memory(opened.bits("w"), opened.raw("w"))
    task = pack(*paths, options=PackOptions(density=0.5, scope=ALL))
    stitch(paths[0], [task], tmp_path / "out", options=StitchOptions(scale="none"))
    assert load_file(tmp_path / "out" / "model.safetensors")["w"].tolist() == [1.5] * 25 + [1.0] * 25
