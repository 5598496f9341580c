"""Broken, foreign and hostile checkpoints: each is refused by name, with a way out, and nothing is written."""

import json
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from hostile import (
    DENSE,
    DTYPES,
    QUERY,
    WORDS,
    Pair,
    Raw,
    base_tensors,
    checkpoint,
    framed,
    listing,
    make_pair,
    pack_to,
    safetensors,
    sharded,
    tuned_tensors,
)  # fmt: skip
from safetensors.numpy import load_file

from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.difference import task_vector
from sparsetv.errors import (
    BaseMismatchError,
    CheckpointError,
    FormatError,
    LimitError,
    NamesError,
    NonFiniteError,
    NotFoundError,
    OutputError,
    ShapeError,
)  # fmt: skip
from sparsetv.jobs.options import PackOptions, StitchOptions
from sparsetv.jobs.pack import pack
from sparsetv.jobs.stitch import add, stitch
from sparsetv.localize.scope import Scope
from sparsetv.masks import Mask
from sparsetv.packing.gather import gather
from sparsetv.task_vector import SparseTaskVector
from sparsetv.taskfile import read_task, write_task

ALL = PackOptions(density=0.2, scope=Scope("all"))
ITEM = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_pair(tmp_path)


def write_single(path: Path, data: bytes) -> Path:
    path.mkdir()
    (path / "model.safetensors").write_bytes(data)
    return path


# Headers (BAD_INPUTS 1 to 12), as base and as fine-tune

BROKEN_FILES = {
    "empty": (b"", r"0 bytes are too few for a safetensors file; fetch it again"),
    "seven bytes": (b"\x10\0\0\0\0\0\0", r"7 bytes are too few"),
    "header past the end": (framed(b"{}")[:8] + b"{", r"header reaches to byte 10 of 9; cut off, fetch it again"),
    "length over the cap": (struct.pack("<Q", 25_000_001) + b"{" * 64, r"header length 25000001 exceeds 25000000"),
    "length of 2**64 - 1": (b"\xff" * 64, r"header length 18446744073709551615 exceeds"),
    "not UTF-8": (framed(b'{"\xff":1}  '), r"header: not UTF-8 at byte 2"),
    "not JSON": (framed(b'{"a":}  '), r"header: not JSON at character 5"),
    "NaN": (framed(b'{"a":NaN}'), r"header: NaN is not allowed"),
    "infinity": (framed(b'{"a":-Infinity}'), r"header: -Infinity is not allowed"),
    "overflowing number": (framed(b'{"a":1e999}'), r"model\.safetensors"),
    "huge integer": (framed(b'{"a":' + b"9" * 5000 + b"}"), r"header: integer of 5000 digits"),
    "deep nesting": (framed(b'{"a":' * 60_000 + b"1" + b"}" * 60_000), r"header: nested"),
    "slightly deep": (framed(b'{"a":[[[[1]]]]}'), r"header: nested deeper than 4"),
    "duplicate tensor": (framed(f'{{"a":{ITEM},"a":{ITEM}}}'.encode(), bytes(4)), r"header: key 'a' appears twice"),
    "duplicate field": (
        framed(b'{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
        r"header: key 'dtype' appears twice",
    ),
    "duplicate metadata": (framed(b'{"__metadata__":{"a":"1","a":"2"}}'), r"header: key 'a' appears twice"),
    "metadata no strings": (framed(b'{"__metadata__":{"a":1}}'), r"__metadata__: expected a string, found int"),
    "leading space": (framed(b" {}     "), r"header at byte 8 does not start with '\{'"),
    "list": (framed(b"[]"), r"header at byte 8 does not start with '\{'"),
    "hole": (
        framed(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', bytes(8)),
        r"hole before a at payload byte 0",
    ),
    "overlap": (
        framed(
            b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
            b'"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
            bytes(8),
        ),
        r"overlap before b at payload byte 4",
    ),
    "trailing bytes": (framed(f'{{"a":{ITEM}}}'.encode(), bytes(5)), r"payload has trailing bytes: 5 bytes.* end at 4"),
    "cut off": (framed(f'{{"a":{ITEM}}}'.encode(), bytes(3)), r"payload is cut off: 3 bytes, tensors end at 4"),
    "unknown dtype": (
        framed(b'{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}', bytes(1)),
        r"a: dtype 'F4' is not supported; supported are",
    ),
    "wrong size": (
        framed(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', bytes(4)),
        r"a: offsets \[0, 4\] do not hold F32 \(2,\)",
    ),
    "negative offset": (
        framed(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}', bytes(4)),
        r"a: -4 lies outside",
    ),
    "shape of booleans": (
        framed(b'{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}', bytes(4)),
        r"a: expected an integer, found bool",
    ),
    "shape of floats": (
        framed(b'{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}', bytes(4)),
        r"a: expected an integer, found float",
    ),
    "overflowing shape": (
        framed(b'{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'),
        r"a: shape \(4294967296, 4294967296\) is too large",
    ),
    "three offsets": (
        framed(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}}', bytes(4)),
        r"a: offsets \[0, 4, 4\] do not hold",
    ),
    "missing field": (framed(b'{"a":{"dtype":"F32","data_offsets":[0,4]}}', bytes(4)), r"a: missing key 'shape'"),
    "further field": (
        framed(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}}', bytes(4)),
        r"a: unknown key 'x'",
    ),
    "tensor no object": (framed(b'{"a":3}'), r"a: expected an object, found int"),
    "lone surrogate": (framed(f'{{"\\ud800":{ITEM}}}'.encode(), bytes(4)), r"model\.safetensors"),
}

FOREIGN_FILES = {
    "LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n",
        r"git-LFS pointer.*git lfs",
    ),
    "HTML": (b"<!DOCTYPE html><html><body>404", r"an HTML page; the download returned an error page"),
    "html": (b"<html><head><title>Sign in", r"an HTML page"),
    "zip": (b"PK\x03\x04" + bytes(64), r"zip archive or a PyTorch pickle; `sparsetv convert`"),
    "pickle 2": (b"\x80\x02}q\x00." + bytes(64), r"Python pickle; `sparsetv convert`"),
    "pickle 3": (b"\x80\x03}q\x00." + bytes(64), r"Python pickle; `sparsetv convert`"),
    "pickle 4": (b"\x80\x04\x95" + bytes(64), r"Python pickle; `sparsetv convert`"),
    "pickle 5": (b"\x80\x05\x95" + bytes(64), r"Python pickle; `sparsetv convert`"),
    "GGUF": (b"GGUF\x03\0\0\0" + bytes(64), r"GGUF file; use the safetensors checkpoint it was made from"),
}


