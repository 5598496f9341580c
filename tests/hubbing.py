"""A hub with tasks on it, and `sparsetv` as a process that knows no other."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from fakehub import Hub, serve
from helpers import ALL, write_checkpoint

from sparsetv.jobs.options import PackOptions
from sparsetv.jobs.pack import pack_to

BASE = {"h.0.w": torch.zeros(4, 5), "h.0.b": torch.zeros(5)}
CONFIG = b'{"architectures": ["BertForSequenceClassification"], "model_type": "bert"}'


@dataclass(frozen=True, slots=True)
class Place:
    """A folder with `base`, `one.stv` and `two.stv`, and the hub."""

    path: Path
    hub: Hub

    def run(
        self, *words: str | Path, token: str | None = None, offline: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """`sparsetv …` in the folder."""
        return self._start(["-m", "sparsetv", *map(str, words)], token, offline)

    def python(self, code: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
        """Python code in the folder."""
        return self._start(["-c", code], token, False)

    def _start(self, words: list[str], token: str | None, offline: bool) -> subprocess.CompletedProcess[str]:
        environment = self.hub.environment(self.path / "cache", token) | ({"HF_HUB_OFFLINE": "1"} if offline else {})
        command = [sys.executable, *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=self.path, check=False)

    def bytes(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


@contextmanager
def open_place(path: Path) -> Iterator[Place]:
    """Fill an empty folder, and serve a hub beside it."""
    base = write_checkpoint(path / "base", BASE, files={"config.json": b"{}"})
    options = PackOptions(density=0.5, scope=ALL, probe=False)
    for number, name in enumerate(("one", "two"), start=1):
        tensors = {
            key: tensor + torch.arange(tensor.numel()).reshape(tensor.shape) * number for key, tensor in BASE.items()
        }
        tuned = write_checkpoint(path / f"{name}-model", tensors, files={"config.json": CONFIG})
        pack_to(path / f"{name}.stv", base, tuned, options=options)
    with serve() as hub:
        yield Place(path, hub)


def assert_fails(done: subprocess.CompletedProcess[str], code: int, *texts: str) -> None:
    """One line on stderr that says all of it, and the exit code."""
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("sparsetv: ")
    for text in texts:
        assert text in done.stderr
