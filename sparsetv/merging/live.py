"""A live model's scope at any vector from the base, and the base's again afterwards."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sparsetv.errors import NamesError, ProbeError
from sparsetv.merging.vectors import Tensors
from sparsetv.objective.body import Body, Part
from sparsetv.objective.device import precisely
from sparsetv.objective.loss import Inputs


@contextmanager
def at(body: Body, vector: Tensors, *, each: Callable[[Part, torch.Tensor], None] | None = None) -> Iterator[None]:
    """Tensors in scope stand at base plus vector and want gradients, dropout is off; afterwards they are the base's.

    Args:
        body: A live model.
        vector: Fine-tuned (or merged) minus base: exactly the tensors of the scope, any device.
        each: Is given each tensor and its gradient in the backward pass (`Body.tuning`).

    Raises:
        NamesError: The vector has other tensors than the scope.
    """
    check_scope(body, vector)
    with body.tuning(each=each):
        with torch.no_grad():
            for part in body.parts:
                part.live.add_(vector[part.name].to(body.device))
        yield


def check_scope(body: Body, vector: Tensors) -> None:
    """Refuse a vector that does not have exactly the tensors of a live model's scope.

    Raises:
        NamesError: It has fewer or others.
    """
    for name in sorted({part.name for part in body.parts} ^ set(vector)):
        raise NamesError(f"{name}: only one of the vector and the live model's scope has it; give both the same scope")


def unlabelled(batch: Inputs, device: torch.device) -> dict[str, torch.Tensor]:
    """What a model is given: a batch without labels, on its device."""
    return {name: tensor.to(device) for name, tensor in batch.items() if name != "labels"}


def predictions(body: Body, inputs: Inputs) -> torch.Tensor:
    """Logits of what a model is asked: a row per example, or per unmasked position where each has an answer.

    Args:
        body: A live model.
        inputs: What it takes, on its device.

    Returns:
        Shape (answers, classes), float32; gradients flow through it where they are enabled.

    Raises:
        ProbeError: The model gives no logits, or they are not finite.
    """
    with precisely(body.device, body.objective.precision):
        logits: Any = getattr(body.model(**inputs), "logits", None)
    if not isinstance(logits, torch.Tensor):
        raise ProbeError(f"{type(body.model).__name__} gives no logits, so it has no distribution over answers")
    if not bool(torch.isfinite(logits.detach()).all()):
        raise ProbeError("logits are not finite; check weights and data, or lower the rate")
    if logits.dim() == 3:
        mask = inputs.get("attention_mask")
        logits = logits.flatten(0, 1) if mask is None else logits[mask.bool()]
    rows: torch.Tensor = logits.float()
    return rows


def backward(body: Body, batch: Inputs, loss: Callable[[Body, Inputs], torch.Tensor]) -> float:
    """A loss of a batch without its labels, after its gradient arrived in the body's parts."""
    with torch.enable_grad():
        found = loss(body, unlabelled(batch, body.device))
        found.backward()  # type: ignore[no-untyped-call]
    return float(found.detach())