@pytest.mark.parametrize("case", [*BROKEN_FILES, *FOREIGN_FILES])
def test_broken_weights_are_refused_on_either_side(case: str, tmp_path: Path, pair: Pair) -> None:
    data, message = (BROKEN_FILES | FOREIGN_FILES)[case]
    broken = write_single(tmp_path / "broken", data)
    before = listing(tmp_path)
    for base, tuned in ((broken, pair.tuned), (pair.base, broken)):
        with pytest.raises(FormatError, match=f"(?s)broken.*{message}|{message}") as caught:
            pack(base, tuned, options=ALL)
        assert str(broken) in str(caught.value)
        assert len(str(caught.value)) < 600
    assert listing(tmp_path) == before


@pytest.mark.parametrize("case", FOREIGN_FILES)
def test_a_foreign_file_given_as_a_task_says_what_it_is(case: str, tmp_path: Path) -> None:
    data, message = FOREIGN_FILES[case]
    path = tmp_path / "task.stv"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=f"task.stv: is .*{message}"):
        read_task(path)


def test_a_model_is_no_task(pair: Pair) -> None:
    with pytest.raises(FormatError, match=r"model.safetensors: .*no sparsetv task; is it a model's weights\?"):
        read_task(pair.base / "model.safetensors")


def test_a_task_is_no_model(tmp_path: Path, pair: Pair) -> None:
    task = pack_to(tmp_path / "task.stv", pair.base, pair.tuned)
    for base, tuned in ((task, pair.tuned), (pair.base, task)):
        with pytest.raises(CheckpointError, match=r"task.stv: a sparsetv task file where a model checkpoint is needed"):
            pack(base, tuned, options=ALL)


