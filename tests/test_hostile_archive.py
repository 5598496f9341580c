"""Broken and hostile archives: golden files, every flipped bit, mutated chunks with repaired hashes (ARCHIVE)."""

import json
import re
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from fuzz.archive_parts import put_together, take_apart
from helpers import tree
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from sparsetv.archive.chunk import decode_chunk, encode_chunk
from sparsetv.archive.elements import kind_of
from sparsetv.archive.file import is_archive, open_archive
from sparsetv.archive.limits import CHUNK_ELEMENTS
from sparsetv.archive.reader import open_bytes
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.cli import group
from sparsetv.errors import CheckpointError, FormatError, LimitError, NotFoundError, OutputError, SparseTVError
from sparsetv.jobs.archive import archive_to, restore
from sparsetv.jobs.archived import check_base, restored

FORMATS = Path(__file__).parents[1] / "formats"
VALID = sorted((FORMATS / "golden" / "archives").glob("*.stv"))
BASE = FORMATS / "golden" / "archives" / "base"
BROKEN = FORMATS / "golden" / "archives_invalid"
INVALID: list[dict[str, str]] = json.loads((BROKEN / "index.json").read_bytes())

each_valid_file = pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)


def decode(data: bytes) -> dict[str, bytes]:
    """All files of an archive of the golden base."""
    opened, base = open_bytes(data), open_checkpoint(BASE)
    check_base(opened, base)
    return {name: b"".join(bytes(piece) for piece in pieces) for name, pieces in restored(opened, base)}


# --- golden files


@each_valid_file
def test_golden_archives_give_their_files_back(path: Path, tmp_path: Path) -> None:
    restore(BASE, path, tmp_path / "out")
    expected = {name: bytes.fromhex(text) for name, text in json.loads(path.with_suffix(".json").read_bytes()).items()}
    assert tree(tmp_path / "out") == expected
    with safe_open(path, framework="np") as file:
        assert file.metadata()["format"] == "sparsetv-archive"


@pytest.mark.parametrize("case", INVALID, ids=lambda case: Path(case["file"]).stem)
def test_invalid_golden_archives_are_refused(case: dict[str, str], tmp_path: Path) -> None:
    path = BROKEN / case["file"]
    tracemalloc.start()
    with pytest.raises(FormatError) as caught:
        restore(BASE, path, tmp_path / "out")
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert used < 48 << 20  # 32 MB of it is the block that is never touched
    message = str(caught.value)
    assert str(path) in message
    assert re.search(case["match"], message.replace(str(path), "FILE")), f"{message!r}: {case['breaks']}"
    assert not [item for item in tmp_path.iterdir() if not item.name.endswith("-lock")]


def test_the_index_names_every_file_and_a_clause_that_exists() -> None:
    assert sorted(case["file"] for case in INVALID) == sorted(path.name for path in BROKEN.glob("*.stv"))
    text = (FORMATS / "ARCHIVE.md").read_text()
    for case in INVALID:
        assert re.search(rf"^{re.escape(case['clause'].removeprefix('archive '))} ", text, re.MULTILINE), case


