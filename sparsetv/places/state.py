"""A live model's tensors by the names that its class gives them, whatever it is wrapped in."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from sparsetv.errors import ShapeError

_COMPILED = "_orig_mod."
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, slots=True)
class State:
    """A model without its wrappers.

    Attributes:
        model: The model itself.
        tensors: Parameters and buffers by name in the model itself, each under all its names; detached.
        names: Name in the wrapped model per name in the model itself.
    """

    model: nn.Module
    tensors: Mapping[str, torch.Tensor]
    names: Mapping[str, str]

    @property
    def kind(self) -> str:
        """Name of the model's class."""
        return type(self.model).__name__


def unwrap(model: nn.Module) -> State:
    """The tensors of a model that `torch.compile` (whole or in parts) or data parallelism may wrap."""
    inner, prefix = model, ""
    while True:
        if isinstance(inner, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner, prefix = inner.get_submodule("module"), prefix + "module."
        elif isinstance(getattr(inner, "_orig_mod", None), nn.Module):
            inner, prefix = inner.get_submodule("_orig_mod"), prefix + _COMPILED
        else:
            break
    found = [*inner.named_parameters(remove_duplicate=False), *inner.named_buffers(remove_duplicate=False)]
    return State(
        inner,
        {name.replace(_COMPILED, ""): tensor.detach() for name, tensor in found},
        {name.replace(_COMPILED, ""): prefix + name for name, _ in found},
    )


def check_writable(tensor: torch.Tensor, *, name: str, parameter: str) -> None:
    """Refuse a live tensor that deltas cannot be added to at flat positions.

    Args:
        tensor: The live tensor, detached.
        name: The checkpoint tensor that it holds, for the message.
        parameter: The live tensor's name, for the message.

    Raises:
        ShapeError: It has no data, is quantized or sharded, or is not contiguous.
    """
    where = f"{parameter} (of {name} in the checkpoint)"
    if tensor.is_meta:
        raise ShapeError(f"{where} is on the meta device and has no data; load the model without offloading")
    if type(tensor) is not torch.Tensor:
        raise ShapeError(
            f"{where} is a {type(tensor).__name__}, expected a plain tensor; load the model without quantization "
            f"and unsharded"
        )
    if tensor.dtype not in _FLOATS:
        raise ShapeError(
            f"{where} has dtype {tensor.dtype}, expected one of {', '.join(map(str, _FLOATS))}; "
            f"load the model without quantization"
        )
    if not tensor.is_contiguous():
        raise ShapeError(
            f"{where} is not contiguous (shape {tuple(tensor.shape)}, strides {tensor.stride()}); "
            f"make it so with model.to(memory_format=torch.contiguous_format) or parameter.data.contiguous()"
        )
