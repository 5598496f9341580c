"""A base of roberta-base shape with random weights, and fine-tunes of it, all seeded.

Tasks keep uniformly random entries; dense fine-tunes change every entry.
"""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from transformers import RobertaConfig, RobertaModel

from benchmarks.runtime import shapes
from sparsetv.csr import SparseTensor
from sparsetv.fingerprint import Fingerprint, TensorIdentity, digest, fingerprint
from sparsetv.models import quiet
from sparsetv.task_vector import FineTuned, Norms, Recipe, SparseTaskVector

DENSITY = 0.01
STEP = 1e-3
"""Standard deviation of deltas."""

Tensors = dict[str, torch.Tensor]


def config() -> Any:
    """roberta-base."""
    return RobertaConfig(
        vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5
    )


def base_directory(room: Path) -> Path:
    """A directory with the base as `save_pretrained` writes it; made where it is missing."""
    directory = room / "roberta"
    if not (directory / "model.safetensors").exists():
        torch.manual_seed(0)
        with quiet():
            RobertaModel(config()).save_pretrained(directory)
    return directory


def load_base(room: Path) -> Tensors:
    """The base's tensors by checkpoint name, in ascending order, copied into memory of their own."""
    loaded = load_file(base_directory(room) / "model.safetensors")
    found = {name: loaded[name].clone() for name in sorted(loaded)}
    if {name: tuple(tensor.shape) for name, tensor in found.items()} != shapes():
        raise SystemExit("this version of transformers gives RobertaModel other tensors than benchmarks.runtime lists")
    return found


def identities(tensors: Mapping[str, torch.Tensor]) -> list[TensorIdentity]:
    """Names, dtypes, shapes and hashes of float32 tensors on the CPU."""
    return [
        TensorIdentity(name, "F32", tuple(tensor.shape), hashlib.sha256(tensor.numpy().data).digest())
        for name, tensor in tensors.items()
    ]


def content(tensors: Mapping[str, torch.Tensor]) -> str:
    """One hash over the bits of all tensors."""
    return digest(identities(tensors))


def base_fingerprint(tensors: Mapping[str, torch.Tensor]) -> Fingerprint:
    """Fingerprint of a base for tasks that touch every tensor of it."""
    return fingerprint(identities(tensors), touched=tensors)


def task(base: Fingerprint, number: int) -> SparseTaskVector:
    """A task that keeps 1 % of each tensor, at least one entry, at uniformly random positions."""
    rng = np.random.default_rng([number, 1])
    tensors = {name: _tensor(rng, shape) for name, shape in zip(base.names, base.shapes, strict=True)}
    return SparseTaskVector(
        name=f"task-{number:02}",
        base=base,
        tensors=tensors,
        norms={name: _norms(tensor) for name, tensor in tensors.items()},
        extras={},
        files={},
        finetuned=FineTuned(),
        recipe=Recipe("magnitude", DENSITY, "tensor", "all", (), (), "exact"),
    )


def finetune(base: Tensors, number: int) -> Tensors:
    """A dense fine-tune: every entry changes, so that choosing the largest has real work to do.

    A change is normal times log-normal, of standard deviation 1e-3 and kurtosis 8.2 (a normal one has 3).
    """
    rng = np.random.default_rng([number, 2])
    return {name: weights + _changes(rng, weights.shape) for name, weights in base.items()}


def _changes(rng: np.random.Generator, shape: torch.Size) -> torch.Tensor:
    normal = rng.standard_normal(tuple(shape), np.float32)
    spread = np.exp(np.float32(0.5) * rng.standard_normal(tuple(shape), np.float32) - np.float32(0.25))
    return torch.from_numpy(np.float32(STEP) * normal * spread)


def _tensor(rng: np.random.Generator, shape: tuple[int, ...]) -> SparseTensor:
    size = math.prod(shape)
    positions = _positions(rng, size, max(1, round(DENSITY * size)))
    values = rng.standard_normal(len(positions), np.float32) * np.float32(STEP)
    return SparseTensor("F32", shape, positions, values)


def _norms(tensor: SparseTensor) -> Norms:
    """Norms of a task vector that is nothing but its kept entries, rounded as files have them."""
    l1, l2 = float(np.abs(tensor.values).sum()), float(np.sqrt(np.square(tensor.values).sum()))
    return Norms(float(f"{l1:.6g}"), float(f"{l2:.6g}"))


def _positions(rng: np.random.Generator, size: int, count: int) -> NDArray[np.int64]:
    """`count` distinct positions below `size`, ascending."""
    found = np.zeros(0, np.int64)
    while len(found) < count:
        found = np.unique(np.concatenate([found, rng.integers(size, size=count + count // 50 + 8)]))
    return np.sort(rng.permutation(found)[:count])
