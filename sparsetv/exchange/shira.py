"""A SHiRA adapter as PEFT loads it: deltas of linear layers."""

import json
import re
from pathlib import Path

import numpy as np

from sparsetv import atomic
from sparsetv.arrays import Bytes, Positions
from sparsetv.csr import SparseTensor
from sparsetv.errors import CheckpointError
from sparsetv.exchange.files import Array, write_new_arrays
from sparsetv.exchange.outcome import LeftOut, corrections, keeping, no_place
from sparsetv.task_vector import SparseTaskVector

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ROOT = "base_model.model."
"""What PEFT puts before the model's own names."""

_EMBEDDING = re.compile(r"(^|\.)(\w*embed\w*|wte|wpe|shared|relative_attention_bias)(\.|$)")
_CONV1D = re.compile(r"(^|\.)(c_attn|c_proj|c_fc|q_attn)\.weight$")
_SIDE = 1 << 31


def write_shira(task: SparseTaskVector, directory: Path) -> tuple[LeftOut, ...]:
    """Write `adapter_config.json` and `adapter_model.safetensors`, for `PeftModel.from_pretrained(base, directory)`.

    It carries the weights of linear layers alone. Embeddings, biases, norms, GPT-2's `Conv1D`, tensors that are no
    matrices, and what the task carries are left out, and so are corrections: PEFT adds float32 deltas, so that a
    merged weight is `round(base + delta)`.

    PEFT wants `r * (rows + columns)` entries in every layer, with one r for all. Layers are filled up to that with
    entries of -0.0, which change no weight whatever. Layers are named as in the checkpoint, so the model must have
    them under these names: that of the base's class, where loading does not rename.

    Args:
        task: The task.
        directory: An empty directory.

    Raises:
        CheckpointError: No linear layer keeps an entry, or one r does not do for all of them.

    Reference:
        Bhardwaj et al., SHiRA, arXiv:2406.13175; PEFT, src/peft/tuners/shira.
    """
    tensors = keeping(task)
    reasons = {name: _reason(name, tensor) for name, tensor in tensors.items()}
    linear = {name: tensor for name, tensor in tensors.items() if reasons[name] is None}
    rank = _rank(linear)
    atomic.write_new_file(directory / CONFIG, [_config(linear, rank)])
    arrays = [array for name, tensor in linear.items() for array in _arrays(name, tensor, rank)]
    write_new_arrays(directory / WEIGHTS, arrays, metadata={})
    left = [LeftOut(name, tensors[name].nnz, reason) for name, reason in reasons.items() if reason is not None]
    return (*left, *no_place(task), *corrections(linear.values()))


def _reason(name: str, tensor: SparseTensor) -> str | None:
    """Why SHiRA has no place for a tensor."""
    if len(tensor.shape) != 2 or not name.endswith(".weight") or max(tensor.shape) >= _SIDE:
        return "no weight of a linear layer"
    if _EMBEDDING.search(name):
        return "an embedding"
    return "a Conv1D, which SHiRA does not take" if _CONV1D.search(name) else None


def _rank(linear: dict[str, SparseTensor]) -> int:
    """The least r at which every layer has room for its entries."""
    if not linear:
        raise CheckpointError("the task keeps no entry of a linear layer, and SHiRA carries nothing else")
    rank = max(-(-tensor.nnz // sum(tensor.shape)) for tensor in linear.values())
    for name, tensor in linear.items():
        if rank * sum(tensor.shape) > tensor.numel:
            raise CheckpointError(
                f"{name}: another layer keeps so much that SHiRA needs r = {rank}, which is {rank * sum(tensor.shape)} "
                f"entries here, and it has {tensor.numel}; lower the density, or leave it out of the scope"
            )
    return rank


def _config(linear: dict[str, SparseTensor], rank: int) -> bytes:
    modules = "|".join(re.escape(name.removesuffix(".weight")) for name in linear)
    config = {
        "base_model_name_or_path": None,
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_weights": True,
        "mask_type": "random",
        "modules_to_save": None,
        "peft_type": "SHIRA",
        "r": rank,
        "random_seed": None,
        "target_modules": f"({modules})",
        "task_type": None,
    }
    return (json.dumps(config, indent=2) + "\n").encode()


def _arrays(name: str, tensor: SparseTensor, rank: int) -> list[Array]:
    count, columns = rank * sum(tensor.shape), tensor.shape[1]

    def indices() -> Bytes:
        places = np.concatenate([tensor.positions, _free(tensor, count - tensor.nnz)])
        return np.stack(np.divmod(places, columns)).astype("<i4").reshape(-1).view(np.uint8)

    def weights() -> Bytes:
        padding = np.full(count - tensor.nnz, -0.0, np.float32)
        return np.concatenate([tensor.values, padding]).astype("<f4").view(np.uint8)

    module = ROOT + name.removesuffix(".weight")
    return [
        Array(f"{module}.shira_indices", "I32", (2, count), indices),
        Array(f"{module}.shira_weight", "F32", (count,), weights),
    ]


def _free(tensor: SparseTensor, count: int) -> Positions:
    """The first so many positions that are not kept."""
    first = np.arange(min(tensor.numel, count + tensor.nnz))
    return np.setdiff1d(first, tensor.positions, assume_unique=True)[:count]
