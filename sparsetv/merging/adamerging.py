"""AdaMerging: coefficients of task vectors learned without labels, by making predictions certain."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch

from sparsetv.errors import UsageError
from sparsetv.merging.live import backward, check_scope, predictions
from sparsetv.merging.vectors import Tensors, check_vectors
from sparsetv.objective.body import Body, Part
from sparsetv.objective.loss import Inputs
from sparsetv.progress import Progress

Lambdas = dict[str, tuple[float, ...]]
"""A coefficient per task, by tensor."""


def adamerging(
    bodies: Sequence[Body],
    vectors: Sequence[Tensors],
    *,
    steps: int = 500,
    rate: float = 1e-3,
    start: float = 0.3,
    layerwise: bool = True,
    progress: Progress | None = None,
) -> tuple[dict[str, torch.Tensor], Lambdas]:
    """Minimise the entropy of predictions over the coefficients of `base + sum lambda_i tau_i`.

    Args:
        bodies: One live model per task, under its own head, all on one device; their batches are the inputs, taken in
            turn, one per task and step. Labels are not used.
        vectors: Task vectors over the bodies' scope, fine-tuned minus base.
        steps: Steps of Adam on the sum of all tasks' mean entropies.
        rate: Learning rate.
        start: Where every coefficient starts.
        layerwise: One coefficient per tensor and task, the finest reading of the paper's layers; else one per task.
        progress: Called after each step, with the step's entropy in the text.

    Returns:
        (merged minus base, new tensors; coefficients by tensor, in the tasks' order). Those of tensors that no output
        depends on, such as key biases under a softmax, drift, since Adam makes whole steps of rounding errors.

    Raises:
        UsageError: Other than one body per task, or negative steps.
        NamesError: A body's scope has other tensors than the vectors.
        ProbeError: A model gives no logits, or they are not finite: the rate is too high.
        UsageError, NamesError, ShapeError: The vectors do not fit together.

    Reference:
        Yang et al., AdaMerging, arXiv:2310.02575, equations 4 to 6 (task-wise and layer-wise), section 4.1 for the
        optimizer. By the chain rule a coefficient's gradient is the scalar product of the weights' gradient and the
        task vector, so that no graph runs through the merge.

    Cost:
        A forward and a backward pass per task and step, and a scalar product per pair of tasks. Memory beside models
        and vectors: the base, the result, one tensor's gradient, one batch's activations.
    """
    names = check_vectors(vectors)
    if len(bodies) != len(vectors) or steps < 0:
        raise UsageError(f"{len(bodies)} live models for {len(vectors)} tasks, {steps} steps; give one model per task")
    for body in bodies:
        check_scope(body, vectors[0])
    columns = {name: column if layerwise else 0 for column, name in enumerate(names)}
    device = bodies[0].device
    table = torch.full((len(vectors), max(columns.values(), default=0) + 1), start, device=device)
    there = [{name: tensor.to(device) for name, tensor in vector.items()} for vector in vectors]
    state = _State(bodies, there, {name: bodies[0].base(name) for name in names}, columns, table)
    optimizer = torch.optim.Adam([table], lr=rate)
    with state.tuning():
        for step in range(steps):
            total = state.descend(step, optimizer)
            if progress is not None:
                progress(f"coefficients, entropy {total:.4f}", step + 1, steps)
    lambdas = table.tolist()
    found = {name: tuple(row[columns[name]] for row in lambdas) for name in names}
    return {name: state.moved(name) for name in names}, found


def entropy(body: Body, inputs: Inputs) -> torch.Tensor:
    """Mean entropy of a model's predictions over one batch, in nats; a tensor of one number."""
    logs = predictions(body, inputs).log_softmax(dim=-1)
    mean: torch.Tensor = -(logs.exp() * logs).sum(dim=-1).mean()
    return mean


@dataclass(frozen=True, slots=True)
class _State:
    """Live models on the way.

    Attributes:
        bodies: One per task.
        vectors: Task vectors on the models' device.
        base: The base's tensors, there too.
        columns: Column of a tensor's coefficients in the table.
        table: Coefficients, shape (tasks, columns), float32; `grad` holds what hooks add up.
    """

    bodies: Sequence[Body]
    vectors: Sequence[Tensors]
    base: Tensors
    columns: Mapping[str, int]
    table: torch.Tensor

    @contextmanager
    def tuning(self) -> Iterator[None]:
        """All models hand over their gradients; afterwards they hold the base."""
        with ExitStack() as stack:
            for body in self.bodies:
                stack.enter_context(body.tuning(each=self._project))
            yield

    def descend(self, step: int, optimizer: torch.optim.Optimizer) -> float:
        """One step; the tasks' mean entropies before it, added up."""
        self._place()
        self.table.grad = torch.zeros_like(self.table)
        turns = [body.objective.batches[step % len(body.objective.batches)] for body in self.bodies]
        total = sum(backward(body, batch, entropy) for body, batch in zip(self.bodies, turns, strict=True))
        optimizer.step()
        return total

    def moved(self, name: str) -> torch.Tensor:
        """`sum lambda_i tau_i` of one tensor; new."""
        lambdas = self.table[:, self.columns[name]].tolist()
        merged: torch.Tensor = self.vectors[0][name] * lambdas[0]
        for vector, factor in zip(self.vectors[1:], lambdas[1:], strict=True):
            merged.add_(vector[name], alpha=factor)
        return merged

    def _place(self) -> None:
        """Put base plus what is merged now into every model."""
        parts = [{part.name: part for part in body.parts} for body in self.bodies]
        with torch.no_grad():
            for name in self.columns:
                weights = self.moved(name).add_(self.base[name])
                for live in parts:
                    live[name].live.copy_(weights)

    def _project(self, part: Part, gradient: torch.Tensor) -> None:
        """Add a tensor's share to the coefficients' gradients."""
        flat, slopes = gradient.reshape(-1), self.table.grad
        if slopes is not None:
            for task, vector in enumerate(self.vectors):
                slopes[task, self.columns[part.name]] += torch.dot(flat, vector[part.name].reshape(-1))
