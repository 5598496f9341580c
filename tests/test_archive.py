"""Archives give every byte back: any dtype, shape, sharding and relation between base and fine-tune (ARCHIVE)."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from helpers import tree
from hypothesis import given, settings
from hypothesis import strategies as st
from raw import DTYPES, Raw, make, raw_pairs, write_raw

from sparsetv.archive import numbers as coding
from sparsetv.archive.chunk import decode_chunk, encode_chunk, mode_of
from sparsetv.archive.elements import apply, by_class, differences, kind_of, ranks, unrank
from sparsetv.archive.limits import CHUNK_ELEMENTS
from sparsetv.archive.streams import In, Out
from sparsetv.bench.cost import peak_memory
from sparsetv.cli import group
from sparsetv.errors import BaseMismatchError, CheckpointError, OutputError, UsageError, VerifyError
from sparsetv.jobs.archive import archive_to, restore
from sparsetv.jobs.archived import inspect_archive, verify_archive
from sparsetv.jobs.verify import verify

Bits = npt.NDArray[Any]


@given(pair=raw_pairs())
def test_restored_files_are_the_archived_ones(fresh: Callable[[], Path], no_sync: None, pair: tuple[Raw, Raw]) -> None:
    path = fresh()
    base, tuned = make(path, *pair)
    summary = archive_to(path / "a.stv", base, tuned)
    archive_to(path / "b.stv", base, tuned, name="a")
    assert (path / "a.stv").read_bytes() == (path / "b.stv").read_bytes()
    restore(base, path / "a.stv", path / "out")
    assert tree(path / "out") == tree(tuned)
    assert summary.file_bytes == (path / "a.stv").stat().st_size
    assert summary.checkpoint_bytes == sum(map(len, tree(tuned).values()))
    assert sum(summary.modes.values()) + summary.other_bytes == summary.file_bytes
    names = [check[0] for check in verify_archive(path / "a.stv", base=base, finetuned=tuned)]
    assert names == ["container", "base", "content", "bits"]


FLOATS = ["F64", "F32", "BF16", "F16", "F8_E4M3", "F8_E5M2"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.2, 0.9])
def test_large_chunks_of_every_dtype(dtype: str, share: float) -> None:
    """Chunks long enough for classes; NaN payloads, infinities and -0.0 are among random bits."""
    kind, rng = kind_of(dtype), np.random.default_rng(7)
    base = rng.integers(0, 1 << min(8 * kind.width, 63), 20_001, np.uint64).astype(kind.bits)
    step = rng.integers(1, 3, len(base)).astype(kind.bits)
    tuned = np.where(rng.random(len(base)) < share, base + step, base)
    coded = encode_chunk(base, tuned, kind)
    assert (not coded) == (share == 0)
    assert np.array_equal(decode_chunk(memoryview(coded), base, kind, count=len(base), what="x"), tuned)
    assert len(coded) <= 1 + tuned.nbytes
    alone = encode_chunk(None, tuned, kind)
    assert np.array_equal(decode_chunk(memoryview(alone), None, kind, count=len(base), what="x"), tuned)


@pytest.mark.parametrize("dtype", FLOATS)
def test_ranks_follow_the_order_of_numbers(dtype: str) -> None:
    """Against a slow oracle: walk from the most negative finite number up, one representable number at a time."""
    kind = kind_of(dtype)
    sign = 1 << (8 * kind.width - 1)
    ascending = [sign | magnitude for magnitude in (9, 8, 2, 1, 0)] + [0, 1, 2, 8, 9]
    found = ranks(np.array(ascending, kind.bits), kind).tolist()
    assert found == [-10, -9, -3, -2, -1, 0, 1, 2, 8, 9]
    everything = np.random.default_rng(1).integers(0, 1 << 63, 999, np.uint64).astype(kind.bits)
    assert np.array_equal(unrank(ranks(everything, kind), kind), everything)


def test_differences_by_hand() -> None:
    kind = kind_of("BF16")
    base, tuned = np.array([5, 5, 5, 0x8000, 0, 0xFFFF], "<u2"), np.array([5, 6, 4, 0, 0x8000, 0], "<u2")
    found = differences(base, tuned, kind)
    assert found.tolist()[:5] == [0, 2, 1, 2, 1]
    assert np.array_equal(apply(base, found, kind), tuned)


def test_classes_by_hand() -> None:
    exponents = np.array([9, 120, 121, 127, 126, 128, 255, 0, 120], np.uint16)
    order, counts = by_class((exponents << 7).astype("<u2"), kind_of("BF16"), 127)
    assert order is not None
    assert order.tolist() == [7, 0, 1, 8, 2, 4, 3, 5, 6]
    assert counts == (4, 1, 0, 0, 0, 0, 1, 3)


@given(data=st.data(), width=st.sampled_from([1, 2, 4, 8]))
@settings(max_examples=120)
def test_numbers_round_trip(data: st.DataObject, width: int) -> None:
    most = (1 << 8 * width) - 1
    element = st.one_of(st.integers(0, 300), st.integers(0, 1 << 13), st.integers(0, most), st.just(most))
    numbers = np.array([min(n, most) for n in data.draw(st.lists(element, max_size=60))], f"<u{width}")
    out = Out()
    coding.encode_numbers(out, numbers)
    source = In(memoryview(out.tobytes()), what="x")
    assert np.array_equal(coding.decode_numbers(source, len(numbers), numbers.dtype), numbers)
    source.done()


def sft(count: int, *, step: float = 2e-4) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    rng = np.random.default_rng(3)
    base = rng.standard_normal(count, np.float32) * np.float32(0.02)
    return base, base + rng.standard_normal(count, np.float32) * np.float32(step)


@pytest.mark.parametrize(
    ("step", "dtype", "mode", "most"),
    [
        (2e-4, "F32", "offset", 0.64),
        (2e-4, "BF16", "offset", 0.28),
        (4e-7, "BF16", "sparse", 0.012),
        (0.0, "F32", "same", 0.0),
    ],
)
def test_modes_and_sizes(step: float, dtype: str, mode: str, most: float) -> None:
    base, tuned = (side.view("<u4") for side in sft(CHUNK_ELEMENTS, step=step))
    if dtype == "BF16":
        base, tuned = ((side >> 16).astype("<u2") for side in (base, tuned))
    coded = encode_chunk(base, tuned, kind_of(dtype))
    assert mode_of(memoryview(coded)) == mode
    assert len(coded) <= most * tuned.nbytes


def test_noise_is_stored_as_it_is() -> None:
    noise = np.frombuffer(np.random.default_rng(0).bytes(4096), "<u4")
    coded = encode_chunk(None, noise, kind_of("F32"))
    assert len(coded) <= 1 + noise.nbytes


def test_chunks_of_several_shards_and_grown_rows(tmp_path: Path) -> None:
    """Tensors longer than a chunk, two shards, names behind a prefix, added rows, a head saved twice."""
    rows = CHUNK_ELEMENTS // 100 + 7
    base, tuned = (side.reshape(rows, 100).astype("<f4") for side in sft(rows * 100))
    more = np.ones((3, 100), "<f4")
    words = ("F32", (rows + 3, 100), tuned.tobytes() + more.tobytes())
    for side in ("base", "tuned"):
        (tmp_path / side).mkdir()
    write_raw(tmp_path / "base" / "model.safetensors", {
        "words": ("F32", (rows, 100), base.tobytes()), "x.w": ("F32", (1,), bytes(4)), "x.v": ("F32", (1,), bytes(4)),
    })  # fmt: skip
    shards = {"model-00001-of-00002.safetensors": {"m.words": words, "m.x.w": ("F32", (1,), bytes(4))},
              "model-00002-of-00002.safetensors": {"head": words, "m.x.v": ("F32", (1,), b"abcd")}}  # fmt: skip
    for name, tensors in shards.items():
        write_raw(tmp_path / "tuned" / name, tensors)
    index = {"weight_map": {tensor: name for name, tensors in shards.items() for tensor in tensors}}
    (tmp_path / "tuned" / "model.safetensors.index.json").write_text(json.dumps(index))
    summary = archive_to(tmp_path / "a.stv", tmp_path / "base", tmp_path / "tuned")
    assert {tensor.name: tensor.base for tensor in summary.tensors} == {
        "m.words": "words", "m.x.w": "x.w", "head": "words", "m.x.v": "x.v",
    }  # fmt: skip
    restore(tmp_path / "base", tmp_path / "a.stv", tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "tuned")


def test_files_that_travel(tmp_path: Path) -> None:
    base, tuned = make(tmp_path, {"w": ("F32", (2,), bytes(8))}, {"w": ("F32", (2,), b"abcdefgh")})
    (tmp_path / "tuned" / "config.json").write_text('{"a": 1}')
    for side in (base, tuned):
        (side / "vocab.txt").write_text("a\nb\n")
    (tuned / "training_args.bin").write_bytes(b"\x80\x02")
    (tuned / "modeling.py").write_text("raise SystemExit")
    (tuned / "runs").mkdir()
    (tuned / "empty.txt").write_bytes(b"")
    notes: list[str] = []
    archive_to(tmp_path / "a.stv", base, tuned, note=notes.append)
    assert [note.split("(")[0] for note in notes] == [
        "not archived: modeling.py ", "not archived: runs ", "not archived: training_args.bin ",
    ]  # fmt: skip
    kinds = {str(file["name"]): file["kind"] for file in inspect_archive(tmp_path / "a.stv").files}
    assert kinds == {
        "config.json": "stored", "empty.txt": "stored", "model.safetensors": "weights", "vocab.txt": "base",
    }  # fmt: skip
    restore(base, tmp_path / "a.stv", tmp_path / "out")
    assert tree(tmp_path / "out") == {name: data for name, data in tree(tuned).items() if name in kinds}
    (base / "vocab.txt").write_text("a\nc\n")
    with pytest.raises(BaseMismatchError, match=r"vocab\.txt: is another file than the one that .* needs; pass the"):
        restore(base, tmp_path / "a.stv", tmp_path / "out2")
    (base / "vocab.txt").unlink()
    with pytest.raises(BaseMismatchError, match=r"needs vocab\.txt of its base, which .* lacks"):
        restore(base, tmp_path / "a.stv", tmp_path / "out2")


def test_a_lone_file(tmp_path: Path) -> None:
    base, tuned = make(tmp_path, {"w": ("BF16", (2,), bytes(4))}, {"w": ("BF16", (2,), b"abcd")})
    archive_to(tmp_path / "a.stv", base / "model.safetensors", tuned / "model.safetensors")
    restore(base / "model.safetensors", tmp_path / "a.stv", tmp_path / "out")
    assert tree(tmp_path / "out") == {"model.safetensors": (tuned / "model.safetensors").read_bytes()}


# --- what is refused


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A base, its fine-tune and the archive of it."""
    values = np.arange(6, dtype="<f4")
    tensors: Raw = {"a": ("F32", (2, 3), values.tobytes()), "b": ("F32", (6,), values.tobytes())}
    changed: Raw = {**tensors, "b": ("F32", (6,), (values * 2).tobytes())}
    base, tuned = make(tmp_path, tensors, changed)
    archive_to(tmp_path / "a.stv", base, tuned)
    return tmp_path


