"""Scales for several tasks at once: each merged model shall answer, up to shift and length, as its task alone does.

Fitting squared distances instead gives up the tasks that suffer most from company, whose distance can only grow with
their scale. Correlation asks for direction alone. Accuracy: benchmarks/README.md, suites.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from sparsetv.csr import SparseTensor
from sparsetv.errors import ProbeError
from sparsetv.objective.body import Body, Part
from sparsetv.objective.distil import PROJECTION, TARGET, outputs
from sparsetv.objective.loss import Inputs
from sparsetv.progress import Progress, counter
from sparsetv.rules import Rule, Term

STEPS = 60
RATE = 0.15
_DECAY = 0.9, 0.99
_WARM_UP = 5


@dataclass(frozen=True, slots=True)
class Member:
    """One task of a merge.

    Attributes:
        body: The scope of all tasks, as far as this task's model has it, in that model under the task's head, with
            batches whose targets are what the task alone answers.
        tensors: Kept deltas.
        weight: The user's weight.
        start: Scale to start from.
    """

    body: Body
    tensors: Mapping[str, SparseTensor]
    weight: float
    start: float


@dataclass(frozen=True, slots=True)
class Fit:
    """Scale per task, factor per tensor and task, and each task's last loss."""

    scales: tuple[float, ...]
    factors: tuple[dict[str, float], ...]
    losses: tuple[float, ...]


def fit(
    members: Sequence[Member],
    *,
    rule: Rule,
    per_tensor: bool = True,
    steps: int = STEPS,
    rate: float = RATE,
    progress: Progress | None = None,
) -> Fit:
    """Find scales by gradient descent on the sum of the tasks' losses.

    Args:
        members: Tasks in canonical order, each with a model of its own.
        rule: How tasks combine; differentiated as it stands.
        per_tensor: One scale per task and tensor, or one per task.
        steps: Steps of Adam on the logarithms of the scales, one batch per task and step.
        rate: Step size.
        progress: Reports steps.

    Returns:
        Scales (geometric mean over tensors, weighted by kept entries) and factors, rounded to 3 digits.

    Cost:
        A forward and a backward pass per step and task; beside models and activations one gradient of the scope and
        about 40 bytes per kept entry.
    """
    merge = _Merge.of(members, rule)
    width = len(merge.names) if per_tensor else 1
    logs = [torch.full((width,), math.log(member.start), requires_grad=True) for member in members]
    optimizer = torch.optim.Adam(logs, lr=rate, betas=_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / _WARM_UP) * (1 - step / max(steps, 1))
    )
    report = counter(progress, "joint", steps)
    found = [0.0] * len(members)
    with ExitStack() as live:
        for member in members:
            live.enter_context(member.body.tuning())
        for step in range(steps):
            optimizer.zero_grad()
            for number, member in enumerate(members):
                batches = member.body.objective.batches
                found[number] = merge.descend(member, logs, batches[step % len(batches)])
            optimizer.step()
            schedule.step()
            report(1)
    return _rounded(merge, logs, found)


