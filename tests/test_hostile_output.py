"""Outputs that must not or cannot be written: refused before anything is lost, and what was there is still there."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hostile import (
    DENSE,
    QUERY,
    WORDS,
    Pair,
    Parts,
    base_tensors,
    checkpoint,
    frame,
    listing,
    make_pair,
    outcome,
    pack_to,
    put_together,
    run,
    safetensors,
    take_apart,
    tuned_tensors,
    with_manifest,
)  # fmt: skip

from sparsetv.errors import (
    BusyError,
    FormatError,
    NonFiniteError,
    NotFoundError,
    OutputError,
    SparseTVError,
    UsageError,
)
from sparsetv.jobs.options import StitchOptions
from sparsetv.jobs.stitch import add, remove, stitch
from sparsetv.task_vector import Extra
from sparsetv.taskfile import read_task, write_task


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_pair(tmp_path)


@pytest.fixture
def task(tmp_path: Path, pair: Pair) -> Path:
    return pack_to(tmp_path / "task.stv", pair.base, pair.tuned, name="task")


def refused(action: Callable[[], object], room: Path, message: str, error: type[SparseTVError] = OutputError) -> None:
    """`action` raises, and everything below `room` is as it was."""
    before = listing(room)
    with pytest.raises(error, match=message):
        action()
    assert listing(room) == before


# stitch


def test_the_base_is_never_the_output(tmp_path: Path, pair: Pair, task: Path) -> None:
    (tmp_path / "link").symlink_to(pair.base)
    for output in (pair.base, tmp_path / "link", pair.base / ".", pair.base / ".." / "base"):
        refused(lambda: stitch(pair.base, [task], output), tmp_path, r"is the base itself; choose another output")  # noqa: B023
    refused(lambda: stitch(pair.base, [task], pair.base / "out"), tmp_path, r"base/out: lies inside the base; choose")
    refused(
        lambda: stitch(pair.base / "model.safetensors", [task], pair.base),
        tmp_path,
        r"base: holds the base itself|is the base",
    )


def test_a_base_inside_the_output_survives(tmp_path: Path, pair: Pair, task: Path) -> None:
    """The output is a stitched directory, which stitching may replace, but the base was put into it."""
    stitch(pair.base, [task], tmp_path / "out")
    shutil.copytree(pair.base, tmp_path / "out" / "original")
    inside = tmp_path / "out" / "original"
    refused(lambda: stitch(inside, [task], tmp_path / "out"), tmp_path, r"out: holds the base itself")


def test_a_weight_file_of_a_stitched_directory_is_no_base_for_it(tmp_path: Path, pair: Pair, task: Path) -> None:
    other = pack_to(
        tmp_path / "b.stv",
        pair.base,
        checkpoint(tmp_path / "b", base_tensors() | {WORDS: np.ones((12, 4), np.float32)}),
    )
    stitch(pair.base, [task], tmp_path / "out")
    refused(
        lambda: stitch(tmp_path / "out" / "model.safetensors", [other], tmp_path / "out"),
        tmp_path,
        r"out",
        SparseTVError,
    )


def test_what_sparsetv_did_not_write_is_not_replaced(tmp_path: Path, pair: Pair, task: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    message = r"foreign: holds thesis.txt, which sparsetv did not write; name a new directory"
    refused(lambda: stitch(pair.base, [task], foreign), tmp_path, message)
    refused(lambda: stitch(pair.base, [task], pair.tuned), tmp_path, r"tuned: holds \S+, which sparsetv did not write")
    refused(lambda: stitch(pair.base, [task], foreign / "thesis.txt"), tmp_path, r"thesis.txt: is a file; name a dir")
    refused(lambda: stitch(pair.base, [task], task), tmp_path, r"task.stv: is a file; name a directory")
    message = r"missing/out: directory .*missing does not exist; create it first"
    refused(lambda: stitch(pair.base, [task], tmp_path / "missing" / "out"), tmp_path, message)


def test_an_empty_directory_is_taken(tmp_path: Path, pair: Pair, task: Path) -> None:
    (tmp_path / "out").mkdir()
    stitch(pair.base, [task], tmp_path / "out")
    assert (tmp_path / "out" / "sparsetv.json").is_file()


@pytest.mark.parametrize(
    "name", [".git/HEAD", "model.gguf", "onnx/model.onnx", "optimizer.pt", "other.stv", "notes.txt"]
)
@pytest.mark.parametrize("command", ["stitch", "add", "remove"])
def test_what_a_person_put_into_a_stitched_directory_is_never_lost(
    name: str, command: str, tmp_path: Path, pair: Pair, task: Path
) -> None:
    """Kept, or refused with everything as it was."""
    out = tmp_path / "out"
    stitch(pair.base, [task], out)
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("mine")
    other = pack_to(tmp_path / "b.stv", pair.base, pair.tuned, name="b", density=0.5)
    action = {
        "stitch": lambda: stitch(pair.base, [other], out),
        "add": lambda: add(out, [other]),
        "remove": lambda: remove(out, ["task"]),
    }[command]
    error = outcome(action)
    assert error is None or name.split("/", maxsplit=1)[0] in str(error)
    assert (out / name).is_file()
    assert (out / name).read_text() == "mine"


@pytest.mark.parametrize("call", ["write", "sendfile"])
def test_a_full_disk_is_said_to_be_one(
    call: str, tmp_path: Path, pair: Pair, task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stitch(pair.base, [task], tmp_path / "out")
    other = pack_to(tmp_path / "b.stv", pair.base, pair.tuned, name="b", density=0.5)
    loaded = read_task(other)

    def full(*args: object, **named: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    if call == "write":
        refused(lambda: write_task(task, loaded), tmp_path, r"cannot write \S+task.stv: No space left on device")
        refused(lambda: write_task(tmp_path / "x", loaded), tmp_path, r"cannot write \S+/x: No space left on device")
    message = r"cannot write \S+{}: No space left on device"
    refused(lambda: stitch(pair.base, [loaded], tmp_path / "new"), tmp_path, message.format("new"))
    refused(lambda: stitch(pair.base, [loaded], tmp_path / "out"), tmp_path, message.format("out"))
    refused(lambda: add(tmp_path / "out", [loaded]), tmp_path, message.format("out"))
    refused(lambda: remove(tmp_path / "out", ["task"]), tmp_path, message.format("out"))


def test_a_linked_output_stays_a_link(tmp_path: Path, pair: Pair, task: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")
    stitch(pair.base, [task], tmp_path / "out")
    remove(tmp_path / "out", ["task"])
    assert (tmp_path / "out").readlink() == Path("real")
    assert (tmp_path / "real" / "sparsetv.json").is_file()


@pytest.mark.parametrize("command", ["stitch", "add", "remove"])
def test_the_second_writer_is_told_to_wait(command: str, tmp_path: Path, pair: Pair, task: Path) -> None:
    out = tmp_path / "out"
    stitch(pair.base, [task], out)
    words = {
        "stitch": ("stitch", pair.base, task, "-o", out),
        "add": ("add", out, task),
        "remove": ("remove", out, "task"),
    }[command]
    before = listing(tmp_path)
    with FileLock(tmp_path / ".out.sparsetv-lock"):
        code = f"import sys; sys.argv[1:] = {[str(word) for word in words]!r}; from sparsetv.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        with pytest.raises(BusyError, match=r"out: another process is changing it; try again when it is done"):
            remove(out, ["task"])
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr == f"sparsetv: {out}: another process is changing it; try again when it is done\n"
    assert listing(tmp_path) == before
    remove(out, ["task"])


# pack


@pytest.mark.parametrize("victim", ["base/model.safetensors", "tuned/model.safetensors", "base/config.json"])
def test_packing_never_replaces_its_own_input(victim: str, tmp_path: Path, pair: Pair) -> None:
    words = ("pack", pair.base, pair.tuned, "-o", tmp_path / victim, "--scope", "all", "--no-probe")
    refused(lambda: unwrap(words), tmp_path, rf"{victim}.*")
    (tmp_path / "link").symlink_to(tmp_path / victim)
    words = ("pack", pair.base, pair.tuned, "-o", tmp_path / "link", "--scope", "all", "--no-probe")
    refused(lambda: unwrap(words), tmp_path, r".*")


def unwrap(words: tuple[object, ...]) -> None:
    result = run(*words)
    if result.exception is not None:
        raise result.exception


def test_packing_to_a_bad_place_is_refused_before_reading(tmp_path: Path, pair: Pair) -> None:
    (pair.base / "model.safetensors").write_bytes(b"never read")
    for output, message in (
        (pair.tuned, r"tuned: it is a directory; name a file"),
        (tmp_path / "no" / "t.stv", r"no/t.stv: directory .*no does not exist; create it first"),
        ("/dev/null", r"/dev/null: it is not a regular file"),
    ):
        refused(lambda: unwrap(("pack", pair.base, pair.tuned, "-o", output)), tmp_path, message)  # noqa: B023


# Task files that are valid and mean harm


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "model.safetensors.index.json", "sparsetv.json", "sparsetv", "pytorch_model.bin", "x.gguf"],
)
def test_a_task_may_not_carry_a_file_that_replaces_weights_or_records(
    name: str, tmp_path: Path, pair: Pair, task: Path
) -> None:
    harmful = tmp_path / "harmful.stv"
    told = replace(read_task(task), name="harmful", files={name: b"junk"})
    refused(
        lambda: write_task(harmful, told), tmp_path, rf"file name '{name}' is one that no task may carry", FormatError
    )


@pytest.mark.parametrize("source", ["nowhere", "classifier.weight"])
def test_an_alias_of_nothing_is_refused(source: str, tmp_path: Path, pair: Pair, task: Path) -> None:
    extras = {"lm_head.weight": Extra("alias", "F32", (12, 4), np.zeros(0, np.uint8), source)}
    harmful = tmp_path / "harmful.stv"

    def make_and_stitch() -> None:
        write_task(harmful, replace(read_task(task), name="harmful", extras=extras))
        stitch(pair.base, [harmful], tmp_path / "out")

    with pytest.raises(FormatError, match=r"lm_head.weight.*|.*nowhere"):
        make_and_stitch()
    assert not (tmp_path / "out").exists()


def test_an_alias_of_another_shape_is_refused(tmp_path: Path, pair: Pair, task: Path) -> None:
    extras = {"lm_head.weight": Extra("alias", "F32", (3, 3), np.zeros(0, np.uint8), WORDS)}
    harmful = tmp_path / "harmful.stv"

    def make_and_stitch() -> None:
        write_task(harmful, replace(read_task(task), name="harmful", extras=extras))
        stitch(pair.base, [harmful], tmp_path / "out")

    with pytest.raises(FormatError, match=r"lm_head\.weight"):
        make_and_stitch()


def test_a_norm_that_overflows_when_squared_is_no_crash(tmp_path: Path, pair: Pair, task: Path) -> None:
    task.write_bytes(with_manifest(task.read_bytes(), ["tensors", "l2", 0], 1e300))
    error = (FormatError, NonFiniteError)
    for scale in ("l2", "graft"):
        before = listing(tmp_path)
        with pytest.raises(error, match=r"\S+"):
            stitch(pair.base, [task], tmp_path / "out", options=StitchOptions(scale=scale))
        assert listing(tmp_path) == before


@pytest.mark.parametrize("word", ["float32", "sign", "q8"])
def test_the_recipe_is_information_and_no_instruction(word: str, tmp_path: Path, pair: Pair, task: Path) -> None:
    """SPEC 3.10: what the recipe says of values does not decide how they are coded."""
    plain = StitchOptions(scale="none")
    stitch(pair.base, [task], tmp_path / "expected", options=plain)
    task.write_bytes(with_manifest(task.read_bytes(), ["recipe", "values"], word))
    stitch(pair.base, [task], tmp_path / "out", options=plain)
    found = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("expected", "out")]
    assert found[0] == found[1]


def test_positions_that_run_backwards_are_refused(tmp_path: Path, pair: Pair, task: Path) -> None:
    """A shift of 62 turns two bytes into a gap of -3: position -3 would be written from the tensor's end."""
    parts = take_apart(task.read_bytes())
    tensors = read_task(task).tensors
    high, low, shifts = b"", b"", [0] * len(tensors)
    for number, (name, tensor) in enumerate(tensors.items()):
        gaps = (np.diff(tensor.positions, prepend=-1) - 1).tolist()
        if name == QUERY:
            shifts[number] = 62
            gaps = [-3, *[0] * (tensor.nnz - 2), 20]
            unsigned = [gap % 2**64 for gap in gaps]
            low = np.packbits([gap >> bit & 1 for gap in unsigned for bit in range(62)], bitorder="little").tobytes()
            gaps = [gap >> 62 for gap in unsigned]
        high += bytes(gaps)
    frames = [frame(high), frame(low)]
    block = parts.manifest["blocks"][0]
    block["positions"] |= {"frames": [len(item) for item in frames], "high_size": len(high), "shifts": shifts}
    harmful = put_together(Parts(parts.manifest, parts.stored | {"sparsetv.positions": b"".join(frames)}))
    task.write_bytes(harmful)
    with pytest.raises(FormatError, match=r"positions: .*") as caught:
        read_task(task)
    assert "digest" not in str(caught.value)