def other_base(packed: Path, tensors: Raw) -> Path:
    (packed / "other").mkdir()
    write_raw(packed / "other" / "model.safetensors", tensors)
    (packed / "other" / "config.json").write_text("{}")
    return packed / "other"


WRONG: list[tuple[Raw, str]] = [
    ({"a": ("F32", (2, 3), bytes(24)), "b": ("F32", (6,), bytes(24))}, r"first difference: a: expected [0-9a-f]{12}…"),
    ({"a": ("F32", (2, 3), np.arange(6, dtype="<f4").tobytes())}, "needs tensor b, which base .* lacks; pass the base"),
    ({"a": ("F32", (6,), bytes(24)), "b": ("F32", (6,), bytes(24))}, r"a is F32 \(2, 3\) for .*, but F32 \(6,\) in"),
    ({"a": ("BF16", (2, 3), bytes(12)), "b": ("F32", (6,), bytes(24))}, r"a is F32 \(2, 3\) for .*, but BF16"),
]


@pytest.mark.parametrize(("tensors", "message"), WRONG)
def test_another_base_is_refused_before_anything_is_written(packed: Path, tensors: Raw, message: str) -> None:
    other = other_base(packed, tensors)
    before = sorted(item.name for item in packed.iterdir())
    for action in (
        lambda: restore(other, packed / "a.stv", packed / "out"),
        lambda: verify(packed / "a.stv", base=other),
    ):
        with pytest.raises(BaseMismatchError, match=message):
            action()
    assert sorted(item.name for item in packed.iterdir()) == before


