"""Shared fixtures: Hypothesis runs the same examples everywhere, and tests that write get a fresh directory."""

import itertools
import os
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
