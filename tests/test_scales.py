"""Scales against norms of dense vectors."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import pack_pair

from sparsetv.errors import ProbeError, UsageError
from sparsetv.scales import parse_scale, resolve_scale
from sparsetv.task_vector import Probe, SparseTaskVector

pytestmark = pytest.mark.usefixtures("no_sync")


def dense_task(path: Path, *, density: float) -> tuple[SparseTaskVector, np.ndarray]:
    """A task of three tensors and its whole task vector in float64."""
    generator = torch.Generator().manual_seed(2)
    shapes = {"a": (30, 7), "b": (50,), "c": (4, 5, 3)}
    base = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    tuned = {name: tensor + torch.randn(tensor.shape, generator=generator) ** 3 for name, tensor in base.items()}
    whole = np.concatenate([(tuned[name] - base[name]).reshape(-1).double().numpy() for name in sorted(shapes)])
    return pack_pair(path, base, tuned, density=density), whole


@pytest.mark.parametrize("density", [0.01, 0.1, 0.5, 1.0])
def test_formulas(tmp_path: Path, density: float) -> None:
    task, whole = dense_task(tmp_path, density=density)
    kept = np.sort(np.abs(whole))[::-1][: task.nnz]
    r1 = float(np.abs(whole).sum() / kept.sum())
    r2 = float(np.linalg.norm(whole) / np.linalg.norm(kept))
    np.testing.assert_allclose(task.norm_ratios(), (r1, r2), rtol=2e-5)
    for company in (1, 3):
        policies: list[tuple[str | float, str, float]] = [
            ("none", "none", 1.0),
            ("l2", "l2", r2),
            ("graft", "graft", math.sqrt(r1 * r2)),
            (0.25, "number", 0.25),
            ("auto", "l2", r2),
        ]
        for policy, used, wanted in policies:
            found = resolve_scale(task, policy, company=company)
            assert found[0] == used
            np.testing.assert_allclose(found[1], wanted, rtol=2e-5)


def test_what_keeps_everything_is_not_scaled(tmp_path: Path) -> None:
    """Norms in the file are rounded to 6 digits; at density 1 both ratios are 1 all the same."""
    task, _ = dense_task(tmp_path, density=1.0)
    assert task.norm_ratios() == (1.0, 1.0)


def test_match_is_the_probes(tmp_path: Path) -> None:
    task, _ = dense_task(tmp_path, density=0.1)
    probe = Probe("tokens", 0, 1, {}, "logits", np.zeros((1, 1), np.float32), 1.75, 0.5)
    probed = replace(task, probe=probe)
    assert resolve_scale(probed, "match", company=3) == ("match", 1.75)
    assert resolve_scale(probed, "auto", company=1) == ("match", 1.75)
    assert resolve_scale(probed, "auto", company=2) == resolve_scale(task, "l2", company=2)
    with pytest.raises(ProbeError, match="task was packed without a probe, so it has no `match` scale"):
        resolve_scale(task, "match", company=1)


def test_a_task_that_changes_nothing(tmp_path: Path) -> None:
    same = {"w": torch.ones(4)}
    task = pack_pair(tmp_path, same, {"w": torch.ones(4)}, density=0.5)
    assert task.norm_ratios() == (1.0, 1.0)


def test_unknown_policy(tmp_path: Path) -> None:
    task, _ = dense_task(tmp_path, density=0.5)
    with pytest.raises(
        UsageError, match="unknown scale 'best'; known are auto, none, l2, l2-tensor, graft, match, joint, fit"
    ):
        resolve_scale(task, "best", company=1)


@pytest.mark.parametrize(
    ("text", "value"), [("auto", "auto"), ("match", "match"), ("0.5", 0.5), ("-2", -2.0), ("1e-3", 1e-3)]
)
def test_parsing(text: str, value: str | float) -> None:
    assert parse_scale(text) == value


@pytest.mark.parametrize(
    ("text", "message"), [("big", "unknown scale 'big'"), ("nan", "not finite"), ("inf", "not finite")]
)
def test_parsing_refuses(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_scale(text)
