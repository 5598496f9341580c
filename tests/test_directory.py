"""What a stitched directory remembers, and how it notices that it was changed behind sparsetv's back."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import Tensors, bits, pack_pair, read_checkpoint, tree, weights, write_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from sparsetv import atomic
from sparsetv.compose.base import Standing
from sparsetv.compose.directory import open_stitched
from sparsetv.errors import BusyError, FormatError
from sparsetv.jobs.options import StitchOptions
from sparsetv.jobs.stitch import add, remove, stitch
from sparsetv.taskfile import read_task, write_task

pytestmark = pytest.mark.usefixtures("no_sync")

BASE: Tensors = {"a.w": torch.arange(12.0).reshape(3, 4), "b.w": torch.ones(5).bfloat16(), "c.w": torch.zeros(4)}


@pytest.fixture
def stitched(tmp_path: Path) -> Path:
    """A directory with one task of weight 0.5 on a base of two shards."""
    write_checkpoint(tmp_path / "base", BASE, split={"a.w": 0, "b.w": 1, "c.w": 0}, files={"config.json": b"{}"})
    tuned = {**BASE, "a.w": BASE["a.w"] + 1, "b.w": BASE["b.w"] * 3}
    task = pack_pair(tmp_path, BASE, tuned, density=17 / 21)
    options = StitchOptions(rule="sum", scale=2.0, weights={"task": 0.5})
    stitch(tmp_path / "base", [task], tmp_path / "merged", options=options)
    return tmp_path / "merged"


def task_file(path: Path) -> Path:
    """The only task file of a stitched directory."""
    [file] = (path / "sparsetv" / "tasks").iterdir()
    return file


def test_the_record_says_what_was_done(stitched: Path) -> None:
    record = json.loads((stitched / "sparsetv.json").read_text())
    assert (record["format"], record["rule"], record["scale"]) == ("sparsetv-directory", "sum", 2.0)
    assert record["base"] == str(stitched.parent / "base")
    [member] = record["members"]
    assert (member["name"], member["weight"], member["policy"], member["scale"]) == ("task", 0.5, "number", 2.0)
    assert read_task(task_file(stitched)).digest() == member["digest"]
    assert open_stitched(stitched).record.members[0].coefficient == 1.0


def test_saved_bits_are_the_bases_at_kept_positions_and_no_more(stitched: Path) -> None:
    saved = load_file(stitched / "sparsetv" / "base.safetensors")
    assert sorted(name for name in saved if not name.startswith(("header.", "index"))) == [
        "bits.a.w", "bits.b.w", "hashes", "positions.a.w", "positions.b.w",
    ]  # fmt: skip
    hashes = [hashlib.sha256(bits(BASE[name]).tobytes()).digest() for name in sorted(BASE)]
    assert saved["hashes"].numpy().tobytes() == b"".join(hashes)
    assert saved["positions.a.w"].tolist() == list(range(12))
    assert saved["bits.a.w"].view(torch.int32).tolist() == BASE["a.w"].reshape(-1).view(torch.int32).tolist()
    assert saved["bits.b.w"].view(torch.int16).tolist() == BASE["b.w"].view(torch.int16).tolist()


def test_the_base_is_there_again(stitched: Path) -> None:
    base = open_stitched(stitched).base()
    for name, tensor in BASE.items():
        assert bytes(base.raw(name)) == tensor.contiguous().view(torch.uint8).numpy().tobytes()


def spoil_record(path: Path, **changes: object) -> None:
    file = path / "sparsetv.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


Damage = Callable[[Path], object]
DAMAGES: list[tuple[Damage, str]] = [
    (lambda path: (path / "sparsetv.json").write_text("{"), "not JSON"),
    (lambda path: spoil_record(path, format="other"), "not a sparsetv-directory of version 1"),
    (lambda path: spoil_record(path, version=2), "not a sparsetv-directory of version 1; update sparsetv"),
    (lambda path: spoil_record(path, replaced=["../secret"]), "'../secret' is not a portable path component"),
    (lambda path: spoil_record(path, added=["/etc/passwd"]), "is not a portable path component"),
    (lambda path: spoil_record(path, prefix=["a"]), "prefix: expected two strings"),
    (lambda path: spoil_record(path, scale=[1]), "scale: expected a finite number"),
    (lambda path: spoil_record(path, surprise=1), "unknown key 'surprise'"),
    (lambda path: spoil_record(path, memory_sha256="0" * 64), "is not the file that sparsetv.json names"),
    (lambda path: (path / "sparsetv" / "base.safetensors").unlink(), "is not the file that sparsetv.json names"),
    (lambda path: (path / "sparsetv" / "base.safetensors").write_bytes(b"x" * 99), "is not the file that"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_damaged_directory_is_not_changed_further(stitched: Path, damage: Damage, message: str) -> None:
    damage(stitched)
    before = tree(stitched)
    with pytest.raises(FormatError, match=message):
        remove(stitched, ["task"])
    assert tree(stitched) == before


def test_another_task_in_the_members_place_is_noticed(stitched: Path) -> None:
    other = pack_pair(stitched.parent, BASE, {**BASE, "c.w": BASE["c.w"] + 9}, density=0.1)
    write_task(task_file(stitched), other)
    third = pack_pair(stitched.parent, BASE, {**BASE, "c.w": BASE["c.w"] - 1}, density=0.1, name="third")
    with pytest.raises(FormatError, match="is not the task that the record names"):
        add(stitched, [third])


def test_weights_edited_by_hand_are_noticed(stitched: Path) -> None:
    """What was saved cannot vouch for entries that nobody touched: the base's digest does."""
    [shard] = stitched.glob("model-00001*.safetensors")
    raw = bytearray(shard.read_bytes())
    raw[-4] ^= 1  # the last entry of the file is c.w, which the task does not touch
    shard.write_bytes(bytes(raw))
    third = pack_pair(stitched.parent, BASE, {**BASE, "c.w": BASE["c.w"] - 1}, density=0.1, name="third")
    before = tree(stitched)
    message = "weights changed since sparsetv wrote them; stitch again from the base"
    with pytest.raises(FormatError, match=message):
        add(stitched, [third])
    with pytest.raises(FormatError, match=message):
        remove(stitched, ["task"])
    assert tree(stitched) == before


