"""Train a classifier with AdamW under a one-cycle schedule."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import OneCycleLR


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a classifier is trained.

    Attributes:
        epochs: Passes over the data.
        batch_size: Images per step; the last step of an epoch may have fewer.
        learning_rate: Highest learning rate of the body.
        head_learning_rate: Highest learning rate of the head.
        epsilon: AdamW's epsilon. Entries whose gradient stays well below it hardly move.
        weight_decay: AdamW's decoupled weight decay.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    head_learning_rate: float
    epsilon: float
    weight_decay: float


def fit(model: nn.Module, recipe: Recipe, *, epoch: Callable[[], tuple[Tensor, Tensor]]) -> None:
    """Train a `ViTForImageClassification` in place; order of the images is drawn from torch's global generator.

    Args:
        model: Its modules are `vit` and `classifier`.
        recipe: How to train.
        epoch: Called once per pass; gives float32 images (n, 1, 8, 8) and int64 labels (n,), with the same n each time.

    Reference:
        Loshchilov and Hutter, arXiv:1711.05101 (AdamW); Smith and Topin, arXiv:1708.07120 (one cycle).
    """
    optimizer = _optimizer(model, recipe)
    schedule: OneCycleLR | None = None
    model.train()
    for _ in range(recipe.epochs):
        images, labels = epoch()
        batches = torch.split(torch.randperm(len(images)), recipe.batch_size)
        schedule = schedule or _one_cycle(optimizer, recipe, steps=recipe.epochs * len(batches))
        for batch in batches:
            loss = cross_entropy(model(pixel_values=images[batch]).logits, labels[batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    model.eval()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside the block torch's CPU generator starts at `seed`; afterwards it is back where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    groups = [{"params": list(model.get_submodule(name).parameters())} for name in ("vit", "classifier")]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, eps=recipe.epsilon, weight_decay=recipe.weight_decay)


def _one_cycle(optimizer: torch.optim.Optimizer, recipe: Recipe, *, steps: int) -> OneCycleLR:
    return OneCycleLR(
        optimizer, max_lr=[recipe.learning_rate, recipe.head_learning_rate], total_steps=steps, pct_start=0.2
    )
