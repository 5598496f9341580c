"""The machine and versions that results were measured with."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PACKAGES = ("sparsetv", "torch", "transformers", "numpy", "scipy", "safetensors", "zstandard")


def machine() -> dict[str, Any]:
    """Processor, cores, memory, GPU if there is one, and versions."""
    pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    found = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(pages * os.sysconf("SC_PAGE_SIZE") / 2**30) if pages else None,
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }
    gpu = _gpu()
    return {**found, "gpu": gpu} if gpu else found


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    for line in told.read_text().splitlines() if told.is_file() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _gpu() -> str:
    import torch  # noqa: PLC0415  the rest needs none

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""