# Numbers (35, 36)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_positions_beyond_two_to_the_31(tmp_path: Path, dtype: str) -> None:
    """A tensor of 2.8 billion entries in a file that is nearly all hole, read where it is not."""
    shape = (70_000, 40_000)
    name, size = "model.layers.0.up.weight", 2 * 70_000 * 40_000
    header = {name: {"dtype": dtype, "shape": list(shape), "data_offsets": [0, size]}}
    text = framed(json.dumps(header).encode().ljust(128))
    places = [2**31 - 1, 2**31, 2**31 + 12_345, 2**32 - 2**31 + 500_000_000, 70_000 * 40_000 - 1]
    one = np.array([1.5], np.float16).tobytes() if dtype == "F16" else b"\xc0\x3f"
    paths = [tmp_path / side / "model.safetensors" for side in ("base", "tuned")]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(text)
        os.truncate(path, len(text) + size)
    with paths[1].open("r+b") as file:
        for place in places:
            file.seek(len(text) + 2 * place)
            file.write(one)
    opened = [open_checkpoint(path.parent) for path in paths]
    vector = task_vector(opened[0], opened[1])
    mask = Mask({name: shape}, {name: np.array(places, np.int64)})
    tensor = gather(vector, mask)[name]
    assert tensor.positions.tolist() == places
    assert tensor.values.tolist() == [1.5] * len(places)
    chunks = list(vector.chunks(name))
    starts = np.array([chunk.start for chunk in chunks])
    wanted = sorted(set(np.searchsorted(starts, places, side="right") - 1))
    found = [chunks[i].start + int(place) for i in wanted for place in np.flatnonzero(chunks[i].deltas())]
    assert found == places
    assert tensor.crow_indices[-1] == len(places)
    assert (tensor.col_indices == np.array(places) % 40_000).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["base", "tuned"])
def test_nonfinite_weights_in_scope_are_refused(bad: float, side: str, tmp_path: Path) -> None:
    base = base_tensors()
    tuned = tuned_tensors(base)
    (base if side == "base" else tuned)[DENSE][3, 2] = bad
    paths = checkpoint(tmp_path / "a", base), checkpoint(tmp_path / "b", tuned)
    with pytest.raises(NonFiniteError, match=f"{DENSE}: .*NaN or infinite at position 17; repair.*--scope '!NAME'"):
        pack(*paths, options=ALL)


def test_a_difference_that_overflows_is_refused(tmp_path: Path) -> None:
    base = base_tensors()
    tuned = tuned_tensors(base)
    base[DENSE][0, 0], tuned[DENSE][0, 0] = -3e38, 3e38
    paths = checkpoint(tmp_path / "a", base), checkpoint(tmp_path / "b", tuned)
    with pytest.raises(NonFiniteError, match=f"{DENSE}: .*at position 0"):
        pack(*paths, options=ALL)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nonfinite_weights_outside_the_scope_do_not_break_the_file(bad: float, tmp_path: Path) -> None:
    """Advice is to leave such a tensor out of the scope, so that must work, or fail with a known error."""
    base = base_tensors()
    tuned = tuned_tensors(base)
    tuned["pooler.dense.weight"][0, 0] = bad
    tuned[WORDS] += 1
    paths = checkpoint(tmp_path / "a", base), checkpoint(tmp_path / "b", tuned)
    options = PackOptions(density=0.2, scope=Scope("blocks"))
    path = tmp_path / "t.stv"
    write_task(path, pack(*paths, name="t", options=options))
    assert all(np.isfinite(share) for _, share in read_task(path).finetuned.outside)


def test_stitching_that_overflows_is_refused_and_writes_nothing(tmp_path: Path, pair: Pair) -> None:
    base = {name: value.astype(np.float16) for name, value in base_tensors().items()}
    paths = checkpoint(tmp_path / "a", base), checkpoint(tmp_path / "b", tuned_tensors(base))
    task = pack_to(tmp_path / "t.stv", *paths)
    before = listing(tmp_path)
    with pytest.raises(NonFiniteError, match=r"encoder\.\S+: .*position \d+ overflows F16; use a smaller scale"):
        stitch(paths[0], [task], tmp_path / "out", options=StitchOptions(scale=1e8))
    assert listing(tmp_path) == before


# Base and fine-tune (38 to 42)


def test_another_base_is_refused(tmp_path: Path, pair: Pair) -> None:
    task = pack_to(tmp_path / "t.stv", pair.base, pair.tuned)
    other = checkpoint(tmp_path / "other", base_tensors(seed=7))
    before = listing(tmp_path)
    message = (
        r"tuned was packed against base \w{12}… but .*other is \w{12}… \(first difference: encoder\.\S+\); pass the"
    )
    with pytest.raises(BaseMismatchError, match=message):
        stitch(other, [task], tmp_path / "out")
    assert listing(tmp_path) == before


