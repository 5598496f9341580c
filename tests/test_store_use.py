"""Tasks of a store where tasks are wanted: stitched, added, composed, by name and by glob."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ALL, Tensors, bits, read_checkpoint, tree, weights, write_checkpoint

import sparsetv
from sparsetv import PackOptions, StitchOptions, Store
from sparsetv.cli import group
from sparsetv.errors import BaseMismatchError, FormatError, NotFoundError, UsageError

pytestmark = pytest.mark.usefixtures("no_sync")

NAMES = ["cr", "mnli", "mnli-mm", "sst2"]


def tensors(seed: int) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return {
        "h.0.a": torch.randn(6, 5, generator=generator),
        "h.0.b": torch.randn(30, generator=generator).bfloat16(),
        "ids": torch.arange(3),
    }


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A base, task files in `files`, a store of them in `store` that knows its base."""
    write_checkpoint(tmp_path / "base", tensors(0))
    (tmp_path / "files").mkdir()
    store = Store.init(tmp_path / "store", tmp_path / "base")
    for seed, name in enumerate(NAMES, start=1):
        write_checkpoint(tmp_path / name, tensors(seed))
        options = PackOptions(density=0.4, scope=ALL)
        sparsetv.pack_to(tmp_path / "files" / f"{name}.stv", tmp_path / "base", tmp_path / name, options=options)
        store.add(tmp_path / "files" / f"{name}.stv")
    return tmp_path


def files(room: Path, *names: str) -> list[Path]:
    return [room / "files" / f"{name}.stv" for name in names]


@pytest.mark.parametrize(
    ("reference", "names"),
    [("cr", ["cr"]), ("sst2,cr", ["cr", "sst2"]), ("mnli*", ["mnli", "mnli-mm"]), ("*", NAMES), ("cr,c*", ["cr"])],
)
@pytest.mark.parametrize("base", ["base", None])
def test_stitching_from_a_store_is_stitching_the_files(
    room: Path, reference: str, names: list[str], base: str | None
) -> None:
    sparsetv.stitch(None if base is None else room / base, [f"{room / 'store'}:{reference}"], room / "from store")
    sparsetv.stitch(room / "base", files(room, *names), room / "from files")
    assert tree(room / "from store") == tree(room / "from files")


def test_adding_from_a_store_and_removing_by_glob(room: Path) -> None:
    sparsetv.stitch(room / "base", files(room, "cr"), room / "merged")
    sparsetv.add(room / "merged", [f"{room / 'store'}:mnli*", files(room, "sst2")[0]])
    sparsetv.stitch(room / "base", files(room, *NAMES), room / "fresh")
    assert tree(room / "merged") == tree(room / "fresh")
    sparsetv.remove(room / "merged", ["mnli*", "cr"])
    sparsetv.stitch(room / "base", files(room, "sst2"), room / "one")
    assert tree(room / "merged") == tree(room / "one")
    with pytest.raises(NotFoundError, match=r"merged: has no task 'mnli\*'; it has sst2"):
        sparsetv.remove(room / "merged", ["sst2", "mnli*"])
    assert tree(room / "merged") == tree(room / "one")


def test_composing_is_stitching_in_memory(room: Path) -> None:
    store = Store.open(room / "store")
    options = StitchOptions(rule="consensus", scale=0.9, weights={"cr": -0.5}, min_tasks=2)
    composer = store.compose("mnli*", "cr", options=options)
    sparsetv.stitch(room / "base", files(room, "cr", "mnli", "mnli-mm"), room / "merged", options=options)
    merged = read_checkpoint(room / "merged")
    for name, tensor in composer.tensors.items():
        np.testing.assert_array_equal(bits(tensor), bits(merged[name]))
    assert sorted(composer.tensors) == ["h.0.a", "h.0.b"]
    for name in ["mnli", "mnli-mm", "cr"]:
        composer.remove(name)
    for name, tensor in composer.tensors.items():
        np.testing.assert_array_equal(bits(tensor), bits(tensors(0)[name]))


def test_composing_on_a_moved_or_wrong_base(room: Path) -> None:
    store = Store.open(room / "store")
    shutil.move(room / "base", room / "moved")
    with pytest.raises(NotFoundError, match="base"):
        store.compose("cr")
    assert store.compose("cr", base=room / "moved").weights == {"cr": 1.0}
    with pytest.raises(BaseMismatchError, match="cr was packed against base"):
        store.compose("cr", base=room / "mnli")
    with pytest.raises(NotFoundError, match="no task matches 'rte'"):
        store.compose("rte", base=room / "moved")


def test_a_store_that_does_not_know_where_its_base_is(room: Path) -> None:
    store = Store.init(room / "other")
    store.add(files(room, "cr")[0])
    with pytest.raises(UsageError, match="other: does not know where its base is; pass base="):
        store.compose("cr")
    with pytest.raises(UsageError, match="other: does not say where one base of all tasks is; name the base"):
        sparsetv.stitch(None, [f"{room / 'other'}:cr"], room / "out")
    with pytest.raises(UsageError, match="no base is named, and none of the tasks comes from a store"):
        sparsetv.stitch(None, files(room, "cr"), room / "out")
    assert not (room / "out").exists()


def test_broken_objects_do_not_reach_a_model(room: Path) -> None:
    path = Store.open(room / "store").path_of("cr")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(data))
    with pytest.raises(FormatError):
        sparsetv.stitch(room / "base", [f"{room / 'store'}:cr"], room / "out")
    assert not (room / "out").exists()


def test_a_file_whose_name_looks_like_a_reference_is_a_file(room: Path) -> None:
    odd = room / "store:cr"
    shutil.copy(files(room, "mnli")[0], odd)
    record = sparsetv.stitch(room / "base", [str(odd)], room / "out")
    assert [member.name for member in record.members] == ["mnli"]


def test_the_command_line_takes_references(room: Path) -> None:
    group.main(["stitch", f"{room / 'store'}:mnli*", "-o", str(room / "one")], standalone_mode=False)
    group.main(
        ["stitch", str(room / "base"), f"{room / 'store'}:mnli*", "-o", str(room / "two")], standalone_mode=False
    )
    assert tree(room / "one") == tree(room / "two")
    group.main(["add", str(room / "one"), f"{room / 'store'}:cr"], standalone_mode=False)
    group.main(["remove", str(room / "one"), "mnli*"], standalone_mode=False)
    sparsetv.stitch(room / "base", files(room, "cr"), room / "cr only")
    assert weights(room / "one") == weights(room / "cr only")
    arguments = ["--rule", "consensus", "--min-tasks", "3", "--weight", "cr=-1", "--scale", "none"]
    group.main(["stitch", f"{room / 'store'}:*", "-o", str(room / "agreed"), *arguments], standalone_mode=False)
    options = StitchOptions(rule="consensus", min_tasks=3, weights={"cr": -1.0}, scale="none")
    sparsetv.stitch(room / "base", files(room, *NAMES), room / "wanted", options=options)
    assert tree(room / "agreed") == tree(room / "wanted")
    assert '"min_tasks": 3' in (room / "agreed" / "sparsetv.json").read_text()
