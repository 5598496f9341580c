"""Learned masks: Eq. 1 of Localize-and-Stitch, as the paper writes it and as the authors' code does it.

Both minimise `loss(theta + sigmoid(S) * tau) + lambda * |sigmoid(S)|_1` over real S. The paper takes one step of
gradient descent per batch. The released code adds up the gradients of all batches before each step, and its last term
pushes S away from 0 instead of towards sparsity, so that the density is whatever comes out.
"""

import numpy as np
import torch

from sparsetv.errors import UsageError
from sparsetv.localize.live import body_of, choose, deltas_of, start_mask
from sparsetv.localize.problem import DENSITY, Localized, Problem
from sparsetv.objective.body import Body, Part
from sparsetv.progress import counter

VARIANTS = ("paper", "released")
_RELEASED_START = 1e-5
_Gates = dict[str, torch.Tensor]


def learned(
    problem: Problem,
    *,
    variant: str = "paper",
    rate: float = 1e7,
    epochs: int = 10,
    l1: float = 1e-5,
    push: float = 10.0,
    start: float | None = None,
) -> Localized:
    """Learn a mask.

    Args:
        problem: Task vector and objective. With a density, exactly so many entries of the highest S are kept; without
            one, those with `sigmoid(S) > 1/2`.
        variant: `paper` or `released`.
        rate: Learning rate.
        epochs: Passes over the batches (`paper`), or steps over all of them (`released`).
        l1: lambda, `paper` only.
        push: r of the released code, which does not scale it by the rate: 10 for text, 1 for images.
        start: Density of the magnitude mask that S starts from. `paper`: the problem's density, or 0.01; S is 3 on it
            and 0 elsewhere. `released`: 1e-5; S is 5 on it and -5 elsewhere.

    Returns:
        The mask; notes `loss` (mean loss of the last epoch) and `own_density` (share with `sigmoid(S) > 1/2`).

    Raises:
        UsageError: Unknown variant, or no objective.

    Reference:
        He et al., Localize-and-Stitch, arXiv:2408.13656, equation 1 and appendix H; ALGORITHMS, localizers.

    Cost:
        A forward and a backward pass per batch and epoch. Copies of the scope in float32 beside activations: 3 for
        `paper` (weights, deltas, S; gradients are used up tensor by tensor), 4 for `released` (and the sum of the
        gradients).
    """
    gates, loss = learn_gates(problem, variant=variant, rate=rate, epochs=epochs, l1=l1, push=push, start=start)
    return choose(problem, gates, loss=loss)


def learn_gates(
    problem: Problem, *, variant: str, rate: float, epochs: int, l1: float, push: float, start: float | None
) -> tuple[_Gates, float]:
    """(S by tensor, in its shape and on the model's device, mean loss of the last epoch); arguments as of `learned`."""
    if variant not in VARIANTS:
        raise UsageError(f"unknown variant {variant!r}; known are {', '.join(VARIANTS)}")
    if epochs < 0:
        raise UsageError(f"learned, epochs is {epochs}; give 0 or more")
    body = body_of(problem, "learned")
    if start is None:
        start = _RELEASED_START if variant == "released" else problem.density or DENSITY
    mask = start_mask(problem, body, density=start)
    high, low = (5.0, -5.0) if variant == "released" else (3.0, 0.0)
    gates = {name: torch.where(chosen, high, low) for name, chosen in mask.items()}
    deltas = deltas_of(problem, body)
    if variant == "paper":
        return gates, _descend(problem, body, gates, deltas, rate=rate, epochs=epochs, l1=l1)
    return gates, _descend_released(problem, body, gates, deltas, rate=rate, steps=epochs, push=push)


def _descend(
    problem: Problem, body: Body, gates: _Gates, deltas: _Gates, *, rate: float, epochs: int, l1: float
) -> float:
    """One step per batch; S and weights move as soon as a tensor's gradient is there."""

    def step(part: Part, gradient: torch.Tensor) -> None:
        gate, delta = gates[part.name], deltas[part.name]
        open_ = torch.sigmoid(gate)
        slope = open_ * (1 - open_)
        gate.sub_(slope.mul_(gradient.mul(delta).add_(l1)), alpha=rate)
        part.live.add_(torch.sigmoid(gate).sub_(open_).mul_(delta))

    batches = body.objective.batches
    report = counter(problem.progress, "learn the mask", epochs * len(batches))
    generator = np.random.Generator(np.random.Philox(key=problem.seed))
    loss = 0.0
    with body.tuning(each=step):
        _open(body, gates, deltas)
        for _ in range(epochs):
            loss = 0.0
            for index in generator.permutation(len(batches)):
                loss += body.backward(batches[int(index)]) / len(batches)
                report(1)
    return loss


def _descend_released(
    problem: Problem, body: Body, gates: _Gates, deltas: _Gates, *, rate: float, steps: int, push: float
) -> float:
    """One step per pass over all batches, whose gradients are added up, not averaged."""
    batches = body.objective.batches
    report = counter(problem.progress, "learn the mask", steps * len(batches))
    loss = 0.0
    with body.tuning():
        _open(body, gates, deltas)
        for _ in range(steps):
            loss = 0.0
            body.clear()
            for batch in batches:
                loss += body.backward(batch) / len(batches)
                report(1)
            with torch.no_grad():
                for part in body.parts:
                    _step_released(part, gates[part.name], deltas[part.name], rate=rate, push=push)
    return loss


def _step_released(part: Part, gate: torch.Tensor, delta: torch.Tensor, *, rate: float, push: float) -> None:
    open_ = torch.sigmoid(gate)
    slope = open_ * (1 - open_)
    gate.sub_(part.gradient().mul(delta).mul_(rate).sub_(gate.sign(), alpha=push).mul_(slope))
    part.live.add_(torch.sigmoid(gate).sub_(open_).mul_(delta))


def _open(body: Body, gates: _Gates, deltas: _Gates) -> None:
    with torch.no_grad():
        for part in body.parts:
            part.live.add_(torch.sigmoid(gates[part.name]).mul_(deltas[part.name]))
