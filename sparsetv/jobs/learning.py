"""What masks and values are learned from: a task's examples, or random inputs and the fine-tune's own answers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sparsetv.compose.base import base_of
from sparsetv.compose.weights import Carrier
from sparsetv.difference import TaskVector
from sparsetv.jobs.models import find_processor, frame, task_model, whole_model

if TYPE_CHECKING:
    import torch
    from torch import nn

    from sparsetv.examples.reading import Example
    from sparsetv.objective.loss import Inputs, Objective

RANDOM = "random"
"""`data` that stands for random inputs."""

_EMBEDDING = re.compile(r"(^|\.)(\w*embed\w*|wte|shared)\.")


@dataclass(frozen=True, slots=True)
class Learn:
    """What is learned from, and how models run.

    Attributes:
        data: JSON lines or a data set of the hub (`sparsetv.examples.reading`), or `random`: random inputs, on which
            the fine-tune's outputs are the target.
        shots: Examples per class, chosen at random; None for all.
        target: `labels` for the task's own loss, `finetuned` for the distance from the fine-tune's outputs; examples
            without labels, and random inputs, always have the latter.
        batch_size: Examples per step.
        batches: Batches of random inputs.
        max_length: Longer texts are cut to so many tokens.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: `fp32`, or `bf16` for matrix products in bfloat16.
        checkpointing: Recompute activations in the backward pass: less memory, more time.
        columns: Names of the data's columns by those of `read_examples`; empty where they are the same.
    """

    data: str | Path = RANDOM
    shots: int | None = 64
    target: str = "labels"
    batch_size: int = 16
    batches: int = 16
    max_length: int = 128
    device: str = "auto"
    precision: str = "fp32"
    checkpointing: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)


def make_objective(vector: TaskVector, task: Carrier, learn: Learn, *, seed: int) -> "Objective":
    """A live model of the base under the fine-tune's head, batches, and a loss.

    Raises:
        ProbeError: The model cannot be built, or has no tokenizer.
        NotFoundError, FormatError: Of the examples.
        UsageError: An unknown device, precision or target, or a label that the model lacks.
    """
    from sparsetv.objective.device import find_device  # noqa: PLC0415  torch only where a model runs
    from sparsetv.objective.distil import Distance, with_targets  # noqa: PLC0415
    from sparsetv.objective.loss import Objective  # noqa: PLC0415

    device = find_device(learn.device)
    model = task_model(base_of(vector.base, {}), task, None).to(device)
    batches = _noise(vector, model, learn, seed) if str(learn.data) == RANDOM else _examples(vector, model, learn, seed)
    if learn.target == "labels" and all("labels" in batch for batch in batches):
        return Objective(model, batches, checkpointing=learn.checkpointing, precision=learn.precision)
    teacher = whole_model(task, vector.finetuned).to(device)
    aimed = with_targets(teacher, batches, precision=learn.precision)
    return Objective(model, aimed, Distance(model, aimed), learn.checkpointing, learn.precision)


def _noise(vector: TaskVector, model: "nn.Module", learn: Learn, seed: int) -> "Sequence[Inputs]":
    from sparsetv.objective.noise import Noise  # noqa: PLC0415
    from sparsetv.objective.setup import choose_setup  # noqa: PLC0415

    setup = choose_setup(model, frame=frame(vector.finetuned), seed=seed)
    weights = _tokens_seen(vector, setup.params.get("vocabulary"))
    return Noise(setup, batches=learn.batches, batch_size=learn.batch_size, weights=weights)


def _tokens_seen(vector: TaskVector, vocabulary: object) -> NDArray[np.float64] | None:
    """How much fine-tuning moved each token's embedding, shape (vocabulary,); None where it moved none."""
    for name in vector.comparable():
        shape = vector.base.shape(name)
        if len(shape) == 2 and shape[0] == vocabulary and _EMBEDDING.search(name):
            squares = np.concatenate([np.square(chunk.deltas()) for chunk in vector.chunks(name)])
            moved: NDArray[np.float64] = np.sqrt(squares.reshape(shape).sum(axis=1, dtype=np.float64))
            return moved if np.isfinite(moved).all() and moved.any() else None
    return None


def _examples(vector: TaskVector, model: "nn.Module", learn: Learn, seed: int) -> "list[dict[str, torch.Tensor]]":
    from sparsetv.examples.encoding import encode  # noqa: PLC0415
    from sparsetv.examples.reading import read_examples  # noqa: PLC0415
    from sparsetv.examples.sampling import sample  # noqa: PLC0415

    chosen: list[Example] = sample(
        read_examples(learn.data, labelled=False, columns=learn.columns), shots=learn.shots, seed=seed
    )
    if learn.target == "finetuned":
        chosen = [replace(example, label=None) for example in chosen]
    images = chosen[0].kind == "image"
    sources = (vector.finetuned.location.directory, vector.base.location.directory)
    processor = find_processor(*sources, images=images)
    return encode(model, processor, chosen, batch_size=learn.batch_size, max_length=learn.max_length)
