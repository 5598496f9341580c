"""Changing a stitched directory takes over what stays, and loses nothing to those who write beside."""

import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from crash import start_child
from helpers import ALL, Tensors, tree, write_checkpoint

from sparsetv.errors import BusyError
from sparsetv.jobs.options import PackOptions
from sparsetv.jobs.pack import pack_to
from sparsetv.jobs.stitch import add, remove, stitch
from sparsetv.localize.scope import Scope

CONFIG = {"config.json": b"{}\n", "tokenizer.json": b"{}\n"}


def tensors(seed: int) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return {f"h.{layer}.w": torch.randn(6, 5, generator=generator) for layer in range(3)}


def pack_one(path: Path, name: str, seed: int, scope: Scope) -> None:
    write_checkpoint(path / name, tensors(seed), files={"config.json": b'{"seed": %d}' % seed})
    pack_to(path / f"{name}.stv", path / "base", path / name, options=PackOptions(density=0.3, scope=scope))


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sharded base, three tasks, one of which touches one shard only, and a directory with two tasks on it."""
    path = tmp_path_factory.mktemp("room")
    write_checkpoint(path / "base", tensors(0), split={f"h.{layer}.w": layer for layer in range(3)}, files=CONFIG)
    pack_one(path, "one", 1, ALL)
    pack_one(path, "two", 2, ALL)
    pack_one(path, "local", 3, Scope("globs", ("h.1.*",)))
    stitch(path / "base", [path / "one.stv", path / "two.stv"], path / "merged")
    return path


def own(room: Path, tmp_path: Path) -> Path:
    """A copy of the room whose directory was stitched in it, so that records name its base."""
    path = tmp_path / "room"
    shutil.copytree(room, path)
    stitch(path / "base", [path / "one.stv", path / "two.stv"], path / "merged")
    return path


@pytest.mark.usefixtures("no_sync")
def test_shards_that_do_not_change_stay_the_same_files(room: Path, tmp_path: Path) -> None:
    path = own(room, tmp_path)
    shards = sorted((path / "merged").glob("*.safetensors"))
    before = {shard.name: shard.stat().st_ino for shard in shards}
    stored = {task.name: task.stat().st_ino for task in (path / "merged" / "sparsetv" / "tasks").iterdir()}
    add(path / "merged", [path / "local.stv"])
    after = {shard.name: shard.stat().st_ino for shard in shards}
    changed = [name for name in before if before[name] != after[name]]
    assert changed == ["model-00002-of-00003.safetensors"]
    assert {s.stat().st_nlink for s in shards} == {1}
    kept = {task.name: task.stat().st_ino for task in (path / "merged" / "sparsetv" / "tasks").iterdir()}
    assert kept.items() >= stored.items()
    stitch(path / "base", [path / f"{name}.stv" for name in ("one", "two", "local")], path / "fresh")
    assert tree(path / "merged") == tree(path / "fresh")
    remove(path / "merged", ["local"])
    assert {s.name: s.stat().st_ino for s in shards if s.name not in changed} == {
        name: number for name, number in before.items() if name not in changed
    }
    stitch(path / "base", [path / "one.stv", path / "two.stv"], path / "back")
    assert tree(path / "merged") == tree(path / "back")


@pytest.mark.usefixtures("no_sync")
def test_a_system_without_links_copies(room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = own(room, tmp_path)

    def refuse(*args: object) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr(os, "link", refuse)
    add(path / "merged", [path / "local.stv"])
    stitch(path / "base", [path / f"{name}.stv" for name in ("one", "two", "local")], path / "fresh")
    assert tree(path / "merged") == tree(path / "fresh")


@pytest.mark.usefixtures("no_sync")
def test_a_directory_of_an_older_version_has_no_hashes_and_changes_all_the_same(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sparsetv.compose.undo import Undo

    path, real = own(room, tmp_path), Undo._parts
    with monkeypatch.context() as older:
        older.setattr(Undo, "_parts", lambda undo: (part for part in real(undo) if part[0] != "hashes"))
        stitch(path / "base", [path / "one.stv", path / "two.stv"], path / "merged")
    add(path / "merged", [path / "local.stv"])
    stitch(path / "base", [path / f"{name}.stv" for name in ("one", "two", "local")], path / "fresh")
    assert tree(path / "merged") == tree(path / "fresh")


@pytest.mark.usefixtures("no_sync")
def test_of_two_writers_one_is_busy(room: Path, tmp_path: Path) -> None:
    """Both want the directory at once, many times; nothing is lost and nothing is mixed."""
    path = own(room, tmp_path)

    def toggle(name: str) -> int:
        done, inside = 0, False
        while done < 4:
            try:
                remove(path / "merged", [name]) if inside else add(path / "merged", [path / f"{name}.stv"])
            except BusyError:
                continue
            done, inside = done + inside, not inside
        return 0

    children = [start_child(partial(toggle, name)) for name in ("local", "one")]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    stitch(path / "base", [path / "two.stv"], path / "fresh")
    assert tree(path / "merged") == tree(path / "fresh")
