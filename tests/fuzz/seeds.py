"""Small valid task files that together have every codec, kind of extra, and a probe; made once per process."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hostile import WORDS, Parts, base_tensors, canonical, checkpoint, take_apart, tuned_tensors

from sparsetv.container.writer import encode
from sparsetv.jobs.options import PackOptions
from sparsetv.jobs.pack import pack
from sparsetv.localize.scope import Scope
from sparsetv.task_vector import Probe, SparseTaskVector

GOLDEN = Path(__file__).parents[2] / "formats" / "golden"
_PACKED = 4
"""How often a packed file is among those to draw from for each golden file: they are few, and have most in them."""


@cache
def packed() -> tuple[bytes, ...]:
    """Files that the package wrote."""
    with TemporaryDirectory() as name:
        return tuple(encode(task).tobytes() for task in _tasks(Path(name)))


@cache
def golden() -> tuple[bytes, ...]:
    """The valid golden files: small, so that a change hits what matters."""
    return tuple(path.read_bytes() for path in sorted((GOLDEN / "valid").glob("*.stv")))


@cache
def seeds() -> tuple[bytes, ...]:
    """All of them."""
    return (*packed(), *golden())


@dataclass(frozen=True, slots=True)
class Seed:
    """A seed taken apart: the manifest's text, so that each mutator gets its own value of it, and what is stored."""

    data: bytes
    text: bytes
    stored: dict[str, bytes]
    version: str

    def parts(self) -> Parts:
        """A copy to change."""
        return Parts(json.loads(self.text), dict(self.stored), self.version)


def draw(source: random.Random) -> Seed:
    """One of the seeds."""
    return source.choice(_taken_apart())


@cache
def _taken_apart() -> tuple[Seed, ...]:
    return tuple(_seed(data) for data in (*packed() * _PACKED, *golden()))


def _seed(data: bytes) -> Seed:
    parts = take_apart(data)
    return Seed(data, canonical(parts.manifest), parts.stored, parts.version)


@cache
def digests() -> frozenset[str]:
    """Content digests of all seeds."""
    return frozenset(take_apart(data).manifest["digest"] for data in seeds())


def _tasks(room: Path) -> Iterator[SparseTaskVector]:
    base = base_tensors()
    base["encoder.layer.2.wide.weight"] = np.linspace(-3, 3, 3000, dtype=np.float32).reshape(10, 300)
    tuned = tuned_tensors(base)
    tuned[WORDS] = np.concatenate([tuned[WORDS], np.ones((2, 4), np.float32)])
    tuned |= {"head.weight": np.ones((2, 4), np.float32), "step": np.array([3], np.int64)}
    tuned["copy"] = tuned["pooler.dense.weight"].copy()
    first = checkpoint(room / "base", base), checkpoint(room / "tuned", tuned, {"model_type": "x"})
    task = pack(*first, options=PackOptions(0.05, Scope("all")))
    outputs = np.arange(6, dtype=np.float32).reshape(3, 2)
    yield replace(task, probe=Probe("tokens", 5, 3, {"vocabulary": 9, "x": 0.5}, "logits", outputs, 1.25, 0.5))
    yield pack(*first, options=PackOptions(0.001, Scope.parse(["all"]), values="sign"))
    half = {name: value.astype(np.float16) for name, value in base.items()}
    second = checkpoint(room / "half", half), checkpoint(room / "halftuned", tuned_tensors(half))
    yield pack(*second, options=PackOptions(0.3, Scope.parse(["blocks", "!*.gain"]), allocation="tensor"))
    yield pack(*first, options=PackOptions(0.05, Scope("all"), localizer="random", values="q4", seed=3))
    lines = {"w": np.zeros((60, 80), np.float32)}
    grown = np.random.default_rng(0).standard_normal((60, 80)) * 10.0 ** np.linspace(-4, 1, 60)[:, None]
    third = checkpoint(room / "lines", lines), checkpoint(room / "grown", {"w": grown.astype(np.float32)})
    yield pack(*third, options=PackOptions(scope=Scope("all"), budget="2500", allocation="global"))
