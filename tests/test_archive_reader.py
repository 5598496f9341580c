"""The second reader of archives agrees with ours on golden archives and on what our writer makes (ARCHIVE)."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from evidence import FORMATS, GOLDEN, lines, load, needs
from helpers import tree
from hypothesis import given
from raw import DTYPES, Raw, make, raw_pairs

from sparsetv.archive.elements import kind_of
from sparsetv.archive.file import open_archive
from sparsetv.archive.limits import CHUNK_ELEMENTS
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.dtypes import SIZES
from sparsetv.jobs.archive import archive_to
from sparsetv.jobs.archived import inspect_archive, restored

VALID = sorted((GOLDEN / "archives").glob("*.stv"))
BASE = GOLDEN / "archives" / "base"
READER_LINES = 165

each_valid_file = pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def reader() -> ModuleType:
    return load("archive_reader")


def ours(path: Path, base: Path) -> dict[str, bytes]:
    return {
        name: b"".join(bytes(piece) for piece in pieces)
        for name, pieces in restored(open_archive(path), open_checkpoint(base))
    }


def test_it_is_short_and_independent() -> None:
    assert lines("archive_reader") <= READER_LINES
    assert needs("archive_reader") == {"numpy", "safetensors", "zstandard"}


@each_valid_file
def test_both_readers_give_the_files_of_golden_archives(path: Path, reader: ModuleType) -> None:
    expected = {name: bytes.fromhex(text) for name, text in json.loads(path.with_suffix(".json").read_bytes()).items()}
    assert reader.read(path, BASE) == ours(path, BASE) == expected


@given(pair=raw_pairs())
def test_it_reads_what_our_writer_makes_of_any_checkpoint(
    fresh: Callable[[], Path], no_sync: None, reader: ModuleType, pair: tuple[Raw, Raw]
) -> None:
    path = fresh()
    base, tuned = make(path, *pair)
    archive_to(path / "a.stv", base, tuned)
    assert reader.read(path / "a.stv", base) == tree(tuned)


def numbered(count: int, dtype: str, *, share: float) -> tuple[bytes, bytes]:
    """Elements of a base with a peak of exponents, and as many of which some moved by a few steps."""
    kind, rng = kind_of(dtype), np.random.default_rng(len(dtype))
    base = (np.abs(rng.normal(0, 1 << 8 * kind.width - 4, count)) + 1).astype(np.uint64).astype(kind.bits)
    moved = rng.random(count) < share
    return base.tobytes(), np.where(moved, base + rng.integers(1, 4, count).astype(kind.bits), base).tobytes()


@pytest.mark.parametrize(("share", "mode"), [(0.05, "sparse"), (0.9, "offset")])
def test_it_reads_classes_of_every_dtype(share: float, mode: str, tmp_path: Path, reader: ModuleType) -> None:
    base: Raw = {}
    tuned: Raw = {}
    count = 20_000  # enough for our writer to tell classes apart
    for dtype in DTYPES:
        shape = (count * min(SIZES[dtype], kind_of(dtype).width) // SIZES[dtype],)
        before, after = numbered(count, dtype, share=share)
        base[dtype], tuned[dtype] = (dtype, shape, before), (dtype, shape, after)
    sides = make(tmp_path, base, tuned)
    archive_to(tmp_path / "a.stv", *sides)
    assert mode in inspect_archive(tmp_path / "a.stv").modes
    assert reader.read(tmp_path / "a.stv", sides[0]) == tree(sides[1])


def test_it_reads_tensors_of_many_chunks_and_more_rows(tmp_path: Path, reader: ModuleType) -> None:
    before, after = numbered(CHUNK_ELEMENTS + 6, "U8", share=0.2)
    more = numbered(CHUNK_ELEMENTS + 2, "U8", share=0.0)[0]
    rows = (len(before) // 2, 2)
    grown = ("U8", (rows[0] + len(more) // 2, 2), after + more)
    same: Raw = {"anchor": ("F32", (2,), bytes(8))}
    sides = make(tmp_path, {**same, "w": ("U8", rows, before)}, {**same, "w": grown})
    archive_to(tmp_path / "a.stv", *sides)
    assert reader.read(tmp_path / "a.stv", sides[0]) == tree(sides[1])


def test_it_compares_what_it_restored(tmp_path: Path, reader: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"model.safetensors is not the file that was archived"):
        reader.read(GOLDEN / "archives_invalid" / "other_content.stv", BASE)


def test_as_a_script() -> None:
    command = [sys.executable, str(FORMATS / "archive_reader.py"), str(GOLDEN / "archives" / "files.stv"), str(BASE)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert told[0] == "config.json 2 bytes"
    assert told[-1] == "vocab.txt 0 bytes"