def test_a_base_of_another_dtype_shape_or_name_is_refused(tmp_path: Path, pair: Pair) -> None:
    task = pack_to(tmp_path / "t.stv", pair.base, pair.tuned)
    half = checkpoint(tmp_path / "half", {n: v.astype(np.float16) for n, v in base_tensors().items()})
    flat = checkpoint(tmp_path / "flat", base_tensors() | {DENSE: np.zeros((5, 6), np.float32)})
    lacking = checkpoint(tmp_path / "lacking", {n: v for n, v in base_tensors().items() if n != DENSE})
    for base, message in (
        (half, r"\S+ is F32 \(\S+.*\) for tuned, but F16 .* in base \S+half; pass the base"),
        (flat, rf"{DENSE} is F32 \(6, 5\) for tuned, but F32 \(5, 6\) in base \S+flat; pass the base"),
        (lacking, rf"tuned needs tensor {DENSE}, which base \S+lacking lacks; pass the base it was packed from"),
    ):
        with pytest.raises(BaseMismatchError, match=message):
            stitch(base, [task], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_change_outside_the_touched_tensors_is_no_other_base(tmp_path: Path, pair: Pair) -> None:
    """Only tensors that the task touches must agree (SPEC 3.4)."""
    task = pack_to(tmp_path / "t.stv", pair.base, pair.tuned)
    other = checkpoint(tmp_path / "other", base_tensors() | {WORDS: np.ones((12, 4), np.float32)})
    stitch(other, [task], tmp_path / "out")
    assert (load_file(tmp_path / "out" / "model.safetensors")[WORDS] == 1).all()


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F64", "I8"])
def test_weights_that_cannot_hold_exact_deltas_are_refused(dtype: str, tmp_path: Path, pair: Pair) -> None:
    width = 8 if dtype == "F64" else 1
    odd = Raw(dtype, (6, 5), os.urandom(30 * width))
    strange = checkpoint(tmp_path / "strange", {**tuned_tensors(base_tensors()), DENSE: odd})
    for base, tuned in ((strange, pair.tuned), (pair.base, strange)):
        with pytest.raises(CheckpointError, match=f"{DENSE}: dtype {dtype} .*F32, BF16 or F16.*quantized"):
            pack(base, tuned, options=ALL)


@pytest.mark.parametrize("dtype", ["U8", "BOOL"])
def test_an_unchanged_buffer_of_bytes_in_a_block_is_no_quantized_weight(dtype: str, tmp_path: Path) -> None:
    """Pythia and older GPT-2 checkpoints carry their causal mask so."""
    mask = Raw(dtype, (3, 3), bytes([1, 0, 0, 1, 1, 0, 1, 1, 1]))
    base = base_tensors()
    paths = (
        checkpoint(tmp_path / "a", {**base, "encoder.layer.0.attention.mask": mask}),
        checkpoint(tmp_path / "b", {**tuned_tensors(base), "encoder.layer.0.attention.mask": mask}),
    )
    assert "encoder.layer.0.attention.mask" not in pack(*paths, options=ALL).tensors


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "fp8", "compressed-tensors"])
def test_a_quantized_configuration_is_refused(method: str, tmp_path: Path, pair: Pair) -> None:
    config = {"quantization_config": {"quant_method": method}}
    strange = checkpoint(tmp_path / "strange", base_tensors(seed=3), config)
    for base, tuned in ((strange, pair.tuned), (pair.base, strange)):
        with pytest.raises(CheckpointError, match=rf"strange: quantized \({method}\); .*use the checkpoint that was"):
            pack(base, tuned, options=ALL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", r"config.json: not JSON \(.*\); fetch it again"),
        (b"\xff", r"config.json: not JSON \(.*\); fetch it again"),
        (b"[1]", r"config.json: expected an object, found list"),
        (b'{"a":' + b"1" * 5000 + b"}", r"config.json: "),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", r"config.json: "),
    ],
    ids=["cut off", "not UTF-8", "list", "huge integer", "deep"],
)
def test_a_broken_configuration_is_refused(text: bytes, message: str, tmp_path: Path, pair: Pair) -> None:
    (pair.tuned / "config.json").write_bytes(text)
    with pytest.raises(FormatError, match=message):
        pack(pair.base, pair.tuned, options=ALL)


def test_another_shape_in_scope_is_refused_with_a_way_out(tmp_path: Path, pair: Pair) -> None:
    base = base_tensors()
    tuned = tuned_tensors(base) | {DENSE: np.ones((6, 4), np.float32)}
    other = checkpoint(tmp_path / "other", tuned)
    with pytest.raises(
        ShapeError, match=rf"{DENSE}: base has shape \(6, 5\), fine-tune \(6, 4\); exclude .*'!{DENSE}'"
    ):
        pack(pair.base, other, options=ALL)
    task = pack(pair.base, other, options=PackOptions(0.2, Scope.parse(["all", f"!{DENSE}"])))
    assert task.extras[DENSE].kind == "tensor"
    stitched(tmp_path, pair.base, task, {DENSE: tuned[DENSE]})


