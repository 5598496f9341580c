"""Model grafting: a mask learned as a correction of the magnitude mask, without a penalty, the best step kept."""

import torch

from sparsetv.errors import UsageError
from sparsetv.localize.live import body_of, choose, deltas_of, start_mask
from sparsetv.localize.problem import DENSITY, Localized, Problem
from sparsetv.objective.body import Body, Part
from sparsetv.progress import counter

_Gates = dict[str, torch.Tensor]


def grafting(problem: Problem, *, rate: float = 1e7, steps: int = 10, bias: float = 10.0) -> Localized:
    """Learn which entries leave or enter the magnitude mask.

    `gamma = gamma_base * (1 - sigmoid(S)) + (1 - gamma_base) * sigmoid(S)`; S starts at `-bias`, so that gamma starts
    as the magnitude mask; every step descends along the gradient over all batches. Of the steps, the one with the
    lowest loss counts.

    Args:
        problem: Task vector and objective. With a density, exactly so many entries of the highest gamma are kept;
            without one, those with `gamma > 1/2`, from a magnitude mask of density 0.01.
        rate: Learning rate.
        steps: Steps.
        bias: How far S starts below 0.

    Returns:
        The mask; notes `loss` (mean loss of the step that counts), `step` and `own_density` (share with
        `gamma > 1/2`).

    Reference:
        Panigrahi et al., Task-Specific Skill Localization, arXiv:2302.06600; Localize-and-Stitch, arXiv:2408.13656,
        equation 2 and appendix E.

    Cost:
        A forward and a backward pass per batch and step; 4 copies of the scope in float32 beside activations (weights,
        deltas, S, gradient), and the best S on the CPU.
    """
    best, step, loss = learn_gates(problem, rate=rate, steps=steps, bias=bias)
    return choose(problem, best, loss=loss, step=float(step))


def learn_gates(problem: Problem, *, rate: float, steps: int, bias: float) -> tuple[_Gates, int, float]:
    """(gamma as its logit by tensor on the CPU, the step that counts, its loss); arguments as of `grafting`."""
    if steps < 0:
        raise UsageError(f"grafting, steps is {steps}; give 0 or more")
    body = body_of(problem, "grafting")
    chosen = start_mask(problem, body, density=problem.density or DENSITY)
    # gamma = sigmoid(gate), gate = S outside the magnitude mask and -S inside: one array says both.
    gates = {name: torch.where(mask, bias, -bias) for name, mask in chosen.items()}
    deltas = deltas_of(problem, body)
    return _descend(problem, body, gates, deltas, rate=rate, steps=steps)


def _descend(
    problem: Problem, body: Body, gates: _Gates, deltas: _Gates, *, rate: float, steps: int
) -> tuple[_Gates, int, float]:
    """(gates of the step with the lowest loss on the CPU, its number, its loss)."""
    batches = body.objective.batches
    report = counter(problem.progress, "graft", steps + 1)
    best, number, lowest = {name: gate.cpu().clone() for name, gate in gates.items()}, 0, float("inf")
    with body.tuning():
        with torch.no_grad():
            for part in body.parts:
                part.live.add_(torch.sigmoid(gates[part.name]).mul_(deltas[part.name]))
        for step in range(steps + 1):
            loss = body.gradient(batches) if step < steps else body.loss(batches)
            report(1)
            if loss < lowest:
                number, lowest = step, loss
                for name, gate in gates.items():
                    best[name].copy_(gate)
            if step < steps:
                with torch.no_grad():
                    for part in body.parts:
                        _step(part, gates[part.name], deltas[part.name], rate=rate)
    return best, number, lowest


def _step(part: Part, gate: torch.Tensor, delta: torch.Tensor, *, rate: float) -> None:
    """Descend on S; on the gate the two signs of the chain rule, of S and of gamma in S, cancel."""
    open_ = torch.sigmoid(gate)
    gate.sub_(part.gradient().mul(delta).mul_(open_ * (1 - open_)), alpha=rate)
    part.live.add_(torch.sigmoid(gate).sub_(open_).mul_(delta))
