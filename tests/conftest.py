"""Shared fixtures: Hypothesis runs the same examples everywhere, and tests that write get a fresh directory."""

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "sparsetv",
    derandomize=True,
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("sparsetv")


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Path]:
    """Gives another empty directory at each call, so that every Hypothesis example has its own."""
    numbers = itertools.count()

    def make() -> Path:
        path = tmp_path / f"example-{next(numbers)}"
        path.mkdir()
        return path

    return make


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let writes stay in the page cache: thousands of tiny files need no durable disk to be compared."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base, three fine-tunes of it, and labelled examples of the first; not to be changed."""
    from tiny import lines, texts, write_base, write_classifier

    path = tmp_path_factory.mktemp("localizers")
    base = write_base(path / "base")
    write_classifier(path / "tuned", base, classes=3, seed=4)
    write_classifier(path / "other", base, classes=2, seed=6)
    write_classifier(path / "third", base, classes=2, seed=7)
    examples = [{"text": text, "label": number % 3} for number, text in enumerate(texts(30))]
    lines(path / "data.jsonl", examples)
    return path


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the crash tests play with; not to be changed."""
    from crashing.stage import build

    path = tmp_path_factory.mktemp("stage")
    build(path)
    return path


@pytest.fixture
def room(stage: Path, tmp_path: Path) -> Path:
    """A copy of the stage of one's own."""
    return Path(shutil.copytree(stage, tmp_path / "room"))