def test_a_missing_tensor_in_scope_is_refused_with_a_way_out(tmp_path: Path, pair: Pair) -> None:
    tuned = tuned_tensors(base_tensors())
    tuned.pop(DENSE)
    other = checkpoint(tmp_path / "other", tuned)
    with pytest.raises(NamesError, match=rf"other lacks {DENSE}, which the scope covers; .*'!{DENSE}'"):
        pack(pair.base, other, options=ALL)
    task = pack(pair.base, other, options=PackOptions(0.2, Scope.parse(["all", f"!{DENSE}"])))
    assert task.finetuned.missing == (DENSE,)
    assert DENSE not in stitched(tmp_path, pair.base, task, {})


def test_added_tensors_are_carried(tmp_path: Path, pair: Pair) -> None:
    head: dict[str, np.ndarray] = {
        "classifier.weight": np.arange(8, dtype=np.float32).reshape(2, 4),
        "step": np.array([7], np.int64),
    }
    other = checkpoint(tmp_path / "other", tuned_tensors(base_tensors()) | head)
    stitched(tmp_path, pair.base, pack(pair.base, other, options=ALL), head)


def stitched(room: Path, base: Path, task: SparseTaskVector, expected: dict[str, np.ndarray]) -> set[str]:
    """Stitch through a file; compare some tensors bit by bit; give the names of all."""
    write_task(room / "through.stv", task)
    stitch(base, [room / "through.stv"], room / "stitched", options=StitchOptions(scale="none"))
    found = load_file(room / "stitched" / "model.safetensors")
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert found[name].tobytes() == value.tobytes()
    return set(found)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "base_model.model.", "model.", "bert."])
@pytest.mark.parametrize("side", ["base", "tuned"])
def test_wrapper_prefixes_are_seen_through(prefix: str, side: str, tmp_path: Path) -> None:
    base = base_tensors()
    tuned = tuned_tensors(base)
    renamed = {prefix + name: value for name, value in (base if side == "base" else tuned).items()}
    paths = (
        checkpoint(tmp_path / "a", renamed if side == "base" else base),
        checkpoint(tmp_path / "b", renamed if side == "tuned" else tuned),
    )
    task = pack(*paths, options=PackOptions(1.0, Scope("all")))
    assert task.finetuned.prefix == ((prefix, "") if side == "base" else ("", prefix))
    inside = prefix if side == "tuned" and prefix in {"model.", "bert."} else ""  # no class has the others
    target = {inside + name: value for name, value in tuned.items()}
    assert stitched(tmp_path, paths[0], task, target) == set(target)


def test_unrelated_models_are_refused_with_both_name_lists(tmp_path: Path, pair: Pair) -> None:
    other = checkpoint(tmp_path / "other", {"h.0.mlp.weight": np.ones((3, 3), np.float32)})
    message = (
        r"no prefix makes tensor names .* agree; base has embeddings.*\(7 in all\); fine-tune has h\.0\.mlp\.weight"
    )
    with pytest.raises(NamesError, match=message):
        pack(pair.base, other, options=ALL)


def test_a_head_saved_apart_from_tied_embeddings_is_an_alias(tmp_path: Path, pair: Pair) -> None:
    tuned = tuned_tensors(base_tensors())
    tuned["lm_head.weight"] = tuned[WORDS].copy()
    other = checkpoint(tmp_path / "other", tuned)
    task = pack(pair.base, other, options=PackOptions(1.0, Scope("all")))
    assert (task.extras["lm_head.weight"].kind, task.extras["lm_head.weight"].source) == ("alias", WORDS)
    assert task.extras["lm_head.weight"].data.nbytes == 0
    stitched(tmp_path, pair.base, task, tuned)


def test_a_tied_head_keeps_the_rows_that_embeddings_gained(tmp_path: Path, pair: Pair) -> None:
    tuned = tuned_tensors(base_tensors())
    tuned[WORDS] = np.concatenate([tuned[WORDS], np.full((2, 4), 0.5, np.float32)])
    tuned["lm_head.weight"] = tuned[WORDS].copy()
    other = checkpoint(tmp_path / "other", tuned)
    stitched(tmp_path, pair.base, pack(pair.base, other, options=PackOptions(1.0, Scope("all"))), tuned)


