"""Continual training: one body trained on task after task, each under its fine-tune's head."""

from collections.abc import Sequence

import torch

from sparsetv.bench.lab import Lab
from sparsetv.bench.method import Merged
from sparsetv.bench.training import Recipe, train
from sparsetv.merging.vectors import Tensors

EPOCHS, RATE, BATCH = 1, 5e-5, 32


def continual_training(lab: Lab, names: Sequence[str]) -> Merged:
    """Train the base on all tasks in turn."""
    deltas: Tensors = {}
    for name in names:
        deltas = train_next(lab, deltas, name)
    return Merged(dict.fromkeys(names, deltas), {"epochs": EPOCHS, "rate": RATE})


def train_next(lab: Lab, deltas: Tensors, name: str) -> dict[str, torch.Tensor]:
    """Train a body, given as merged minus base, on one more task's training data; the head stays the fine-tune's."""
    subject, suite = lab.subject(name), lab.suite
    recipe = Recipe(rate=RATE, epochs=EPOCHS, frozen=subject.head, precision=suite.precision, seed=suite.seed)
    subject.set(deltas)
    train(subject.model, subject.shuffled(BATCH), recipe, progress=lab.progress)
    return subject.moved()