def test_outputs_that_are_refused(packed: Path) -> None:
    cases: list[tuple[str, str]] = [
        ("base", "is the base itself"), ("base/x", "lies inside the base"), ("tuned", "holds config.json; name a new"),
        ("a.stv", "is a file; name a directory"), ("no/where", "does not exist; create it first"),
    ]  # fmt: skip
    before = tree(packed)
    for output, message in cases:
        with pytest.raises(OutputError, match=message):
            restore(packed / "base", packed / "a.stv", packed / output)
    with pytest.raises(OutputError, match=r"exists and is no archive; choose another output, or remove it first"):
        archive_to(packed / "tuned" / "config.json", packed / "base", packed / "tuned")
    with pytest.raises(UsageError, match=r"reserved on Windows.*pass another with --name"):
        archive_to(packed / "b.stv", packed / "base", packed / "tuned", name="nul")
    assert {name: data for name, data in tree(packed).items() if not name.endswith("-lock")} == before


def test_an_empty_directory_is_filled(packed: Path) -> None:
    (packed / "out").mkdir()
    restore(packed / "base", packed / "a.stv", packed / "out")
    assert tree(packed / "out") == tree(packed / "tuned")


def test_another_finetune_is_told_by_its_first_tensor(packed: Path) -> None:
    file = packed / "tuned" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(VerifyError, match=r"model\.safetensors is not the fine-tune's, bit for bit, first in b; is it"):
        verify_archive(packed / "a.stv", base=packed / "base", finetuned=packed / "tuned")
    with pytest.raises(UsageError, match="needs the base, too; pass --base"):
        verify(packed / "a.stv", finetuned=packed / "tuned")
    (packed / "tuned" / "config.json").write_text("{ }")
    with pytest.raises(VerifyError, match=r"config\.json is not the file in"):
        verify_archive(packed / "a.stv", base=packed / "base", finetuned=packed / "tuned")