def test_an_untied_head_is_carried_whole(tmp_path: Path, pair: Pair) -> None:
    tuned = tuned_tensors(base_tensors())
    tuned["lm_head.weight"] = tuned[WORDS] + np.float32(1)
    other = checkpoint(tmp_path / "other", tuned)
    task = pack(pair.base, other, options=PackOptions(1.0, Scope("all")))
    assert task.extras["lm_head.weight"].kind == "tensor"
    stitched(tmp_path, pair.base, task, tuned)


def test_base_and_fine_tune_in_one_place_are_refused(tmp_path: Path, pair: Pair) -> None:
    (tmp_path / "link").symlink_to(pair.base)
    for other in (pair.base, tmp_path / "link", pair.base / "model.safetensors", f"{pair.base}/."):
        with pytest.raises(CheckpointError, match=r"are the same files; pass a base and its fine-tune"):
            pack(pair.base, other, options=ALL)


def test_an_equal_copy_packs_to_nothing_but_zeros(tmp_path: Path, pair: Pair) -> None:
    copy = checkpoint(tmp_path / "copy", base_tensors())
    task = pack(pair.base, copy, options=ALL)
    assert not any(tensor.values.any() for tensor in task.tensors.values())
    stitched(tmp_path, pair.base, task, base_tensors())


# Directories (43 to 45, 54, 55)


def test_an_adapter_is_refused_with_the_way_to_merge_it(tmp_path: Path, pair: Pair) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (adapter / "adapter_model.safetensors").write_bytes(safetensors({"lora_A": np.ones((2, 2), np.float32)}))
    with pytest.raises(CheckpointError, match=r"adapter: a LoRA adapter, .*merge_and_unload.*pass DIR"):
        pack(pair.base, adapter, options=ALL)


@pytest.mark.parametrize(
    "shard",
    [
        "../secret.safetensors", "/etc/secret.safetensors", "C:secret.safetensors", "C:\\secret.safetensors",
        "..\\secret.safetensors", "\\\\host\\share\\a.safetensors", "a/../../secret.safetensors", "model.bin",
        "model.safetensors.pkl", "", "a\0.safetensors", 7, None, ["a.safetensors"],
    ],
)  # fmt: skip
def test_an_index_may_name_only_safetensors_inside_the_directory(shard: object, tmp_path: Path) -> None:
    (tmp_path / "secret.safetensors").write_bytes(safetensors(base_tensors()))
    source = sharded(tmp_path / "model", {"model-1.safetensors": base_tensors()}, {QUERY: shard})
    with pytest.raises(
        FormatError, match=r"index.json: encoder\S+ names shard .*(a \.safetensors file in this directory|no text)"
    ):
        open_checkpoint(source)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (b"[]", FormatError, "no `weight_map` object"),
        (b"{}", FormatError, "no `weight_map` object"),
        (b'{"weight_map": []}', FormatError, "no `weight_map` object"),
        (b'{"weight_map": {}}', FormatError, "no `weight_map` object"),
        (b'{"weight_map": {"a":"x.safetensors","a":"y.safetensors"}}', FormatError, "key 'a' appears twice"),
        (b'{"weight_map": ', FormatError, "not JSON at character"),
        (b"\xfe\xff", FormatError, "not UTF-8 at byte 0"),
        (b'{"a":' * 50_000, FormatError, "nested too deeply|not JSON"),
        (b" " * (10 << 20) + b"{}", LimitError, r"index of 10485762 bytes, limit 10485760"),
    ],
    ids=["list", "empty", "list inside", "empty map", "duplicate", "cut off", "UTF-16", "deep", "11 MB"],
)
def test_a_broken_index_is_refused(text: bytes, error: type[Exception], message: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_bytes(text)
    with pytest.raises(error, match=f"index.json: .*({message})"):
        open_checkpoint(tmp_path)


def test_index_and_shards_must_agree(tmp_path: Path) -> None:
    one = {QUERY: np.ones((2, 2), np.float32)}
    two = {DENSE: np.ones((2, 2), np.float32)}
    shards = {"a.safetensors": one, "b.safetensors": two}
    absent = sharded(
        tmp_path / "absent", shards, {QUERY: "a.safetensors", DENSE: "a.safetensors", "x": "b.safetensors"}
    )
    with pytest.raises(
        FormatError, match=rf"absent: the index puts {DENSE} into a.safetensors, which does not hold it"
    ):
        open_checkpoint(absent)
    twice = sharded(
        tmp_path / "twice", shards | {"b.safetensors": two | one}, {QUERY: "a.safetensors", DENSE: "b.safetensors"}
    )
    with pytest.raises(FormatError, match=rf"twice: tensor {QUERY} stands in a.safetensors and in b.safetensors"):
        open_checkpoint(twice)
    gone = sharded(tmp_path / "gone", shards)
    (gone / "b.safetensors").unlink()
    with pytest.raises(NotFoundError, match=r"gone: shard b.safetensors of the index is missing"):
        open_checkpoint(gone)


def test_a_shard_that_links_out_of_its_directory_is_refused(tmp_path: Path) -> None:
    source = sharded(
        tmp_path / "model", {"a.safetensors": base_tensors(), "b.safetensors": {"x": np.ones(2, np.float32)}}
    )
    (source / "b.safetensors").rename(tmp_path / "secret")
    (source / "b.safetensors").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match=r"model: shard b.safetensors is a link that leaves the directory"):
        open_checkpoint(source)