# Stitched directories that someone changed


@pytest.fixture
def out(tmp_path: Path, pair: Pair, task: Path) -> Path:
    stitch(pair.base, [task], tmp_path / "out")
    return tmp_path / "out"


def edit_record(out: Path, **changes: object) -> None:
    path = out / "sparsetv.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_weights_that_changed_under_a_record_are_not_called_the_base(tmp_path: Path, out: Path) -> None:
    weights = bytearray((out / "model.safetensors").read_bytes())
    header = 8 + int.from_bytes(weights[:8], "little")
    weights[header + 5] ^= 1  # in a tensor that the task does not touch
    (out / "model.safetensors").write_bytes(weights)
    refused(lambda: remove(out, ["task"]), tmp_path, r"out", FormatError)


@pytest.mark.parametrize(
    "tensors",
    [
        {"other": np.ones(3, np.float32)},
        {name: value.reshape(-1)[:1] for name, value in base_tensors().items()},
        {name: value.astype(np.float16) for name, value in base_tensors().items()},
        {name: value for name, value in base_tensors().items() if name != DENSE},
    ],
    ids=["another model", "other shapes", "other dtype", "one missing"],
)
def test_weights_that_are_not_those_of_the_record_are_refused(
    tensors: dict[str, np.ndarray], tmp_path: Path, out: Path
) -> None:
    (out / "model.safetensors").write_bytes(safetensors(tensors))
    refused(lambda: remove(out, ["task"]), tmp_path, r"out", FormatError)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"memory_sha256": "0" * 64}, FormatError, r"base.safetensors: is not the file that sparsetv.json names"),
        ({"memory_sha256": "zz"}, FormatError, r"expected 64 lowercase hex digits"),
        ({"format": "x"}, FormatError, r"sparsetv.json: not a sparsetv-directory of version 1; update sparsetv"),
        ({"version": 2}, FormatError, r"update sparsetv"),
        ({"version": True}, FormatError, r"version: expected an integer, found bool"),
        ({"prefix": ["x.", "y."]}, FormatError, r"out"),
        ({"prefix": ["a"]}, FormatError, r"prefix: expected two strings"),
        ({"members": [{}]}, FormatError, r"members"),
        ({"members": 3}, FormatError, r"members: expected a list"),
        ({"replaced": ["../../x"]}, FormatError, r"file name '../../x' is not a portable path component"),
        ({"replaced": ["absent.json"]}, FormatError, r"absent.json"),
        ({"added": ["/etc/passwd"]}, FormatError, r"is not a portable path component"),
        ({"rule": "vote"}, FormatError, r"rule"),
        ({"scale": "vote"}, FormatError, r"scale"),
        ({"extra": 1}, FormatError, r"unknown key 'extra'; a newer sparsetv may know it"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_record_that_someone_edited_is_refused(
    changes: dict[str, object], error: type[SparseTVError], message: str, tmp_path: Path, pair: Pair, out: Path
) -> None:
    edit_record(out, **changes)
    other = pack_to(tmp_path / "b.stv", pair.base, pair.tuned, name="b", density=0.5)
    refused(lambda: add(out, [other]), tmp_path, message, error)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b'{"a":1,"a":2}', b"[" * 100_000])