def test_weights_in_a_folder_are_refused(tmp_path: Path) -> None:
    base, tuned = make(tmp_path, {"w": ("F32", (2,), bytes(8))}, {"w": ("F32", (2,), b"abcdefgh")})
    (tuned / "sub").mkdir()
    (tuned / "model.safetensors").rename(tuned / "sub" / "w.safetensors")
    (tuned / "model.safetensors.index.json").write_text('{"weight_map": {"w": "sub/w.safetensors"}}')
    with pytest.raises(CheckpointError, match=r"not a portable path component; rename it, and the index with it"):
        archive_to(tmp_path / "a.stv", base, tuned)


def test_an_archive_is_no_model(packed: Path) -> None:
    with pytest.raises(CheckpointError, match="an archive where a model checkpoint is needed; get it back with"):
        archive_to(packed / "b.stv", packed / "base", packed / "a.stv")


# --- command line


def run(*words: object) -> Any:
    return CliRunner().invoke(group, [str(word) for word in words])


def test_commands(packed: Path) -> None:
    shown = run("pack", "--lossless", packed / "base", packed / "tuned", "-o", packed / "c.stv")
    assert shown.exit_code == 0
    assert "% of the checkpoint's" in shown.output
    as_json = json.loads(run("inspect", packed / "c.stv", "--json").stdout)
    assert [tensor["name"] for tensor in as_json["tensors"]] == ["a", "b"]
    assert "holds       config.json: 2 bytes, as in the base" in run("inspect", packed / "c.stv").output
    assert "same" in run("inspect", packed / "c.stv").output
    shown = run("verify", packed / "c.stv", "--base", packed / "base", "--finetuned", packed / "tuned")
    assert "ok  bits" in shown.output
    shown = run("restore", packed / "base", packed / "c.stv", "-o", packed / "out")
    assert "2 files" in shown.output
    assert tree(packed / "out") == tree(packed / "tuned")
    found = json.loads(run("restore", packed / "base", packed / "c.stv", "-o", packed / "o2", "--json").stdout)
    digest = hashlib.sha256((packed / "tuned" / "model.safetensors").read_bytes()).hexdigest()
    assert digest in [file["sha256"] for file in found["files"]]


@pytest.mark.parametrize(
    "words",
    [
        ["--density", "0.01"], ["--scope", "all"], ["--localizer", "random"], ["--probe"], ["--no-probe"],
        ["--seed", 0], ["--values", "exact"], ["--mask", "m"], ["--refit", "random"], ["--set", "a=b"],
        ["--allocation", "global"],
    ],
)  # fmt: skip
def test_options_that_choose_what_to_keep_are_refused(packed: Path, words: list[object]) -> None:
    shown = run("pack", "--lossless", packed / "base", packed / "tuned", "-o", packed / "c.stv", *words)
    assert shown.exit_code == 2
    assert "cannot go with --lossless, which keeps everything; leave it out" in shown.output
    assert not (packed / "c.stv").exists()


# --- memory


def test_memory_does_not_grow_with_the_model(tmp_path: Path, no_sync: None) -> None:
    """48 MB of weights, and room for the chunks in flight alone."""
    base, tuned = sft(12 << 20)
    make(tmp_path, {"w": ("F32", (len(base),), base.tobytes())}, {"w": ("F32", (len(base),), tuned.tobytes())})
    del base, tuned
    with peak_memory() as peak:
        archive_to(tmp_path / "a.stv", tmp_path / "base", tmp_path / "tuned")
        restore(tmp_path / "base", tmp_path / "a.stv", tmp_path / "out")
    assert peak.grown < 100 << 20
    assert tree(tmp_path / "out") == tree(tmp_path / "tuned")