def test_a_link_inside_the_directory_is_fine(tmp_path: Path) -> None:
    source = sharded(tmp_path / "model", {"a.safetensors": base_tensors()})
    (source / "kept").mkdir()
    (source / "a.safetensors").rename(source / "kept" / "a")
    (source / "a.safetensors").symlink_to(Path("kept") / "a")
    assert open_checkpoint(source).names == tuple(sorted(base_tensors()))


@pytest.mark.parametrize("several", [True, False])
def test_the_hub_cache_layout_works(several: bool, tmp_path: Path, pair: Pair) -> None:
    repo = tmp_path / "models--org--name"
    snapshot = repo / "snapshots" / "0123abcd"
    source = (sharded if several else checkpoint)(
        snapshot, *({"a.safetensors": base_tensors(1)},) if several else (base_tensors(1),)
    )
    (repo / "blobs").mkdir()
    for number, path in enumerate(sorted(source.iterdir())):
        path.rename(repo / "blobs" / f"{number:064}")
        path.symlink_to(Path("..") / ".." / "blobs" / f"{number:064}")
    opened = open_checkpoint(source)
    assert opened.bits(DENSE).tobytes() == base_tensors(1)[DENSE].tobytes()


def test_pickles_are_refused_and_never_opened(tmp_path: Path, pair: Pair) -> None:
    bad = tmp_path / "pickled"
    bad.mkdir()
    (bad / "pytorch_model.bin").write_bytes(b"\x80\x02cos\nsystem\n(S'touch /tmp/never'\ntR.")
    with pytest.raises(CheckpointError, match=r"pickled: only pickled weights \(.bin\).*run code; `sparsetv convert"):
        pack(pair.base, bad, options=ALL)
    for name in ("a.bin", "a.pt", "a.pth", "a.ckpt", "a.pkl"):
        (tmp_path / name).write_bytes(b"\x80\x02.")
        with pytest.raises(CheckpointError, match=rf"{name}: a pickle, which can run code; `sparsetv convert"):
            pack(pair.base, tmp_path / name, options=ALL)


def test_special_files_are_refused_and_never_waited_for(tmp_path: Path, pair: Pair) -> None:
    fifo = tmp_path / "fifo.safetensors"
    os.mkfifo(fifo)
    with pytest.raises(CheckpointError, match=r"fifo.safetensors: not a regular file"):
        pack(pair.base, fifo, options=ALL)
    with pytest.raises(CheckpointError, match=r"/dev/null: not a regular file"):
        pack(pair.base, "/dev/null", options=ALL)
    with pytest.raises(FormatError, match=r"fifo.safetensors: not a regular file; name a .stv file"):
        read_task(fifo)
    for name in ("model.safetensors", "model.safetensors.index.json"):
        room = tmp_path / f"holds {name}"
        room.mkdir()
        os.mkfifo(room / name)
        with pytest.raises(NotFoundError, match=r"holds .*: no model.safetensors"):
            pack(pair.base, room, options=ALL)
    os.mkfifo(pair.tuned / "tokenizer.json")
    assert "tokenizer.json" not in pack(pair.base, pair.tuned, options=ALL).files


def test_a_directory_without_weights_or_with_too_many_is_refused(tmp_path: Path, pair: Pair) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(
        NotFoundError, match=r"empty: no model.safetensors, no model.safetensors.index.json and no other"
    ):
        pack(pair.base, empty, options=ALL)
    for name in ("a", "b"):
        (empty / f"{name}.safetensors").write_bytes(safetensors(base_tensors()))
    with pytest.raises(CheckpointError, match=r"empty: 2 safetensors files and no .*index.json; name one file"):
        pack(pair.base, empty, options=ALL)