def correlation(reached: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Pearson correlation of outputs over inputs and classes, each class less its mean over the inputs."""
    first, second = reached - reached.mean(dim=0), target - target.mean(dim=0)
    found: torch.Tensor = (first * second).sum() / (first.norm() * second.norm() + 1e-12)
    return found


@dataclass(slots=True, eq=False)
class _Shared:
    """One tensor that tasks keep entries of: the union of their positions, and each task's places and deltas there."""

    name: str
    index: torch.Tensor
    base: torch.Tensor
    members: list[int]
    where: list[torch.Tensor]
    deltas: list[torch.Tensor]

    def merged(self, coefficients: Sequence[torch.Tensor], rule: Rule) -> torch.Tensor:
        """New values at the union, shape (n,), with gradients into the coefficients of `members`."""
        terms = [Term(w, c * d) for w, c, d in zip(self.where, coefficients, self.deltas, strict=True)]
        device = self.base.device
        size = len(self.index)
        deltas, kept = rule(terms, size, lambda count, value: torch.full((count,), value, device=device))
        merged: torch.Tensor = torch.where(kept, self.base + deltas, self.base)
        return merged


@dataclass(slots=True, eq=False)
class _Merge:
    """All tensors that some task keeps entries of, and how they combine."""

    rule: Rule
    weights: list[float]
    names: list[str]
    shared: list[_Shared]

    @classmethod
    def of(cls, members: Sequence[Member], rule: Rule) -> "_Merge":
        body = members[0].body
        names = sorted({name for member in members for name, tensor in member.tensors.items() if tensor.nnz})
        shared = [_share(name, members, body) for name in names]
        return cls(rule, [member.weight for member in members], names, shared)

    def descend(self, member: Member, logs: Sequence[torch.Tensor], batch: Inputs) -> float:
        """Add the gradient of one task's loss over a batch to the logs; returns the loss."""
        scales = [log.exp().expand(len(self.names)) for log in logs]
        parts = {part.name: part for part in member.body.parts}
        there = [(number, shared) for number, shared in enumerate(self.shared) if shared.name in parts]
        values = [
            shared.merged([self.weights[m] * scales[m][number] for m in shared.members], self.rule)
            for number, shared in there
        ]
        places = [parts[shared.name].place.flat(shared.index) for _, shared in there]
        wholes = [parts[shared.name].place.tensor.view(-1) for _, shared in there]
        for whole, place, value in zip(wholes, places, values, strict=True):
            whole[place] = value.detach()
        loss = member.body.backward(batch)
        gradients = [_at(parts[shared.name], place) for (_, shared), place in zip(there, places, strict=True)]
        member.body.clear()
        for whole, place, (_, shared) in zip(wholes, places, there, strict=True):
            whole[place] = shared.base
        wanted = [value for value in values if value.requires_grad]
        torch.autograd.backward(wanted, [g for g, v in zip(gradients, values, strict=True) if v.requires_grad])
        return loss


def _share(name: str, members: Sequence[Member], body: Body) -> _Shared:
    keeping = [number for number, member in enumerate(members) if name in member.tensors and member.tensors[name].nnz]
    positions = [torch.from_numpy(members[number].tensors[name].positions) for number in keeping]
    index = torch.unique(torch.cat(positions))
    return _Shared(
        name=name,
        index=index.to(body.device),
        base=body.base(name).reshape(-1)[index.to(body.device)],
        members=keeping,
        where=[torch.searchsorted(index, own).to(body.device) for own in positions],
        deltas=[torch.from_numpy(members[number].tensors[name].values).to(body.device) for number in keeping],
    )


def _at(part: Part, place: torch.Tensor) -> torch.Tensor:
    gradient = part.parameter.grad
    return torch.zeros(len(place), device=place.device) if gradient is None else gradient.reshape(-1)[place]


def correlation_loss(model: torch.nn.Module, batch: Inputs) -> torch.Tensor:
    """`1 - correlation` with a batch's targets, as an objective's loss."""
    reached = outputs(model, batch, seed=int(batch[PROJECTION]))
    if len(reached) < 2:
        raise ProbeError("correlation needs two inputs or more in a batch")
    return 1 - correlation(reached, batch[TARGET])


def _rounded(merge: _Merge, logs: Sequence[torch.Tensor], found: Sequence[float]) -> Fit:
    scales, factors = [], []
    for number, log in enumerate(each.detach().expand(len(merge.names)) for each in logs):
        counts = torch.tensor(
            [len(s.deltas[s.members.index(number)]) if number in s.members else 0 for s in merge.shared]
        ).double()
        middle = float((log.double() * counts).sum() / counts.sum()) if counts.sum() else 0.0
        scales.append(_digits(math.exp(middle)))
        factors.append({
            shared.name: factor
            for at, shared in enumerate(merge.shared)
            if number in shared.members and (factor := _digits(math.exp(float(log[at]) - middle))) != 1
        })  # fmt: skip
    return Fit(tuple(scales), tuple(factors), tuple(found))


def _digits(number: float) -> float:
    return float(f"{number:.3g}")
