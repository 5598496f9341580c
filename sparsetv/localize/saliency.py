"""First-order saliency: how much the loss would change if an entry's change were undone."""

from collections.abc import Iterator

import torch

from sparsetv.arrays import Values
from sparsetv.errors import UsageError
from sparsetv.localize.live import as_scores, body_of, deltas_of
from sparsetv.localize.measure import localized
from sparsetv.localize.problem import Localized, Problem
from sparsetv.localize.ranking import rank
from sparsetv.progress import counter


def saliency(problem: Problem, *, signed: bool = False, points: int = 1) -> Localized:
    """Keep the entries of largest `|g * tau|`, g being the gradient of the loss.

    Args:
        problem: Task vector, density and objective.
        signed: Rank by `-g * tau` instead: only entries whose change lowers the loss. It overfits few examples.
        points: 1 takes g at the base; more average it over the midpoints of so many equal steps from base to
            fine-tune (integrated gradients).

    Returns:
        The mask; note `loss` is the mean loss at the points.

    Reference:
        ALGORITHMS, localizers; the released localizer is to first order a threshold on `-g * tau`. Path average:
        Sundararajan et al., arXiv:1703.01365, equation 3.

    Cost:
        A forward and a backward pass per point and batch; 3 copies of the scope beside activations: weights, deltas,
        gradient.
    """
    if points < 1:
        raise UsageError(f"saliency, points is {points}; give 1 or more")
    density, body = problem.needs_density("saliency"), body_of(problem, "saliency")
    batches = body.objective.batches
    deltas = deltas_of(problem, body)
    report = counter(problem.progress, "saliency", points * len(batches))
    share, loss, at = 1 / (points * len(batches)), 0.0, 0.0
    with body.tuning():
        for point in range(points):
            step = 0.0 if points == 1 else (point + 0.5) / points - at
            at += step
            with torch.no_grad():
                for part in body.parts:
                    part.live.add_(deltas[part.name], alpha=step)
            for batch in batches:
                loss += body.backward(batch, share=share) * share
                report(1)
        for part in body.parts:
            deltas[part.name] *= part.gradient()

    def scores(name: str) -> Iterator[Values]:
        yield from as_scores(-deltas[name] if signed else deltas[name].abs())

    found = rank(problem.sizes, scores, density=density, allocation=problem.allocation)
    return localized(problem, found, loss=loss)
