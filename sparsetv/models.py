"""Live transformers models from named tensors; the only place that builds a model class."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn

from sparsetv.arrays import Bytes
from sparsetv.errors import ProbeError

_TORCH = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32,
    "I64": torch.int64, "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
}  # fmt: skip


def to_torch(data: Bytes, dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Bytes of a tensor as a torch tensor; copies."""
    if dtype not in _TORCH:
        raise ProbeError(f"dtype {dtype} cannot be run")
    return torch.from_numpy(np.frombuffer(bytearray(data), np.uint8)).view(_TORCH[dtype]).reshape(shape)


def build_model(config: Mapping[str, Any], tensors: dict[str, torch.Tensor]) -> nn.Module:
    """The model that a configuration names, in float32, on the CPU, in evaluation mode.

    Args:
        config: Contents of `config.json`, with `architectures`.
        tensors: Weights under the checkpoint's own names.

    Raises:
        ProbeError: The configuration names no class that transformers has, or the weights do not fill it.
    """
    loader: Any = find_class(config)
    name = loader.__name__
    with quiet():
        try:
            parsed = transformers.AutoConfig.for_model(**dict(config))
            model, info = loader.from_pretrained(
                None, config=parsed, state_dict=tensors, dtype=torch.float32, output_loading_info=True
            )
        except Exception as error:  # transformers raises anything at all for weights that do not fit
            raise ProbeError(f"{name} cannot be built from these weights ({error})") from error
    missing = sorted(info["missing_keys"]) or sorted(map(str, info["mismatched_keys"]))
    if missing:
        raise ProbeError(f"{name} needs {missing[0]}, which these weights do not give")
    model.eval()
    if getattr(model.config, "use_cache", False):
        model.config.use_cache = False  # nothing here generates text; a cache would only take memory
    built: nn.Module = model
    return built


def find_class(config: Mapping[str, Any]) -> type[nn.Module]:
    """The transformers class that a configuration names first.

    Raises:
        ProbeError: It names none that transformers has.
    """
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    cls = getattr(transformers, name, None) if isinstance(name, str) else None
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)) or not isinstance(config.get("model_type"), str):
        raise ProbeError(f"config.json names no transformers class (architectures: {names or 'none'})")
    return cls


def is_causal(model: nn.Module) -> bool:
    """Whether a model predicts the next token of a text."""
    return type(model).__name__.endswith(("ForCausalLM", "LMHeadModel"))


def parse_config(content: bytes) -> dict[str, Any]:
    """`config.json` as a dict.

    Raises:
        ProbeError: It is none.
    """
    try:
        value = json.loads(content)
    except ValueError as error:
        raise ProbeError(f"config.json is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise ProbeError("config.json is not an object")
    return value


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' own progress bars and load reports for a while."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
