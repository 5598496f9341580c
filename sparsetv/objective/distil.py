"""A fine-tune's own outputs as what is asked of a model: no labels, and on random inputs no data at all."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from sparsetv.errors import ProbeError
from sparsetv.objective.device import precisely
from sparsetv.objective.loss import Inputs

WIDTH = 64
"""Wider logits are projected at random, anew in every batch, which keeps squared distances on average."""

TARGET, PROJECTION = "target", "projection"
"""What batches carry beside inputs: the teacher's outputs, and the seed that projected them."""


def outputs(model: nn.Module, inputs: Inputs, *, seed: int) -> torch.Tensor:
    """What a model answers: logits less their mean over classes, else the last hidden state.

    Args:
        model: A transformers model.
        inputs: What it takes.
        seed: Of the projection of logits over a vocabulary.

    Returns:
        Shape (n, width), float32: n inputs, or n unmasked positions where every position has an answer.

    Raises:
        ProbeError: The model has neither logits nor a last hidden state.
    """
    result: Any = model(
        **{name: tensor for name, tensor in inputs.items() if name not in {TARGET, PROJECTION, "labels"}}
    )
    answer = getattr(result, "logits", None)
    centred = answer is not None
    if answer is None:
        answer = getattr(result, "last_hidden_state", None)
    if not isinstance(answer, torch.Tensor):
        raise ProbeError(f"{type(model).__name__} gives neither logits nor hidden states")
    if answer.dim() > 2:
        mask = inputs.get("attention_mask")
        flat = answer.flatten(1, -2)
        answer = flat[mask.bool()] if mask is not None and mask.shape == flat.shape[:2] else flat.flatten(0, 1)
    answer = answer.float()
    if centred and answer.shape[-1] > 1:
        answer = answer - answer.mean(dim=-1, keepdim=True)
    return answer if answer.shape[-1] <= WIDTH or not centred else answer @ _projection(answer, seed)


def _projection(answer: torch.Tensor, seed: int) -> torch.Tensor:
    """Matrix of +-1/8, shape (classes, 64), the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    signs: torch.Tensor = (
        torch.randint(0, 2, (answer.shape[-1], WIDTH), generator=generator, dtype=torch.float32) * 2 - 1
    )
    return signs.div(WIDTH**0.5).to(answer.device)


def with_targets(teacher: nn.Module, batches: Iterable[Inputs], *, precision: str = "fp32") -> list[Inputs]:
    """Batches that carry the teacher's outputs, so that the teacher need not be kept."""
    device = next(teacher.parameters()).device
    made: list[Inputs] = []
    with torch.no_grad(), precisely(device, precision):
        for seed, batch in enumerate(batches):
            moved = {name: tensor.to(device) for name, tensor in batch.items()}
            target = outputs(teacher, moved, seed=seed).cpu()
            if not bool(torch.isfinite(target).all()):
                raise ProbeError("the fine-tune's outputs on these inputs are not finite")
            made.append({**batch, TARGET: target, PROJECTION: torch.tensor(seed)})
    return made


class Distance:
    """Loss: squared distance of a model's outputs from the teacher's, over that of the base's.

    1 at the base, 0 where nothing is missing.

    Args:
        base: The model at the base.
        batches: From `with_targets`; the first few tell how far the teacher is.

    Raises:
        ProbeError: The teacher answers as the base does.
    """

    def __init__(self, base: nn.Module, batches: Sequence[Inputs]) -> None:
        device = next(base.parameters()).device
        with torch.no_grad():
            apart = [self._distance(base, {k: v.to(device) for k, v in batch.items()}) for batch in batches[:8]]
        self._whole = float(sum(apart)) / len(apart)
        if not self._whole > 0:
            raise ProbeError("fine-tuning changed no output on these inputs; there is nothing to learn from")

    def __call__(self, model: nn.Module, batch: Inputs) -> torch.Tensor:
        """The loss over one batch."""
        return self._distance(model, batch) / self._whole

    @staticmethod
    def _distance(model: nn.Module, batch: Inputs) -> torch.Tensor:
        reached = outputs(model, batch, seed=int(batch[PROJECTION]))
        distance: torch.Tensor = (reached - batch[TARGET]).square().mean()
        return distance