def test_a_directory_in_use_is_left_alone(stitched: Path) -> None:
    from filelock import FileLock

    before = tree(stitched)
    with (
        FileLock(stitched.parent / ".merged.sparsetv-lock"),
        pytest.raises(BusyError, match="another process is changing it; try again when it is done"),
    ):
        remove(stitched, ["task"])
    assert tree(stitched) == before


def test_an_index_of_another_writer_comes_back(stitched: Path) -> None:
    """transformers writes more into the index than sparsetv does; removing everything gives all of it back."""
    base = stitched.parent / "hub base"
    write_checkpoint(base, BASE, split={"a.w": 0, "b.w": 1, "c.w": 0})
    index = base / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["metadata"]["total_parameters"] = 21
    index.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    stitch(base, [task_file(stitched)], stitched.parent / "again")
    remove(stitched.parent / "again", ["task"])
    assert weights(stitched.parent / "again") == weights(base)
    assert (stitched.parent / "again" / index.name).read_bytes() == index.read_bytes()


def test_a_directory_can_be_moved(stitched: Path) -> None:
    moved = stitched.parent / "elsewhere" / "renamed"
    moved.parent.mkdir()
    stitched.rename(moved)
    remove(moved, ["task"])
    assert weights(moved) == weights(stitched.parent / "base")
    np.testing.assert_equal(read_checkpoint(moved)["a.w"].numpy(), BASE["a.w"].numpy())


def test_links_of_the_base_are_copied_and_the_base_stays(tmp_path: Path) -> None:
    """A hub snapshot is links into blobs: the copy holds files, and changing it does not reach the blobs."""
    write_checkpoint(tmp_path / "blobs", BASE, files={"config.json": b"{}"})
    snapshot = tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "snapshots" / "blobs").symlink_to(tmp_path / "blobs")
    for file in (tmp_path / "blobs").iterdir():
        (snapshot / file.name).symlink_to(file)
    before = tree(tmp_path / "blobs")
    stitch(snapshot, [], tmp_path / "merged")
    assert not any(path.is_symlink() for path in (tmp_path / "merged").rglob("*"))
    (tmp_path / "merged" / "config.json").write_text("changed")
    assert tree(tmp_path / "blobs") == before


PLACES = st.sets(st.integers(0, 39)).map(lambda found: np.array(sorted(found), np.int64))


@given(other=PLACES, asked=PLACES, unaligned=st.integers(0, 3))
def test_the_bases_bits_are_found_where_others_stand(
    other: np.ndarray, asked: np.ndarray, unaligned: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whole, at any positions, and copied with a patch over it: against plain assignments to an array."""
    base, patch = np.arange(100, 140, dtype=np.uint32), np.arange(len(asked), dtype=np.uint32)
    merged = base.copy()
    merged[other] = 7
    path = tmp_path_factory.mktemp("standing") / "file"
    path.write_bytes(bytes(unaligned) + merged.tobytes())
    data = np.frombuffer(path.read_bytes(), np.uint8)[unaligned:]
    standing = Standing(path, unaligned, data, other, base[other])
    assert standing.whole().tobytes() == base.tobytes()
    assert standing.at(asked, "F32").tolist() == base[asked].tolist()
    over = [(standing.positions, standing.bits), (asked, patch)]
    atomic.write_new_file(path.with_name("copy"), [bytes(unaligned), atomic.CopiedRange(path, unaligned, 160, over)])
    base[asked] = patch
    assert path.with_name("copy").read_bytes() == bytes(unaligned) + base.tobytes()