def test_a_broken_record_is_refused(text: bytes, tmp_path: Path, out: Path) -> None:
    (out / "sparsetv.json").write_bytes(text)
    refused(lambda: remove(out, ["task"]), tmp_path, r"sparsetv.json: ", FormatError)


def test_a_record_of_another_task_is_noticed(tmp_path: Path, pair: Pair, out: Path) -> None:
    other = pack_to(tmp_path / "b.stv", pair.base, pair.tuned, name="task", density=0.5)
    add_to = pack_to(tmp_path / "c.stv", pair.base, pair.tuned, name="c", density=0.6)
    [stored] = (out / "sparsetv" / "tasks").iterdir()
    shutil.copyfile(other, stored)
    refused(lambda: add(out, [add_to]), tmp_path, r"stv: is not the task that the record names", FormatError)
    stored.unlink()
    refused(lambda: add(out, [add_to]), tmp_path, r"stv: no such file", NotFoundError)


@pytest.mark.parametrize(
    "name", ["../../evil.safetensors", "ROOM/evil.safetensors", "a/../../../evil.safetensors", "x.json"]
)
def test_what_a_directory_remembers_cannot_reach_outside_it(name: str, tmp_path: Path, out: Path) -> None:
    """The undo file names the base's weight files; a directory from elsewhere may name any path."""
    path = out / "sparsetv" / "base.safetensors"
    data = path.read_bytes()
    size = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:size])
    header[f"header.{name.replace('ROOM', str(tmp_path))}"] = header.pop("header.model.safetensors")
    text = json.dumps(header).encode()
    changed = len(text).to_bytes(8, "little") + text + data[size:]
    path.write_bytes(changed)
    edit_record(out, memory_sha256=hashlib.sha256(changed).hexdigest())
    refused(lambda: remove(out, ["task"]), tmp_path, r"base.safetensors", FormatError)


