"""What the localizers that learn have in common: the live scope, and scores on the way from device to ranking."""

from collections.abc import Iterator

import numpy as np
import torch

from sparsetv.arrays import Positions, Values
from sparsetv.difference import CHUNK
from sparsetv.localize.magnitude import magnitude
from sparsetv.localize.measure import localized
from sparsetv.localize.problem import Localized, Problem
from sparsetv.localize.ranking import rank
from sparsetv.objective.body import Body, delta_of


def body_of(problem: Problem, method: str) -> Body:
    """The scope in the objective's model.

    Raises:
        UsageError: There is no objective.
    """
    return Body(problem.vector.base, problem.names, problem.needs_objective(method), device=problem.device)


def deltas_of(problem: Problem, body: Body) -> dict[str, torch.Tensor]:
    """The whole task vector by tensor, float32, on the model's device."""
    return {part.name: delta_of(problem.vector, part.name, body.device) for part in body.parts}


def as_scores(tensor: torch.Tensor) -> Iterator[Values]:
    """A tensor's entries in order, a piece at a time on the CPU, so that masks are made alike on every device."""
    for piece in torch.split(tensor.reshape(-1), CHUNK):
        yield piece.cpu().numpy()


def start_mask(problem: Problem, body: Body, *, density: float) -> dict[str, torch.Tensor]:
    """The magnitude mask that learning starts from, of one entry or more: bool, by tensor, on the model's device."""
    found = magnitude(problem.at(max(density, 1 / sum(problem.sizes.values())))).mask
    return {
        part.name: _dense(found.positions[part.name], part.live.numel(), body.device).reshape(part.live.shape)
        for part in body.parts
    }


def _dense(positions: Positions, size: int, device: torch.device) -> torch.Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[torch.from_numpy(np.asarray(positions))] = True
    return mask.to(device)


def choose(problem: Problem, gates: dict[str, torch.Tensor], **notes: float) -> Localized:
    """The mask of learned gates: the highest, as many as the density says, or all above 0, where their sigmoid is 1/2.

    Args:
        problem: Scope and density.
        gates: One per entry, by tensor.
        notes: What to report; `own_density` is added, the share above 0.
    """
    own = sum(int((gate > 0).sum()) for gate in gates.values()) / sum(problem.sizes.values())

    def scores(name: str) -> Iterator[Values]:
        yield from as_scores(gates[name])

    if problem.density is not None:
        found = rank(problem.sizes, scores, density=problem.density, allocation=problem.allocation)
    else:
        found = {n: torch.nonzero(gates[n].reshape(-1) > 0).reshape(-1).cpu().numpy() for n in problem.names}
    return localized(problem, found, **notes, own_density=own)
