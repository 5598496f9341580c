"""RegMean: each linear layer is the least-squares fit to what all fine-tunes' layers give for their own inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from sparsetv.errors import NamesError, UsageError
from sparsetv.merging.live import at, unlabelled
from sparsetv.merging.vectors import Tensors, check_vectors, mean
from sparsetv.objective.body import Body, Part
from sparsetv.objective.device import precisely
from sparsetv.progress import Progress, counter

RIDGE = 1e-9
"""Added to a Gram matrix's diagonal, times its mean: inputs that no task ever used get the simple average."""


@dataclass(frozen=True, slots=True)
class Gram:
    """Second moments of a linear layer's inputs.

    Attributes:
        matrix: Mean over counted positions of `x x^T`, shape (inputs, inputs), float32.
        axis: Dimension of the layer's weight that inputs lie along: 1 as in `nn.Linear`, 0 as in GPT-2's `Conv1D`.
    """

    matrix: torch.Tensor
    axis: int


@dataclass(slots=True)
class _Counter:
    """Adds up `x x^T` as a layer's inputs come by."""

    axis: int
    total: torch.Tensor
    rows: int = 0
    mask: torch.Tensor | None = None

    def __call__(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Hook before the layer's forward pass."""
        counted = _counted(inputs[0].detach(), self.mask)
        self.total.addmm_(counted.T, counted)
        self.rows += len(counted)


def grams(body: Body, vector: Tensors, *, progress: Progress | None = None) -> dict[str, Gram]:
    """Gram matrices of the inputs that a fine-tune's linear layers see.

    Padding counts nowhere: where inputs have a sequence dimension, positions that `attention_mask` leaves out are left
    out; where they have none, as in a pooler, each example counts once.

    Args:
        body: The task's live model, whose batches are the examples; labels are not used.
        vector: Fine-tuned minus base over the body's scope.
        progress: Called after each batch.

    Returns:
        For each tensor in scope that is a linear layer's weight, all of it or the rows of some outputs.

    Raises:
        NamesError: The vector has other tensors than the scope.

    Reference:
        Jin et al., Dataless knowledge fusion by merging weights of language models, arXiv:2212.09849, section 4.

    Cost:
        A forward pass per batch, and one product of (inputs, positions) by (positions, inputs) per layer. Memory of
        the result and one batch's activations.
    """
    counters = {part.name: found for part in body.parts if (found := _counter(body, part)) is not None}
    hooks = [
        body.model.get_submodule(_module_of(part)).register_forward_pre_hook(counters[part.name])
        for part in body.parts
        if part.name in counters
    ]
    report = counter(progress, "inputs of linear layers", len(body.objective.batches))
    try:
        with at(body, vector), torch.no_grad(), precisely(body.device, body.objective.precision):
            for batch in body.objective.batches:
                inputs = unlabelled(batch, body.device)
                for found in counters.values():
                    found.mask = inputs.get("attention_mask")
                body.model(**inputs)
                report(1)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: Gram(found.total.div_(found.rows), found.axis) for name, found in counters.items() if found.rows}


def regmean(
    vectors: Sequence[Tensors], grams_per_task: Sequence[Mapping[str, Gram]], *, shrink: float = 0.9
) -> dict[str, torch.Tensor]:
    """Solve for every linear weight, `W = (sum G_i)^-1 sum G_i W_i`; average everything else.

    The solution is linear in the weights, so that with task vectors in place of weights it is merged minus base.

    Args:
        vectors: Task vectors, fine-tuned minus base.
        grams_per_task: From `grams`, one per task.
        shrink: What off-diagonal entries of the Gram matrices are multiplied with, in [0, 1]: 0 weighs inputs one by
            one, 1 is the least-squares fit itself.

    Returns:
        Merged minus base, float32; new tensors.

    Raises:
        UsageError: Other than one set of Gram matrices per task, or `shrink` outside [0, 1].
        NamesError: The tasks' Gram matrices are of different layers.
        UsageError, NamesError, ShapeError: The vectors do not fit together.

    Reference:
        Jin et al., arXiv:2212.09849, equation 2, and section 4.2 for off-diagonal entries.

    Cost:
        Solved in float64 by Cholesky: O(inputs^3) time and 4 matrices of (inputs, inputs) for a moment, per layer.
    """
    if len(grams_per_task) != len(vectors):
        raise UsageError(f"{len(vectors)} tasks, {len(grams_per_task)} sets of Gram matrices; give one per task")
    if not 0 <= shrink <= 1:
        raise UsageError(f"shrink is {shrink}; it must lie in [0, 1]")
    names = check_vectors(vectors)
    for other in grams_per_task:
        for name in sorted(set(other) ^ set(grams_per_task[0])):
            raise NamesError(f"{name}: only some tasks have a Gram matrix for it; count inputs of the same layers")
    solved = set(grams_per_task[0]) & set(names)
    merged = mean([{n: t for n, t in vector.items() if n not in solved} for vector in vectors])
    for name in sorted(solved):
        merged[name] = _solve([v[name] for v in vectors], [g[name] for g in grams_per_task], shrink)
    return {name: merged[name] for name in names}


def _module_of(part: Part) -> str:
    return part.place.parameter.rpartition(".")[0]


def _counter(body: Body, part: Part) -> _Counter | None:
    """A counter for a tensor that is the weight of a linear layer, alone in its parameter or fused along outputs."""
    if part.live.dim() != 2 or not part.place.parameter.endswith("weight"):
        return None
    module = body.model.get_submodule(_module_of(part))
    axis = 1 if isinstance(module, nn.Linear) else 0 if isinstance(module, Conv1D) else None
    if axis is None or part.live.shape[axis] != part.parameter.shape[axis] or part.place.strides[1] > 1:
        return None  # a part of the inputs, or a weight that is transposed on loading
    width = part.live.shape[axis]
    return _Counter(axis, torch.zeros(width, width, device=body.device))


def _counted(inputs: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Inputs at unmasked positions, shape (positions, width), float32."""
    if mask is not None and inputs.shape[:-1] == mask.shape:
        return inputs[mask.bool()].float()
    return inputs.reshape(-1, inputs.shape[-1]).float()


def _solve(deltas: Sequence[torch.Tensor], found: Sequence[Gram], shrink: float) -> torch.Tensor:
    """One linear layer's merged weight minus the base's, in the weight's own shape."""
    left: torch.Tensor | None = None
    right: torch.Tensor | None = None
    for delta, gram in zip(deltas, found, strict=True):
        matrix = gram.matrix.to(delta.device, torch.float64)
        diagonal = matrix.diagonal().clone()
        matrix = matrix * shrink
        matrix.diagonal().copy_(diagonal + RIDGE * diagonal.mean() + torch.finfo(torch.float32).tiny)
        product = matrix @ (delta.T if gram.axis == 1 else delta).double()
        left, right = (matrix, product) if left is None or right is None else (left.add_(matrix), right.add_(product))
    if left is None or right is None:
        raise UsageError("there is nothing to merge: no task vectors")
    solution = torch.cholesky_solve(right, torch.linalg.cholesky(left)).float()
    return (solution.T if found[0].axis == 1 else solution).contiguous()