# Names and numbers at the edge


def test_the_longest_task_name_makes_a_directory_that_opens_again(tmp_path: Path, pair: Pair) -> None:
    for name in ("x" * 128, "\u65e5" * 66):
        path = pack_to(tmp_path / "t.stv", pair.base, pair.tuned, name=name)
        out = tmp_path / f"out {name[:1]}"
        stitch(pair.base, [path], out)
        assert not remove(out, [name]).members


def test_a_base_path_that_is_not_unicode_works(tmp_path: Path, pair: Pair, task: Path) -> None:
    odd = tmp_path / os.fsdecode(b"base\xff")
    shutil.copytree(pair.base, odd)
    stitch(odd, [task], tmp_path / "out")
    assert not remove(tmp_path / "out", ["task"]).members


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_a_weight_that_is_no_float32_number_is_refused(weight: float, tmp_path: Path, pair: Pair, task: Path) -> None:
    options = StitchOptions(weights={"task": weight})
    refused(lambda: stitch(pair.base, [task], tmp_path / "out", options=options), tmp_path, r"weight", UsageError)


def test_a_scale_beyond_float32_is_refused(tmp_path: Path, pair: Pair, task: Path) -> None:
    options = StitchOptions(scale=1e300)
    refused(lambda: stitch(pair.base, [task], tmp_path / "out", options=options), tmp_path, r"scale", SparseTVError)


