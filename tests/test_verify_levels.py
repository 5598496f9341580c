"""How closely a base is compared with the one a task was packed against: names, touched tensors, or everything."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile import QUERY, WORDS, Array, base_tensors, checkpoint, pack_to, run, tuned_tensors
from safetensors.numpy import load_file

from sparsetv import StitchOptions, add, attach, read_task, remove, stitch
from sparsetv.belonging import VERIFY, check_content
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.errors import BaseMismatchError, UsageError
from sparsetv.live.composer import Composer

CHANGES: dict[str, Callable[[dict[str, Array]], object]] = {
    "nothing": lambda tensors: None,
    "untouched": lambda tensors: tensors[WORDS].__setitem__((0, 0), 7.0),
    "touched": lambda tensors: tensors[QUERY].__setitem__((0, 0), 7.0),
    "shape": lambda tensors: tensors.__setitem__(QUERY, np.zeros((8, 9), "f4")),
    "extra": lambda tensors: tensors.__setitem__("zz.more", np.zeros(3, "f4")),
}
"""What another base differs in; the embeddings are in scope, but no entry of theirs is kept."""

REFUSED = {"meta": {"shape"}, "touched": {"shape", "touched"}, "full": {"shape", "touched", "untouched", "extra"}}
"""Which of them each level refuses."""

FIRST = {"touched": QUERY, "untouched": WORDS, "extra": "zz.more"}

each_level = pytest.mark.parametrize("verify", VERIFY)
each_change = pytest.mark.parametrize("change", CHANGES)


@pytest.fixture
def room(tmp_path: Path) -> Path:
    base = base_tensors()
    checkpoint(tmp_path / "base", base)
    for name, seed in {"one": 1, "two": 2}.items():
        checkpoint(tmp_path / name, tuned_tensors(base, seed=seed))
        pack_to(tmp_path / f"{name}.stv", tmp_path / "base", tmp_path / name, name=name, density=0.5)
    return tmp_path


def other_base(room: Path, change: str) -> tuple[Path, dict[str, Array]]:
    tensors = base_tensors()
    CHANGES[change](tensors)
    return checkpoint(room / "other", tensors), tensors


def message(room: Path, change: str, verify: str, name: str = "one") -> str:
    """What the error says: the first tensor that differs, and both digests."""
    if change == "shape":
        return rf"{QUERY} is F32 \(8, 8\) for {name}, but F32 \(8, 9\)"
    base = read_task(room / f"{name}.stv").base
    recorded = base.digest if verify == "full" else base.touched
    return (
        rf"{name} was packed against base {recorded[:12]}… but .* is [0-9a-f]{{12}}… "
        rf"\(first difference: {FIRST[change]}\); pass the base it was packed from"
    )


@each_change
@each_level
def test_stitching_refuses_what_the_level_says(verify: str, change: str, room: Path) -> None:
    other, tensors = other_base(room, change)
    result = run("stitch", other, room / "one.stv", "-o", room / "out", "--verify", verify, "--scale", "none")
    if change in REFUSED[verify]:
        with pytest.raises(BaseMismatchError, match=message(room, change, verify)):
            raise result.exception or AssertionError("nothing was refused")
        assert not (room / "out").exists()
        return
    assert result.exception is None
    assert ("is not the very base" in result.stderr) == (change != "nothing")
    found, tuned = (load_file(room / name / "model.safetensors") for name in ("out", "one"))
    for name, tensor in read_task(room / "one.stv").tensors.items():
        original, expected = base_tensors()[name].ravel(), tensors[name].copy().ravel()
        expected[tensor.positions] = tuned[name].ravel()[tensor.positions]
        same = original == tensors[name].ravel()
        assert np.array_equal(found[name].ravel()[same], expected[same])
        other_too = tensors[name].ravel()[~same] + (tuned[name].ravel() - original)[~same]
        assert np.isin(found[name].ravel()[~same], [*other_too, *tensors[name].ravel()[~same]]).all()


@each_level
def test_a_task_that_is_on_a_directory_has_been_compared(verify: str, room: Path) -> None:
    """One stitched with less than the default stays as it is when others come and go; the base comes back."""
    other, tensors = other_base(room, "touched")
    checkpoint(room / "near", tuned_tensors(tensors, seed=3))
    pack_to(room / "near.stv", other, room / "near", name="near")
    stitch(other, [room / "one.stv"], room / "out", options=StitchOptions(verify="meta"))
    add(room / "out", [room / "near.stv"], verify=verify)
    remove(room / "out", ["near"])
    remove(room / "out", ["one"])
    assert (room / "out" / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


@each_change
@each_level
def test_adding_refuses_what_the_level_says(verify: str, change: str, room: Path) -> None:
    other, tensors = other_base(room, change)
    checkpoint(room / "near", tuned_tensors(tensors, seed=3))
    pack_to(room / "near.stv", other, room / "near", name="near")
    stitch(other, [room / "near.stv"], room / "out")
    before = (room / "out" / "model.safetensors").read_bytes()
    result = run("add", room / "out", room / "two.stv", "--verify", verify)
    if change in REFUSED[verify]:
        with pytest.raises(BaseMismatchError, match=message(room, change, verify, "two")):
            raise result.exception or AssertionError("nothing was refused")
        assert (room / "out" / "model.safetensors").read_bytes() == before
    else:
        assert result.exception is None


@each_change
@each_level
def test_a_composer_refuses_what_the_level_says(verify: str, change: str, room: Path) -> None:
    """A tensor that only the model has is no other base: heads are such."""
    _, tensors = other_base(room, change)
    live = {name: torch.tensor(value) for name, value in tensors.items()}
    composer = Composer(live, verify=verify, scale="none")
    if change in REFUSED[verify] - {"extra"}:
        with pytest.raises(BaseMismatchError, match=message(room, change, verify)):
            composer.load(read_task(room / "one.stv"))
        assert all(np.array_equal(live[name].numpy(), value) for name, value in tensors.items())
    else:
        composer.load(read_task(room / "one.stv"))


def test_a_full_comparison_knows_the_base_under_tasks_in_force(room: Path) -> None:
    live = {name: torch.tensor(value) for name, value in base_tensors().items()}
    composer = Composer(live, verify="full", scale="none")
    composer.load(read_task(room / "one.stv"))
    composer.activate({"one": 1.0})
    composer.load(read_task(room / "two.stv"))
    composer.activate({})
    assert all(np.array_equal(live[name].numpy(), value) for name, value in base_tensors().items())


def test_hashes_whose_first_bytes_agree_still_differ(room: Path) -> None:
    """The tags that name a tensor are four bytes long; only the digest decides."""
    from dataclasses import replace

    task, base = read_task(room / "one.stv"), open_checkpoint(room / "base")
    identities = {name: base.identity(name) for name in base.names}
    for verify in ("touched", "full"):
        check_content(task, identities, source="x", verify=verify)
        near = {n: replace(item, sha256=item.sha256[:4] + bytes(28)) for n, item in identities.items()}
        with pytest.raises(BaseMismatchError, match="first difference: none of the recorded hash tags"):
            check_content(task, near, source="x", verify=verify)


def test_an_unknown_level_is_a_usage_error(room: Path) -> None:
    task = room / "one.stv"
    actions: list[Callable[[], object]] = [
        lambda: stitch(room / "base", [task], room / "out", options=StitchOptions(verify="all")),
        lambda: add(room / "out", [task], verify="all"),
        lambda: Composer({}, verify="all"),
        lambda: attach(torch.nn.Linear(1, 1), verify="all"),
    ]
    stitch(room / "base", [], room / "out")
    for action in actions:
        with pytest.raises(UsageError, match="unknown verify 'all'; known are meta, touched, full"):
            action()
