"""What fuzzing found, each in its smallest form: it stays mended."""

import hashlib
import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz.archive_parts import put_together as together
from fuzz.archive_parts import take_apart as apart
from fuzz.seeds import GOLDEN
from hostile import (
    Parts,
    base_tensors,
    checkpoint,
    frame,
    framed,
    make_pair,
    pack_to,
    put_together,
    safetensors,
    take_apart,
)

from sparsetv.archive.reader import open_bytes as open_archive_bytes
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.compose.directory import open_stitched
from sparsetv.compose.record import MEMORY, RECORD, ROOM
from sparsetv.container.envelope import seal_manifest
from sparsetv.container.reader import open_bytes
from sparsetv.errors import FormatError, LimitError
from sparsetv.jobs.archive import archive_to
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


def test_a_small_file_with_a_long_manifest_is_refused() -> None:
    """Was parsed: 7 kB of zstd held 64 MiB of empty lists, and took 11 seconds."""
    parts = take_apart((GOLDEN / "valid" / "minimal.stv").read_bytes())
    data = put_together(parts, text=b"[" + b"[]," * (1 << 20) + b"[]]")
    with pytest.raises(FormatError, match=r"manifest of 3145732 bytes in a frame of \d+, which may hold \d+"):
        open_bytes(data)


def test_no_manifest_is_written_that_no_reader_reads() -> None:
    with pytest.raises(LimitError, match=r"the manifest would take 2000007 bytes in a frame of \d+, limit 128 to 1"):
        seal_manifest({"": "x" * 2_000_000})
    noise = np.random.default_rng(0).bytes(600_000).hex()
    frame, value = seal_manifest({"": noise})
    assert value == {"": noise}
    assert len(frame) > 600_000


def test_a_small_archive_with_a_long_header_is_refused() -> None:
    """Each weight file's header was parsed, up to 25 MB of it."""
    manifest, data = apart((GOLDEN / "archives" / "same.stv").read_bytes())
    [file] = [file for file in manifest["files"] if file["kind"] == "weights"]
    stored = file["header"][1]
    header = frame(b" " * (2 << 20))
    file["header"] = [2 << 20, len(header)]
    with pytest.raises(FormatError, match=r"header of 2097152 bytes in a frame of \d+, which may hold \d+"):
        open_archive_bytes(together(manifest, header + data[stored:]))


def test_no_header_is_archived_that_no_reader_reads(tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base", base_tensors())
    tuned = shutil.copytree(base, tmp_path / "tuned")
    data = (base / "model.safetensors").read_bytes()
    size = 8 + int.from_bytes(data[:8], "little")
    (tuned / "model.safetensors").write_bytes(framed(data[8:size] + b" " * (2 << 20), data[size:]))
    with pytest.raises(LimitError, match=r"model.safetensors: a header of \d+ bytes that says next to nothing"):
        archive_to(tmp_path / "a.stv", base, tuned)
    assert not (tmp_path / "a.stv").exists()


@pytest.mark.parametrize(("blocks", "refused"), [(2, False), (3, True)])
def test_entries_drawn_by_all_blocks_count(blocks: int, *, refused: bool) -> None:
    """Was limited per block: the more blocks, the longer it took, in the same memory."""
    rows = 3
    parts = take_apart((GOLDEN / "valid" / "minimal.stv").read_bytes())
    manifest = parts.manifest
    manifest["base"] |= {"names": ["a"], "dtypes": ["F32"], "shapes": [[rows * blocks, 1 << 30]], "tags": "0" * 8}
    manifest |= {"scope": [[0, 1]], "tensors": {"l1": [1.0], "l2": [1.0]}, "version": "1.1"}
    manifest["features"]["required"] = ["seeded"]
    signs = frame(b"\0")
    manifest["blocks"] = [
        {
            "pieces": [[0, rows, 1]],
            "positions": {"codec": "seeded", "frames": [], "seed": 1, "least": [(1 << 24) - 1]},
            "values": {"codec": "sign", "frames": [len(signs)], "magnitudes": [1.0]},
        }
    ] * blocks
    data = put_together(Parts(manifest, {"sparsetv.values": signs * blocks}, "1.1"))
    if refused:
        with pytest.raises(LimitError, match=r"decoding needs up to 966\d{7} bytes"):
            open_bytes(data)
    else:
        open_bytes(data)


def test_an_integer_of_minus_0_is_refused(tmp_path: Path) -> None:
    """Was read as 0; no other reader of safetensors takes it."""
    header = b'{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}'
    (tmp_path / "a.safetensors").write_bytes(framed(header))
    with pytest.raises(FormatError, match="header: -0 is no integer"):
        open_checkpoint(tmp_path / "a.safetensors")