def test_the_same_task_twice_is_refused(tmp_path: Path, pair: Pair, task: Path) -> None:
    again = pack_to(tmp_path / "again.stv", pair.base, pair.tuned, name="again")
    other = pack_to(tmp_path / "other.stv", pair.base, pair.tuned, name="task", density=0.5)
    refused(lambda: stitch(pair.base, [task, task], tmp_path / "o"), tmp_path, r"two tasks have the name", UsageError)
    refused(lambda: stitch(pair.base, [task, other], tmp_path / "o"), tmp_path, r"the name 'task'; rename", UsageError)
    refused(
        lambda: stitch(pair.base, [task, again], tmp_path / "o"), tmp_path, r"two tasks have the content", UsageError
    )


def test_what_is_unknown_is_named(tmp_path: Path, pair: Pair, task: Path, out: Path) -> None:
    refused(lambda: remove(out, ["nobody"]), tmp_path, r"out: has no task 'nobody'; it has task", NotFoundError)
    refused(lambda: remove(tmp_path / "x", ["a"]), tmp_path, r"x: no sparsetv.json; only a directory", NotFoundError)
    refused(lambda: add(out, [tmp_path / "x.stv"]), tmp_path, r"x.stv: no such file", NotFoundError)
    options = StitchOptions(weights={"tusk": 2.0})
    refused(
        lambda: stitch(pair.base, [task], tmp_path / "o", options=options), tmp_path,
        r"--weight names 'tusk', but the tasks are task", UsageError,
    )  # fmt: skip
    refused(lambda: stitch(out, [task], tmp_path / "o"), tmp_path, r"out: has tasks on it already; use", UsageError)


def test_a_base_that_was_restored_can_be_stitched_onto(tmp_path: Path, pair: Pair, task: Path, out: Path) -> None:
    remove(out, ["task"])
    assert (out / "model.safetensors").read_bytes() == (pair.base / "model.safetensors").read_bytes()
    add(out, [task])
    tuned = tuned_tensors(base_tensors())
    assert tuned[DENSE].shape == (6, 5)