@pytest.mark.parametrize("name", ["same", "sparse", "files"])
def test_every_flipped_bit_and_every_other_length_is_refused(name: str) -> None:
    whole = next(path for path in VALID if path.stem == name).read_bytes()
    assert decode(whole)
    data = bytearray(whole)
    for bit in range(8 * len(whole)):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            open_bytes(bytes(data))
        data[bit // 8] ^= 1 << bit % 8
    for length in range(len(whole)):
        with pytest.raises(FormatError):
            open_bytes(whole[:length])
    with pytest.raises(FormatError, match="trailing bytes"):
        open_bytes(whole + b"\0")


# --- chunks that lie


def bits_of(dtype: str, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 1 << min(8 * kind_of(dtype).width, 63), count, np.uint64).astype(kind_of(dtype).bits)


@given(data=st.data(), dtype=st.sampled_from(["F32", "BF16", "I8", "F64"]))
@settings(max_examples=400)
def test_any_bytes_are_a_chunk_or_a_format_error(data: st.DataObject, dtype: str) -> None:
    kind, count = kind_of(dtype), data.draw(st.integers(1, 40))
    base = bits_of(dtype, count, 1) if data.draw(st.booleans()) else None
    if data.draw(st.booleans()):
        tuned = bits_of(dtype, count, 2) if base is None else np.where(np.arange(count) % 3, base, base + 1)
        chunk = bytearray(encode_chunk(base, tuned.astype(kind.bits), kind)) or bytearray(b"\1")
        for _ in range(data.draw(st.integers(1, 3))):
            chunk[data.draw(st.integers(0, len(chunk) - 1))] = data.draw(st.integers(0, 255))
    else:
        mode = data.draw(st.integers(0, 7))
        chunk = bytearray([mode]) + bytearray(data.draw(st.binary(max_size=60)))
    try:
        found = decode_chunk(memoryview(chunk), base, kind, count=count, what="x")
    except FormatError:
        return
    assert found.shape == (count,)
    assert found.dtype == kind.bits


@pytest.mark.parametrize("dtype", ["BF16", "F32", "F64"])
@pytest.mark.parametrize("step", [1, 1 << 13])
def test_a_chunk_takes_bounded_memory(dtype: str, step: int) -> None:
    kind = kind_of(dtype)
    base = bits_of(dtype, CHUNK_ELEMENTS, 1)
    tuned = np.where(np.arange(len(base)) % 4, base, base + kind.bits.type(step))
    chunk = encode_chunk(base, tuned, kind)
    tracemalloc.start()
    decode_chunk(memoryview(chunk), base, kind, count=len(base), what="x")
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert used < 64 * CHUNK_ELEMENTS


@each_valid_file
def test_taking_apart_and_putting_together_changes_nothing(path: Path) -> None:
    manifest, data = take_apart(path.read_bytes())
    assert decode(put_together(manifest, data)) == decode(path.read_bytes())


def spots(value: Any, place: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Places of all values in a manifest."""
    found = [place] if place else []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        found += spots(item, (*place, key))
    return found


JUNK = [None, True, -1, 0, 1, 2**40, 2**62, 1.5, "", "a", "../a", "U8", [], [0], [2**40], {}, {"a": 1}, "0" * 64]


@given(data=st.data(), path=st.sampled_from(VALID))
@settings(max_examples=300)
def test_manifests_that_lie_are_refused_or_say_the_same(data: st.DataObject, path: Path) -> None:
    """One value replaced, every hash repaired: a known error within little memory, or the very same files."""
    expected = decode(path.read_bytes())
    manifest, content = take_apart(path.read_bytes())
    *parents, last = data.draw(st.sampled_from(spots(manifest)))
    place: Any = manifest
    for key in parents:
        place = place[key]
    place[last] = data.draw(st.sampled_from(JUNK))
    try:
        found = decode(put_together(manifest, content))
    except SparseTVError:
        return
    if last != "name" and parents[-2:-1] != ["files"]:
        assert found == expected


@given(data=st.data(), path=st.sampled_from(VALID))
@settings(max_examples=300)
def test_data_that_lies_is_refused(data: st.DataObject, path: Path) -> None:
    manifest, content = take_apart(path.read_bytes())
    changed = bytearray(content)
    changed[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = decode(put_together(manifest, bytes(changed)))
    except FormatError:
        return
    assert found == decode(path.read_bytes())


# --- files that are something else


OTHERS: list[tuple[bytes, str]] = [
    (b"", "empty file; fetch it again"),
    (b"abc", "3 bytes are too few"),
    (b"PK\x03\x04" + bytes(60), "zip archive"),
    (b"version https://git-lfs.github.com/spec/v1\n", "git-LFS pointer"),
    ((FORMATS / "golden" / "valid" / "minimal.stv").read_bytes(), "a sparsetv task file, no archive; use"),
    ((BASE / "model.safetensors").read_bytes(), "a safetensors file, but no sparsetv archive; is it a model's weights"),
]


@pytest.mark.parametrize(("data", "message"), OTHERS)
def test_other_files_are_named(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.stv").write_bytes(data)
    with pytest.raises(FormatError, match=message):
        open_archive(tmp_path / "a.stv")
    assert not is_archive(tmp_path / "a.stv")
    shown = CliRunner().invoke(group, ["restore", str(BASE), str(tmp_path / "a.stv"), "-o", str(tmp_path / "out")])
    assert isinstance(shown.exception, FormatError)


def test_headers_in_all_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(BASE, tmp_path / "tuned")
    monkeypatch.setattr("sparsetv.archive.manifest.HEADERS_BYTES", 10)
    with pytest.raises(FormatError, match=r"headers of \d+ bytes in all, limit 10"):
        open_archive(VALID[0])
    monkeypatch.setattr("sparsetv.archive.writer.HEADERS_BYTES", 10)
    with pytest.raises(LimitError, match=r"headers of weight files of \d+ bytes in all, limit 10"):
        archive_to(tmp_path / "a.stv", BASE, tmp_path / "tuned")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        restore(BASE, tmp_path / "a.stv", tmp_path / "out")
    with pytest.raises(FormatError, match=r"not a regular file; name a \.stv file"):
        restore(BASE, tmp_path, tmp_path / "out")


def test_a_crash_while_writing_leaves_the_old_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: Callable[[], Path]
) -> None:
    shutil.copytree(BASE, tmp_path / "tuned")
    archive_to(tmp_path / "a.stv", BASE, tmp_path / "tuned")
    old = (tmp_path / "a.stv").read_bytes()
    monkeypatch.setattr("sparsetv.archive.writer.encode_chunk", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        archive_to(tmp_path / "a.stv", BASE, tmp_path / "tuned")
    assert (tmp_path / "a.stv").read_bytes() == old
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.stv", "tuned"]


def test_an_archive_of_more_than_the_disk_holds_is_refused_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(OutputError, match=r"back: needs \d+ bytes, and 100 are free: No space left on device; free"):
        restore(BASE, BASE.parent / "files.stv", tmp_path / "back")
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith("-lock")] == []


def test_files_that_differ_in_case_alone_are_refused_before_anything_is_coded(tmp_path: Path) -> None:
    shutil.copytree(BASE, tmp_path / "tuned")
    for name in ("Notes.txt", "notes.txt"):
        (tmp_path / "tuned" / name).write_text("x")
    if len(list((tmp_path / "tuned").glob("*otes.txt"))) < 2:
        pytest.skip("a file system without case")
    with pytest.raises(CheckpointError, match=r"tuned: Notes\.txt and notes\.txt differ in case alone; rename"):
        archive_to(tmp_path / "a.stv", BASE, tmp_path / "tuned")
    assert not (tmp_path / "a.stv").exists()
