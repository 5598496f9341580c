"""Checkpoints written by hand, so that any dtype and bit pattern can be in them, alone or in pairs."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from sparsetv import convert
from sparsetv.dtypes import SIZES

Raw = dict[str, tuple[str, tuple[int, ...], bytes]]
"""Dtype, shape and bytes by name."""

DTYPES = sorted(SIZES)
SHAPES: list[tuple[int, ...]] = [(), (1,), (7,), (0,), (3, 4), (4, 0), (2, 3, 5), (1, 1, 2, 3), (40, 30)]


def write_raw(path: Path, tensors: Raw, *, metadata: dict[str, str] | None = None) -> None:
    """A safetensors file."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    at = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in tensors.values()))


def related(draw: st.DrawFn, data: bytes, width: int) -> bytes:
    """Bytes that stand in some relation to those of the base."""
    kind = draw(st.sampled_from(["same", "near", "few", "free", "signs"]))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    numbers = np.frombuffer(data, f"<u{width}")
    found = numbers
    if kind == "near":
        found = numbers + rng.integers(0, 4, len(numbers)).astype(numbers.dtype)
    elif kind == "few":
        found = np.where(rng.random(len(numbers)) < 0.1, numbers ^ numbers.dtype.type(1), numbers)
    elif kind == "signs":
        found = numbers ^ numbers.dtype.type(1 << (8 * width - 1))
    elif kind == "free":
        return rng.bytes(len(data))
    return bytes(found.tobytes())


@st.composite
def raw_pairs(draw: st.DrawFn) -> tuple[Raw, Raw]:
    base: Raw = {"anchor": ("F32", (2,), bytes(8))}
    tuned: Raw = {"anchor": ("F32", (2,), bytes(8))}
    for name in draw(st.lists(st.sampled_from(["a", "b.c", "d", "é"]), unique=True)):
        dtype, shape = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(SHAPES))
        size = SIZES[dtype] * math.prod(shape)
        data = np.random.default_rng(draw(st.integers(0, 1 << 32))).bytes(size)
        where = draw(st.sampled_from(["both", "both", "both", "base", "tuned", "grown", "cut", "other dtype"]))
        if where != "tuned":
            base[name] = (dtype, shape, data)
        if where == "other dtype":
            tuned[name] = ("U8", (size,), data)
        elif where in {"grown", "cut"} and len(shape) >= 2:
            rows = shape[0] + 2 if where == "grown" else shape[0] - 1
            row = size // shape[0] if shape[0] else 0
            tuned[name] = (dtype, (rows, *shape[1:]), (data + bytes(2 * row))[: rows * row])
        elif where != "base":
            tuned[name] = (dtype, shape, related(draw, data, min(SIZES[dtype], 8)))
    return base, tuned


def make(path: Path, base: Raw, tuned: Raw) -> tuple[Path, Path]:
    for side, tensors in (("base", base), ("tuned", tuned)):
        (path / side).mkdir(exist_ok=True)
        write_raw(path / side / "model.safetensors", tensors, metadata={"format": "pt", "who": side})
        (path / side / "config.json").write_text("{}")
    return path / "base", path / "tuned"


def repeated(times: int, path: Path) -> object:
    """Convert a pickle whose one tensor repeats its byte, to so many times the file's size."""
    source, size = path / "x.bin", 4096
    for _ in range(2):  # the file has the same size the second time
        torch.save({"a": torch.zeros(1, dtype=torch.uint8).expand(times * size)}, source)
        size = source.stat().st_size
    return convert(source, path / str(times))
