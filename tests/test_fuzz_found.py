"""What fuzzing found, each in its smallest form: it stays mended."""

import hashlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import make_pair, pack_to, safetensors

from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.compose.directory import open_stitched
from sparsetv.compose.record import MEMORY, RECORD, ROOM
from sparsetv.errors import FormatError
from sparsetv.jobs.stitch import stitch
from sparsetv.maskfile import read_mask
from sparsetv.store.config import read_config
from sparsetv.store.library import Library

pytestmark = pytest.mark.usefixtures("no_sync")


@pytest.fixture
def stitched(tmp_path: Path) -> Path:
    pair = make_pair(tmp_path)
    stitch(pair.base, [pack_to(tmp_path / "task.stv", pair.base, pair.tuned, name="task")], tmp_path / "out")
    return tmp_path / "out"


def spoil(path: Path, **changes: Any) -> None:
    value = json.loads((path / RECORD).read_text())
    (path / RECORD).write_text(json.dumps({**value, **changes}).replace('"1e999"', "1e999"))


@pytest.mark.parametrize("bits", [{}, {"bits.a": np.zeros(1, np.float32)}])
def test_saved_positions_without_bits_are_refused(stitched: Path, bits: dict[str, Any]) -> None:
    """Was a KeyError: an undo file under a repaired hash need not hold what `stitch` put into it."""
    positions = np.zeros(1, np.float64 if bits else np.int64)
    undo = safetensors({"positions.a": positions, **bits})
    (stitched / ROOM / MEMORY).write_bytes(undo)
    spoil(stitched, memory_sha256=hashlib.sha256(undo).hexdigest())
    with pytest.raises(FormatError, match="saved values of a are not I64 positions and bits"):
        open_stitched(stitched).memory.saved("a")


def test_a_scale_that_is_no_text_is_refused(stitched: Path) -> None:
    """Was read, and a UnicodeEncodeError when the record was written again."""
    spoil(stitched, scale="\ud800")
    with pytest.raises(FormatError, match="scale: a lone surrogate is no text"):
        open_stitched(stitched)


@pytest.mark.parametrize("key", ["weight", "scale"])
def test_an_infinite_number_of_a_member_is_refused(stitched: Path, key: str) -> None:
    """Was read: 1e999 is JSON, and infinite. What was then written was refused."""
    [member] = json.loads((stitched / RECORD).read_text())["members"]
    spoil(stitched, members=[{**member, key: "1e999"}])
    with pytest.raises(FormatError, match=rf"members.{key}: expected a finite number, found inf"):
        open_stitched(stitched)


def test_a_small_store_file_takes_little_memory(tmp_path: Path) -> None:
    """Was 64 MiB for every opening: the largest size allowed was set aside before anything was read."""
    root = Library.create(tmp_path / "store").root
    tracemalloc.start()
    try:
        read_config(root)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_positions_of_a_mask_that_wrap_are_refused(tmp_path: Path) -> None:
    """Was read: the last position is negative, and its distance from the one before, as a 64-bit integer, is not."""
    kept = np.array([0, 2**62, -(2**62) - 1], np.int64)
    (tmp_path / "mask").write_bytes(safetensors({"a": kept}, {"format": "sparsetv-mask", "version": "1.0"}))
    with pytest.raises(FormatError, match=r"a: positions do not increase within 0 to 23"):
        read_mask(tmp_path / "mask", {"a": (4, 6)})


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 2000 + "x"], ids=["part", "path"])
def test_a_shard_of_a_name_that_no_system_has_is_refused(tmp_path: Path, name: str) -> None:
    """Was an OSError that did not say what names it."""
    index = {"weight_map": {"a": f"{name}.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FormatError, match=r"a names shard 'x.{118}; a shard is a .safetensors file in this directory"):
        open_checkpoint(tmp_path)


def test_a_file_of_a_name_that_no_system_has_is_refused(stitched: Path) -> None:
    """Was an OSError when the base was opened."""
    spoil(stitched, files=["x" * 300])
    with pytest.raises(FormatError, match="leaves the directory, or is too long"):
        open_stitched(stitched)
