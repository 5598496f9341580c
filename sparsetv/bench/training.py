"""A plain training loop: what fine-tunes are made with, and what continual training is compared to."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from sparsetv.errors import ProbeError, UsageError
from sparsetv.examples.encoding import MAX_LENGTH, Batch, encode
from sparsetv.examples.reading import Example
from sparsetv.objective.device import precisely
from sparsetv.objective.loss import Loss, task_loss
from sparsetv.progress import Progress, counter

OPTIMIZERS = ("adamw", "sgd")

Epoch = Callable[[int], Sequence[Batch]]
"""Batches of an epoch, counted from 0; as many in every epoch."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is trained.

    Attributes:
        optimizer: `adamw` or `sgd`.
        rate: Highest learning rate, which falls linearly to 0.
        epochs: Passes over the data.
        weight_decay: Of matrices; biases and norms have none.
        warmup: Share of the steps over which the rate rises from 0.
        momentum: Of SGD.
        frozen: Prefixes of names of parameters that stay, such as `embeddings`, with or without that of the model's
            body, such as `bert.`.
        precision: `fp32`, or `bf16` for matrix products in bfloat16.
        seed: Of dropout and the order of the data.
    """

    optimizer: str = "adamw"
    rate: float = 5e-5
    epochs: int = 3
    weight_decay: float = 0.01
    warmup: float = 0.1
    momentum: float = 0.0
    frozen: tuple[str, ...] = ()
    precision: str = "fp32"
    seed: int = 0


def train(
    model: nn.Module, epoch: Epoch, recipe: Recipe, *, loss: Loss = task_loss, progress: Progress | None = None
) -> list[float]:
    """Train a model in place, where its parameters are; it is left in evaluation mode, without gradients.

    The same recipe, model and batches give the same weights on one CPU with one number of threads. Torch's global
    generators are left as they were.

    Args:
        model: A transformers model, its parameters in float32.
        epoch: Gives the batches.
        recipe: How to train.
        loss: Mean loss over a batch.
        progress: Reports steps done.

    Returns:
        Mean loss over the batches of each epoch.

    Raises:
        UsageError: The recipe has an unknown optimizer, freezes nothing it names or everything there is, or an epoch
            has no batches.
        ProbeError: The loss is not finite.
    """
    device = next(model.parameters()).device
    with _learning(model, recipe) as learning, seeded(device, recipe.seed):
        batches = epoch(0)
        if not batches:
            raise UsageError("there is nothing to learn from: no batches")
        optimizer = _optimizer(learning, recipe)
        schedule = _schedule(optimizer, recipe, steps=recipe.epochs * len(batches))
        report = counter(progress, "train", recipe.epochs * len(batches))
        losses = []
        for number in range(recipe.epochs):
            total = 0.0
            for batch in batches if number == 0 else epoch(number):
                total += _step(model, batch, optimizer, loss, recipe.precision)
                schedule.step()
                report(1)
            losses.append(total / len(batches))
    return losses


def shuffled(
    model: nn.Module,
    processor: Any,
    examples: Sequence[Example],
    *,
    batch_size: int,
    max_length: int = MAX_LENGTH,
    seed: int = 0,
) -> Epoch:
    """Batches of examples in another random order each epoch, the same on every machine.

    Args:
        model: Takes the batches.
        processor: Its tokenizer or image processor.
        examples: With labels or completions.
        batch_size: Examples per batch; the last one of an epoch may have fewer.
        max_length: Longer texts are cut to so many tokens.
        seed: Of the orders.
    """

    def make(part: Sequence[Example]) -> Batch:
        return encode(model, processor, part, batch_size=batch_size, max_length=max_length)[0]

    def epoch(number: int) -> Sequence[Batch]:
        order = np.random.Generator(np.random.Philox(key=[seed, number])).random(len(examples)).argsort(kind="stable")
        chosen = [examples[int(index)] for index in order]
        return _Encoded([chosen[at : at + batch_size] for at in range(0, len(chosen), batch_size)], make)

    return epoch


class _Encoded(Sequence[Batch]):
    """Batches that are made when they are asked for, since images of an epoch need not fit into memory."""

    def __init__(self, parts: Sequence[Sequence[Example]], make: Callable[[Sequence[Example]], Batch]) -> None:
        self._parts, self._make = parts, make

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, index: Any) -> Any:
        return self._make(self._parts[index])


def _step(model: nn.Module, batch: Batch, optimizer: torch.optim.Optimizer, loss: Loss, precision: str) -> float:
    """One step; returns the batch's loss before it."""
    device = next(model.parameters()).device
    optimizer.zero_grad()
    with precisely(device, precision):
        value = loss(model, {name: tensor.to(device) for name, tensor in batch.items()})
    found = float(value.detach())
    if not np.isfinite(found):
        raise ProbeError(f"the loss is {found}; lower the rate, or check the data")
    torch.autograd.backward(value)
    optimizer.step()
    return found


@contextmanager
def _learning(model: nn.Module, recipe: Recipe) -> Iterator[list[nn.Parameter]]:
    """The parameters that are trained; inside they alone want gradients, and dropout is on."""
    named = dict(model.named_parameters())
    stay = {name for prefix in recipe.frozen for name in _beginning(model, prefix)}
    before = {name: parameter.requires_grad for name, parameter in named.items()}
    learning = [parameter for name, parameter in named.items() if name not in stay]
    if not learning:
        raise UsageError(f"nothing is left to train: {', '.join(recipe.frozen)} is all there is")
    try:
        for name, parameter in named.items():
            parameter.requires_grad_(name not in stay)
        model.train()
        yield learning
    finally:
        model.eval()
        for name, parameter in named.items():
            parameter.grad = None
            parameter.requires_grad_(before[name])


def _beginning(model: nn.Module, prefix: str) -> list[str]:
    """Names of parameters that begin with a prefix, at the top or in the model's body."""
    names = [name for name, _ in model.named_parameters()]
    body = f"{getattr(model, 'base_model_prefix', '')}."
    found = [name for name in names if name.startswith(prefix) or name.removeprefix(body).startswith(prefix)]
    if not found:
        raise UsageError(f"no parameter begins with {prefix!r}; the first is {names[0]}")
    return found


def _optimizer(learning: Sequence[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    groups = [
        {"params": [p for p in learning if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in learning if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.rate)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.rate, momentum=recipe.momentum)
    raise UsageError(f"unknown optimizer {recipe.optimizer!r}; known are {', '.join(OPTIMIZERS)}")


def _schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, *, steps: int) -> LambdaLR:
    """Up from 0 over the first share of the steps, then down to 0."""
    rising = round(recipe.warmup * steps)

    def share(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        return (steps - step) / max(steps - rising, 1)

    return LambdaLR(optimizer, share)


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Inside the block torch's generators start at a seed; afterwards they are back where they were."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        yield
