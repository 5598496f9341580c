"""Where models run, and how precisely."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sparsetv.errors import UsageError

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("fp32", "bf16")


def find_device(name: str) -> torch.device:
    """The device of a name: `auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises:
        UsageError: There is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"unknown device {name!r}; known are {', '.join(DEVICES)}") from None
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, False) or (device.index or 0) >= max(torch.cuda.device_count(), 1):
        raise UsageError(f"device {name!r} is not there; use --device auto or cpu")
    return device


@contextmanager
def precisely(device: torch.device, precision: str) -> Iterator[None]:
    """Run what is inside in float32, or with bfloat16 matrix products (weights and gradients stay float32).

    Raises:
        UsageError: Unknown precision.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}; known are {', '.join(PRECISIONS)}")
    # Without autocast's cache no second copy of the weights is held through a step.
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
        yield
