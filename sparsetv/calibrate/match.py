"""The scale at which a graft's hidden states on random inputs come closest to the fine-tune's, without any data.

Least squares alone shrinks the scale, because the dropped directions are missing; the scale at which the graft moves
as far as the fine-tune did overshoots. Their geometric mean (the first alone, where it leaves nothing missing) is
within 0.02 accuracy of the best scale on every fine-tune that we measured (benchmarks/recovery.py).

Reference: formats/codecs/probe.md, clause 4.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from sparsetv.calibrate.forward import Answers, answers
from sparsetv.errors import ProbeError
from sparsetv.objective.setup import Setup

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
    ceiling: float = math.inf,
    progress: Callable[[int, int], None] | None = None,
) -> Match:
    """Find the scale.

    Args:
        base: The base under the fine-tune's head.
        graft: The same with kept deltas added at scale 1.
        finetuned: The fine-tune.
        setup: The inputs.
        ceiling: Largest scale that the norms of the task vector make plausible.
        progress: Called with (scales tried, scales in all).

    Raises:
        ProbeError: A model cannot be run, or fine-tuning changed no hidden state.

    Cost:
        3 + 12 forward passes over the inputs; one copy of the changed parameters.
    """
    origin, target = answers(base, setup), answers(finetuned, setup)
    layers, whole = _changed(origin.blocks, target.blocks)
    moved = _Scaled(base, graft)
    distances, lengths = [], []
    for number, scale in enumerate(GRID):
        moved.set(scale)
        reached = answers(base, setup).blocks
        distances.append(_mean(reached, target.blocks, layers, whole))
        lengths.append(_mean(reached, origin.blocks, layers, whole))
        if progress is not None:
            progress(number + 1, len(GRID) + 1)
    scale = min(choose(distances, lengths), round_scale(ceiling))
    moved.set(scale)
    distance = _mean(answers(base, setup).blocks, target.blocks, layers, whole)
    moved.set(0.0)
    return Match(scale, float(f"{distance:.6g}"), target)


def distance(base: nn.Module, graft: nn.Module, finetuned: nn.Module, setup: Setup) -> float:
    """E of a graft as it is: 1 at the base, 0 at the fine-tune (formats/codecs/probe.md, clause 4); 6 digits.

    Raises:
        ProbeError: A model cannot be run, or fine-tuning changed no hidden state.
    """
    origin, target, reached = (answers(model, setup).blocks for model in (base, finetuned, graft))
    layers, whole = _changed(origin, target)
    return float(f"{_mean(reached, target, layers, whole):.6g}")


def _changed(origin: list[torch.Tensor], target: list[torch.Tensor]) -> tuple[list[int], list[float]]:
    """Blocks whose hidden states fine-tuning changed, and how far."""
    apart = [_apart(*pair) for pair in zip(target, origin, strict=True)]
    layers = [number for number, size in enumerate(apart) if size > 0]
    if not layers:
        raise ProbeError("fine-tuning changed no hidden state on random inputs; there is no scale to find")
    return layers, [apart[number] for number in layers]


def choose(distances: list[float], lengths: list[float]) -> float:
    """The scale, rounded to 3 digits, from E and R on the grid."""
    closest, error = _lowest(distances)
    share = min(0.5, 10 * max(error, 0.0))
    return round_scale(math.exp((1 - share) * math.log(closest) + share * _first_reaching(lengths)))


def round_scale(scale: float) -> float:
    """A scale rounded to 3 significant digits."""
    return float(f"{scale:.3g}")


def _lowest(errors: list[float]) -> tuple[float, float]:
    """Scale and value of the minimum of a parabola through the lowest point and its neighbours, inside the grid."""
    middle = min(max(int(np.argmin(errors)), 1), len(GRID) - 2)
    curve = np.polyfit(GRID[middle - 1 : middle + 2], errors[middle - 1 : middle + 2], 2)
    if curve[0] <= 0:
        return GRID[int(np.argmin(errors))], min(errors)
    scale = min(max(float(-curve[1] / (2 * curve[0])), GRID[0]), GRID[-1])
    return scale, float(np.polyval(curve, scale))


def _first_reaching(lengths: list[float]) -> float:
    """Logarithm of the first scale at which R is 1, linear in logarithms between grid points; the last if never."""
    above = next((number for number, length in enumerate(lengths) if length >= 1), len(GRID) - 1)
    if above == 0 or lengths[above] < 1:
        return math.log(GRID[above])
    low, high = (math.log(max(lengths[number], 1e-30)) for number in (above - 1, above))
    share = -low / (high - low)
    return (1 - share) * math.log(GRID[above - 1]) + share * math.log(GRID[above])


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
