"""Broken and hostile files of other tools: each is refused by name, and nothing is written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import BIAS, DENSE, QUERY, WORDS, Array, Pair, Raw, listing, make_pair, safetensors
from safetensors.numpy import load_file

import sparsetv
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.errors import (
    CheckpointError,
    FormatError,
    LimitError,
    NamesError,
    NonFiniteError,
    NotFoundError,
    OutputError,
    ShapeError,
    SparseTVError,
    UsageError,
)

F4 = np.float32
LAYER = "base_model.model." + QUERY.removesuffix(".weight")
Written = Mapping[str, Array | Raw]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_pair(tmp_path)


def shape_of(pair: Pair, name: str) -> tuple[int, ...]:
    return open_checkpoint(pair.base).shape(name)


def refuse(pair: Pair, source: Path, form: str, error: type[SparseTVError], match: str, **more: Any) -> None:
    room = source.parent
    before = listing(room)
    with pytest.raises(error, match=match):
        sparsetv.import_task(source, room / "made.stv", form=form, base=pair.base, **more)
    assert listing(room) == before


def deltas(room: Path, tensors: Written, metadata: Mapping[str, str] | None = None) -> Path:
    (room / "deltas.safetensors").write_bytes(safetensors(tensors, metadata))
    return room / "deltas.safetensors"


def adapter(room: Path, tensors: Written, **config: Any) -> Path:
    (room / "adapter").mkdir()
    (room / "adapter" / "adapter_config.json").write_text(json.dumps({"peft_type": "SHIRA", "r": 1, **config}))
    (room / "adapter" / "adapter_model.safetensors").write_bytes(safetensors(tensors))
    return room / "adapter"


def layer(rows: list[int], columns: list[int], values: list[float]) -> dict[str, Array | Raw]:
    """One SHiRA layer; indices are int32 whatever they say."""
    indices = np.array([rows, columns], "<i4")
    return {
        f"{LAYER}.shira_indices": Raw("I32", indices.shape, indices.tobytes()),
        f"{LAYER}.shira_weight": np.array(values, F4),
    }


# Deltas


def test_deltas_that_do_not_fit_the_base_are_refused(tmp_path: Path, pair: Pair) -> None:
    shape = shape_of(pair, QUERY)
    wrong: list[tuple[Written, type[SparseTVError], str]] = [
        ({"other": np.ones(3, F4)}, NamesError, "holds other, which .* lacks; pass the base"),
        ({QUERY: np.ones((*shape, 1), F4)}, ShapeError, f"{QUERY} has shape .*pass the base it belongs to"),
        ({QUERY: np.ones(shape, np.float64)}, CheckpointError, f"{QUERY} is F64; deltas are BF16, F16, F32"),
        ({QUERY: np.ones(shape, np.int8)}, CheckpointError, f"{QUERY} is I8; deltas are"),
        ({QUERY: np.full(shape, np.nan, F4)}, NonFiniteError, f"{QUERY}: the delta at position 0, .* is NaN"),
        ({QUERY: np.full(shape, np.inf, F4)}, NonFiniteError, f"{QUERY}: the delta at position 0, .*infinite"),
        ({QUERY: np.zeros(shape, F4)}, FormatError, "holds no delta that changes the base"),
    ]
    for tensors, error, match in wrong:
        refuse(pair, deltas(tmp_path, tensors), "dense", error, match)


def test_a_delta_that_overflows_on_the_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").write_bytes(safetensors({"w": np.array([1.0, 3e38], F4)}))
    source = deltas(tmp_path, {"w": np.array([1.0, 3e38], F4)})
    with pytest.raises(
        NonFiniteError, match="w: the delta at position 1, or base plus delta in F32, is NaN or infinite"
    ):
        sparsetv.import_task(source, tmp_path / "made.stv", form="dense", base=tmp_path / "base")
    assert not (tmp_path / "made.stv").exists()


def test_what_says_that_it_carries_tensors_is_checked(tmp_path: Path, pair: Pair) -> None:
    tensors = {QUERY: np.ones(shape_of(pair, QUERY), F4)}
    for carried, prefix, match in (
        ("[", '["",""]', "carried: not JSON"),
        ("3", '["",""]', "carried: expected a list, found int"),
        ("[3]", '["",""]', "carried: expected a string, found int"),
        ('["gone"]', '["",""]', "lists gone as carried and does not hold it"),
        ("[]", '[""]', "prefix is no pair"),
    ):
        metadata = {"kind": "sparsetv-deltas", "carried": carried, "prefix": prefix}
        refuse(pair, deltas(tmp_path, tensors, metadata), "dense", FormatError, match)


def test_pickles_are_not_opened(tmp_path: Path, pair: Pair) -> None:
    pickled = tmp_path / "deltas.pt"
    pickled.write_bytes(b"PK\x03\x04 a pickle")
    refuse(pair, pickled, "dense", CheckpointError, "a pickle, which can run code; `sparsetv convert")
    (tmp_path / "disguised.safetensors").write_bytes(b"\x80\x04 a pickle that is long enough")
    refuse(pair, tmp_path / "disguised.safetensors", "dense", FormatError, "is a Python pickle")
    source = adapter(tmp_path, layer([0], [0], [1.0]))
    (source / "adapter_model.safetensors").rename(source / "adapter_model.bin")
    refuse(pair, source, "shira", CheckpointError, r"adapter_model\.bin is a pickle, which can run code")


def test_more_entries_than_the_memory_limit_allows_are_refused(tmp_path: Path, pair: Pair) -> None:
    source = deltas(tmp_path, {QUERY: np.ones(shape_of(pair, QUERY), F4)})
    with sparsetv.memory_limit(640):
        refuse(pair, source, "dense", LimitError, "decoding needs up to .*limit 640")


# SHiRA


def test_indices_outside_twice_or_too_few_are_refused(tmp_path: Path, pair: Pair) -> None:
    rows, columns = shape_of(pair, QUERY)
    cases: list[tuple[Written, str]] = [
        (layer([0, -1], [0, 0], [1, 1]), "row -1 of entry 1 lies outside"),
        (layer([0, rows], [0, 0], [1, 1]), f"row {rows} of entry 1 lies outside 0 to {rows - 1}"),
        (layer([0, 0], [1, columns], [1, 1]), f"column {columns} of entry 1 lies outside 0 to {columns - 1}"),
        (layer([1, 0, 1], [1, 0, 1], [1, 2, 3]), f"position {columns + 1} stands there twice"),
        (layer([1, 0], [1, 0], [1, 2, 3]), r"F32 \(3,\) values at \(2, 2\) indices"),
        ({f"{LAYER}.shira_indices": np.zeros((2, 1), np.int64)}, "has indices and no shira_weight"),
        ({**layer([0], [0], [1]), f"{LAYER}.shira_indices": np.zeros((2, 1), F4)}, "F32 indices into shape"),
        ({"x.shira_indices": np.zeros((2, 1), np.int64)}, r"holds no base_model\.model\.\*\.shira_indices"),
        ({f"{LAYER}.shira_weight": np.ones(1, F4)}, r"holds no base_model\.model\.\*\.shira_indices"),
    ]
    for number, (wrong, match) in enumerate(cases):
        room = tmp_path / str(number)
        room.mkdir()
        refuse(pair, adapter(room, wrong), "shira", FormatError, match)


def test_values_that_are_no_numbers_and_foreign_layers_are_refused(tmp_path: Path, pair: Pair) -> None:
    fine = layer([0], [0], [1.0])
    cases: list[tuple[Written, dict[str, Any], type[SparseTVError], str]] = [
        (layer([0], [1], [np.nan]), {}, NonFiniteError, "the delta at position 1, .* is NaN"),
        ({key.replace("query", "quarry"): a for key, a in fine.items()}, {}, NamesError, "quarry is none of"),
        ({**fine, f"base_model.model.{WORDS}": np.ones(3, F4)}, {}, CheckpointError, "is neither SHiRA's nor a tensor"),
        (fine, {"peft_type": "LORA"}, CheckpointError, "an adapter of type 'LORA', not SHIRA; merge it"),
        (fine, {"fan_in_fan_out": True}, CheckpointError, "fan_in_fan_out is set"),
    ]
    for number, (tensors, config, error, match) in enumerate(cases):
        room = tmp_path / str(number)
        room.mkdir()
        refuse(pair, adapter(room, tensors, **config), "shira", error, match)


def test_a_broken_configuration_is_refused(tmp_path: Path, pair: Pair) -> None:
    source = adapter(tmp_path, layer([0], [0], [1.0]))
    (source / "adapter_config.json").write_text("[]")
    refuse(pair, source, "shira", FormatError, "expected an object, found list")
    (source / "adapter_config.json").write_text('{"peft_type": "SHIRA", "peft_type": "LORA"}')
    refuse(pair, source, "shira", FormatError, "peft_type")
    (source / "adapter_config.json").unlink()
    refuse(pair, source, "shira", NotFoundError, r"adapter_config\.json: no such file")


# TALL-masks


def tall(room: Path, vector: Written, masks: Written) -> Path:
    room.mkdir()
    (room / "multitask.safetensors").write_bytes(safetensors(vector))
    (room / "masks.safetensors").write_bytes(safetensors(masks))
    return room


def test_masks_of_another_length_or_kind_are_refused(tmp_path: Path, pair: Pair) -> None:
    vector = {name: np.ones(shape_of(pair, name), F4) for name in (DENSE, BIAS)}
    count = sum(array.size for array in vector.values())
    cases: list[tuple[Array | Raw, str]] = [
        (np.ones(count + 1, bool), rf"BOOL \({count + 1},\) is neither BOOL \({count},\) nor packed U8"),
        (np.ones(count, np.uint8), rf"U8 \({count},\) is neither"),
        (np.ones(count, F4), "F32 .* is neither"),
        (Raw("BOOL", (count,), bytes([2]) * count), "a boolean that is neither 0 nor 1"),
        (np.zeros(count, bool), "holds no delta that changes the base"),
    ]
    for number, (mask, match) in enumerate(cases):
        refuse(pair, tall(tmp_path / str(number), vector, {"one": mask}), "tall", FormatError, match)
    packed = np.packbits(np.ones(13, bool))
    packed[-1] |= 1
    (tmp_path / "base13").mkdir()
    (tmp_path / "base13" / "model.safetensors").write_bytes(safetensors({"w": np.ones(13, F4)}))
    source = tall(tmp_path / "padded", {"w": np.ones(13, F4)}, {"one": packed})
    with pytest.raises(FormatError, match="a bit behind the last entry is set"):
        sparsetv.import_task(source, tmp_path / "made.stv", form="tall", base=tmp_path / "base13")
    assert not (tmp_path / "made.stv").exists()


def test_a_set_without_its_files_or_a_name_is_refused(tmp_path: Path, pair: Pair) -> None:
    vector = {QUERY: np.ones(shape_of(pair, QUERY), F4)}
    mask = np.ones(vector[QUERY].size, bool)
    source = tall(tmp_path / "set", vector, {"one": mask, "two": mask})
    refuse(pair, source, "tall", UsageError, "name one of its 2 masks with --task: one, two")
    refuse(pair, source, "tall", UsageError, "name one of its 2 masks", task="three")
    refuse(pair, source, "dense", UsageError, "dense holds one task", task="one")
    refuse(pair, source, "nothing", UsageError, "unknown form 'nothing'; known are shira, dense, tall")
    (source / "masks.safetensors").unlink()
    refuse(pair, source, "tall", NotFoundError, r"masks\.safetensors: no such file; a TALL-mask set is")


# Exports


def test_exports_replace_their_own_kind_alone(tmp_path: Path, pair: Pair) -> None:
    task = sparsetv.pack(pair.base, pair.tuned, options=sparsetv.PackOptions(density=0.2, scope=sparsetv.Scope("all")))
    (tmp_path / "mine").write_bytes(safetensors({"w": np.ones(3, F4)}))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").touch()
    before = listing(tmp_path)
    with pytest.raises(OutputError, match="mine: exists and is no export to dense"):
        sparsetv.export_task(task, tmp_path / "mine", form="dense")
    for form in ("scipy", "shira"):
        with pytest.raises(OutputError, match="folder: exists; name a new directory"):
            sparsetv.export_task(task, tmp_path / "folder", form=form)
    for form, more, match in (
        ("zip", {}, "unknown form 'zip'"),
        ("dense", {"dtype": "float8"}, "unknown dtype 'float8'"),
        ("vllm-patch", {}, "holds weights, not deltas; name the base"),
        ("dense", {"scale": float("nan")}, "scale nan is not finite"),
    ):
        with pytest.raises(UsageError, match=match):
            sparsetv.export_task(task, tmp_path / "new", form=form, **more)
    with pytest.raises(NonFiniteError, match="a delta overflows float32 at scale 1e"):
        sparsetv.export_task(task, tmp_path / "new", form="dense", scale=1e39)
    assert listing(tmp_path) == before
    sparsetv.export_task(task, tmp_path / "new", form="dense")
    sparsetv.export_task(task, tmp_path / "new", form="dense", dtype="base", scale=2.0)
    assert load_file(tmp_path / "new").keys() >= {name for name, tensor in task.tensors.items() if tensor.nnz}
