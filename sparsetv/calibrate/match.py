"""The scale at which a graft's hidden states on random inputs come closest to the fine-tune's, without any data.

Least squares alone shrinks the scale, because the dropped directions are missing; the scale at which the graft moves
as far as the fine-tune did overshoots. Their geometric mean is within 0.02 accuracy of the best scale on every
fine-tune that we measured (benchmarks/recovery.py).

Reference: formats/codecs/probe.md, clause 4.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize_scalar
from torch import nn

from sparsetv.calibrate.forward import Answers, Setup, answers
from sparsetv.errors import ProbeError

GRID = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""Scales that are tried; between them curves are interpolated, beyond them nothing is claimed."""


@dataclass(frozen=True, slots=True)
class Match:
    """A scale, the relative squared distance E there, and the fine-tune's answers."""

    scale: float
    distance: float
    target: Answers


def match(
    base: nn.Module,
    graft: nn.Module,
    finetuned: nn.Module,
    setup: Setup,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Match:
    """Find the scale.

    Args:
        base: The base under the fine-tune's head.
        graft: The same with kept deltas added at scale 1.
        finetuned: The fine-tune.
        setup: The inputs.
        progress: Called with (scales tried, scales in all).

    Raises:
        ProbeError: A model cannot be run, or fine-tuning changed no hidden state.

    Cost:
        2 + 12 forward passes over the inputs; one copy of the changed parameters.
    """
    origin, target = answers(base, setup), answers(finetuned, setup)
    layers = [i for i, pair in enumerate(zip(origin.blocks, target.blocks, strict=True)) if _apart(*pair) > 0]
    if not layers:
        raise ProbeError("fine-tuning changed no hidden state on random inputs; there is no scale to find")
    moved = _Scaled(base, graft)
    distances, lengths = [], []
    for number, scale in enumerate(GRID):
        moved.set(scale)
        reached = answers(base, setup).blocks
        whole = [_apart(target.blocks[i], origin.blocks[i]) for i in layers]
        distances.append(_mean(reached, target.blocks, layers, whole))
        lengths.append(_mean(reached, origin.blocks, layers, whole))
        if progress is not None:
            progress(number + 1, len(GRID))
    moved.set(0.0)
    scale, distance = choose(distances, lengths)
    return Match(scale, distance, target)


def choose(distances: list[float], lengths: list[float]) -> tuple[float, float]:
    """(scale rounded to 3 digits, E there) from E and R on the grid."""
    logs = np.log(GRID)
    error, length = CubicSpline(logs, distances), CubicSpline(logs, lengths)
    start = int(np.argmin(distances))
    low, high = logs[max(start - 1, 0)], logs[min(start + 1, len(logs) - 1)]
    closest = float(minimize_scalar(error, bounds=(low, high), method="bounded", options={"xatol": 1e-4}).x)
    as_long = _first_reaching(length, logs)
    scale = float(f"{math.exp((closest + as_long) / 2):.3g}")
    return scale, float(f"{max(float(error(math.log(scale))), 0.0):.6g}")


def _first_reaching(length: CubicSpline, logs: np.ndarray) -> float:
    fine = np.linspace(logs[0], logs[-1], 2001)
    there = np.flatnonzero(length(fine) >= 1.0)
    return float(fine[there[0]]) if len(there) else float(logs[-1])


def _apart(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).double().square().sum())


def _mean(reached: list[torch.Tensor], goal: list[torch.Tensor], layers: list[int], whole: list[float]) -> float:
    return math.fsum(_apart(reached[i], goal[i]) / size for i, size in zip(layers, whole, strict=True)) / len(layers)


class _Scaled:
    """Moves a model's parameters to `base + scale * (graft - base)`, in place.

    Loading renames and fuses tensors but does nothing non-linear to them, so the line between two loaded models is the
    line between their checkpoints.
    """

    def __init__(self, base: nn.Module, graft: nn.Module) -> None:
        goals = dict(graft.named_parameters())
        self._changed = [
            (parameter, parameter.detach().clone(), goals[name].detach() - parameter.detach())
            for name, parameter in base.named_parameters()
            if not torch.equal(parameter, goals[name])
        ]

    def set(self, scale: float) -> None:
        with torch.no_grad():
            for parameter, start, step in self._changed:
                parameter.copy_(start + scale * step)
