"""Hub ids, from a local cache and without a network: the real client, no mocks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import write_checkpoint

from sparsetv.jobs.inspect import inspect

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BASE = {"h.0.w": torch.zeros(4, 5), "h.0.b": torch.zeros(5)}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A hub cache that holds org/base at one commit, as the client lays it out: snapshots link to blobs."""
    repo = tmp_path / "hub" / "models--org--base"
    blobs = write_checkpoint(repo / "blobs", BASE, files={"config.json": b"{}"})
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name in ("model.safetensors", "config.json"):
        (snapshot / name).symlink_to(Path("..") / ".." / "blobs" / name)
    assert blobs.is_dir()
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    return tmp_path / "hub"


def run(cache: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """`sparsetv …` as a process that may not reach a network."""
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "sparsetv", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize("source", ["org/base", "org/base@main", f"org/base@{COMMIT}"])
def test_a_base_from_the_hub_is_packed_against_with_its_commit(cache: Path, tmp_path: Path, source: str) -> None:
    tuned = write_checkpoint(tmp_path / "tuned", {name: tensor + 1 for name, tensor in BASE.items()})
    file = tmp_path / "task.stv"
    done = run(cache, "pack", source, tuned, "-o", file, "--density", "0.5", "--no-probe")
    assert done.returncode == 0, done.stderr
    assert inspect(file).base["repo"] == "org/base"
    assert inspect(file).base["commit"] == COMMIT
    assert run(cache, "verify", file, "--base", source, "--finetuned", tuned).returncode == 0
    assert run(cache, "stitch", source, file, "-o", tmp_path / "out").returncode == 0


def test_what_the_hub_does_not_give_is_one_clear_line(cache: Path, tmp_path: Path) -> None:
    done = run(cache, "pack", "org/unknown", tmp_path, "-o", tmp_path / "t.stv")
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1
    assert "org/unknown: no local path, and the hub did not give it" in done.stderr
    assert not (tmp_path / "t.stv").exists()