@pytest.mark.parametrize("missing", ["nowhere", "a/b/c", "/nowhere/at/all", "two words/x"])
def test_what_is_not_there_is_said_to_be_nowhere(missing: str, pair: Pair) -> None:
    with pytest.raises(NotFoundError, match=f"{missing}: no such file or directory, and no hub id"):
        pack(pair.base, missing, options=ALL)


@pytest.mark.parametrize("side", ["base", "tuned"])
def test_a_source_that_changes_while_it_is_read_is_noticed(side: str, pair: Pair) -> None:
    changed = getattr(pair, side) / "model.safetensors"

    def touch(what: str, done: int, total: int) -> None:
        os.utime(changed, ns=(1, 1))

    with pytest.raises(CheckpointError, match=f"{side}/model.safetensors: changed while it was read; run again when"):
        pack(pair.base, pair.tuned, options=ALL, progress=touch)


@pytest.mark.parametrize("side", ["base", "tuned"])
def test_a_source_that_goes_while_it_is_read_is_noticed(side: str, tmp_path: Path, pair: Pair) -> None:
    gone = getattr(pair, side) / "model.safetensors"
    task = pack_to(tmp_path / "t.stv", pair.base, pair.tuned)

    def lose(what: str, done: int, total: int) -> None:
        gone.unlink(missing_ok=True)

    message = f"{side}/model.safetensors: went while it was read; run again when it is back"
    with pytest.raises(CheckpointError, match=message):
        pack(pair.base, pair.tuned, options=ALL, progress=lose)
    if side == "tuned":
        return
    shutil.copy(pair.tuned / "model.safetensors", gone)
    with pytest.raises(OutputError, match=r"out: .*base/model.safetensors: No such file or directory"):
        stitch(pair.base, [task], tmp_path / "out", progress=lose)
    assert not (tmp_path / "out").exists()


def test_a_base_that_changes_while_it_is_stitched_is_noticed(tmp_path: Path, pair: Pair) -> None:
    task = pack_to(tmp_path / "t.stv", pair.base, pair.tuned)
    changed = pair.base / "model.safetensors"

    def rewrite(what: str, done: int, total: int) -> None:
        with changed.open("r+b") as file:  # in place: a mapped file that shrinks would end the process
            file.seek(-3, os.SEEK_END)
            file.write(b"\x01")

    before = set(listing(tmp_path))
    with pytest.raises(
        (CheckpointError, BaseMismatchError), match=r"base/model.safetensors: changed while it was read"
    ):
        stitch(pair.base, [task], tmp_path / "out", progress=rewrite)
    assert set(listing(tmp_path)) == before


def test_names_that_no_task_file_may_carry_are_refused_at_packing(tmp_path: Path) -> None:
    for number, name in enumerate(("layer.0.\n", "layer.0.e\u0301", "layer.0." + "x" * 600)):
        paths = [
            checkpoint(tmp_path / f"{side}{number}", {name: np.full((2, 2), side, np.float32)}) for side in range(2)
        ]
        with pytest.raises(FormatError, match=r"tensor name .*(control characters|normal form C|600|608)"):
            write_task(tmp_path / "t.stv", pack(*paths, name="t", options=ALL))
    assert not (tmp_path / "t.stv").exists()


@pytest.mark.parametrize("name", ["a/b", "..", "con", "nul.txt", "a:b", "x" * 129, " a", "a.", "a\tb"])
def test_a_task_name_must_be_a_portable_path_component(name: str, pair: Pair) -> None:
    with pytest.raises(Exception, match=r"(task|tensor) name .*; pass another with --name") as caught:
        pack(pair.base, pair.tuned, name=name, options=ALL)
    assert getattr(caught.value, "exit_code", None) == 2


def test_dtypes_of_the_builders_are_real() -> None:
    """The builder's table against the safetensors library."""
    from safetensors.numpy import load

    arrays = {DTYPES[dtype]: np.zeros((2, 3), dtype) for dtype in DTYPES if dtype != np.dtype("u2")}
    assert {name: value.dtype for name, value in load(safetensors(arrays)).items()} == {
        name: value.dtype for name, value in arrays.items()
    }


def test_adding_to_a_plain_checkpoint_is_refused(tmp_path: Path, pair: Pair) -> None:
    task = pack_to(tmp_path / "t.stv", pair.base, pair.tuned)
    with pytest.raises(NotFoundError, match=r"base: no sparsetv.json; only a directory that `sparsetv stitch` wrote"):
        add(pair.base, [task])
