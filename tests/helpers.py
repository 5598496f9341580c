"""Tiny checkpoints on disk, and slow obvious views of them for oracles.

Nothing here calls sparsetv's arithmetic: dtypes are torch's, files are read and written by the safetensors library.
"""

import builtins
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from sparsetv.jobs.options import PackOptions
from sparsetv.jobs.pack import pack
from sparsetv.localize.scope import Scope
from sparsetv.task_vector import SparseTaskVector

Tensors = dict[str, torch.Tensor]


TORCH = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
ALL = Scope("all")


def write_checkpoint(
    path: Path,
    tensors: Tensors,
    *,
    split: Mapping[str, int] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """A checkpoint directory; with `split` (shard number per tensor) a sharded one with an index."""
    path.mkdir(parents=True)
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
    if split is None:
        save_file(plain, path / "model.safetensors", metadata={"format": "pt"})
    else:
        numbers = sorted({split[name] for name in tensors})
        weight_map = {}
        for number in numbers:
            shard = f"model-{number + 1:05}-of-{numbers[-1] + 1:05}.safetensors"
            mine = {name: tensor for name, tensor in plain.items() if split[name] == number}
            save_file(mine, path / shard, metadata={"format": "pt"})
            weight_map.update(dict.fromkeys(mine, shard))
        total = sum(tensor.nbytes for tensor in plain.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (path / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    for name, content in (files or {}).items():
        (path / name).write_bytes(content)
    return path


def write_loose(path: Path, tensors: Tensors, *, pad: int) -> Path:
    """A safetensors file whose header is not padded to 8 bytes and whose tensors lie in the order given."""
    header: dict[str, object] = {}
    payload = b""
    for name, tensor in tensors.items():
        data = bits(tensor).tobytes()
        dtype = next(key for key, value in TORCH.items() if value == tensor.dtype)
        offsets = [len(payload), len(payload) + len(data)]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        payload += data
    text = json.dumps(header).encode()
    text += b" " * ((pad - len(text)) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + payload)
    return path


def read_checkpoint(path: Path) -> Tensors:
    """All tensors of a directory, read by the safetensors library through the index where there is one."""
    index = path / "model.safetensors.index.json"
    if not index.exists():
        loaded: Tensors = load_file(path / "model.safetensors")
        return loaded
    weight_map = json.loads(index.read_text())["weight_map"]
    tensors: Tensors = {}
    for shard in set(weight_map.values()):
        tensors.update(load_file(path / shard))
    assert {name: shard for name, shard in weight_map.items() if name in tensors} == weight_map
    return tensors


def tree(path: Path) -> dict[str, bytes]:
    """Every file below a directory by relative path."""
    return {str(item.relative_to(path)): item.read_bytes() for item in sorted(path.rglob("*")) if item.is_file()}


def weights(path: Path) -> dict[str, bytes]:
    """The model's weight files, byte for byte."""
    return {item.name: item.read_bytes() for item in sorted(path.glob("*.safetensors"))}


def bits(tensor: torch.Tensor) -> NDArray[Any]:
    """Bit patterns of a tensor, flat, as signed integers of the element's width."""
    width = {2: torch.int16, 4: torch.int32, 8: torch.int64, 1: torch.uint8}[tensor.element_size()]
    return tensor.contiguous().reshape(-1).view(width).numpy().copy()


def floats(patterns: Sequence[int]) -> torch.Tensor:
    """float32 numbers from unsigned 32-bit patterns."""
    return torch.from_numpy(np.array(patterns, np.uint32).view(np.int32).copy()).view(torch.float32)


def dense_deltas(base: torch.Tensor, tuned: torch.Tensor) -> NDArray[np.float32]:
    """Fine-tuned minus base, in float32, after the fine-tune took the base's dtype; flat."""
    return (tuned.to(base.dtype).to(torch.float32) - base.to(torch.float32)).reshape(-1).numpy()


def stable_top(deltas: Mapping[str, NDArray[np.float32]], k: int) -> dict[str, list[int]]:
    """Positions of the k largest magnitudes over all tensors: a full stable sort of a plain list."""
    entries = [
        (-abs(float(value)), name, position)
        for name in sorted(deltas)
        for position, value in enumerate(deltas[name].tolist())
    ]
    entries.sort(key=lambda entry: entry[0])
    kept: dict[str, list[int]] = {name: [] for name in deltas}
    for _, name, position in entries[:k]:
        kept[name].append(position)
    return {name: sorted(positions) for name, positions in kept.items()}


def kept_positions(task: SparseTaskVector) -> dict[str, list[int]]:
    """Kept positions per tensor as plain lists."""
    return {name: tensor.positions.tolist() for name, tensor in task.tensors.items()}


def pack_pair(
    path: Path, base: Tensors, tuned: Tensors, *, density: float, name: str = "task", scope: Scope = ALL
) -> SparseTaskVector:
    """Write base and fine-tune below `path` and pack them; the base's directory stays if it is there."""
    if not (path / "base").exists():
        write_checkpoint(path / "base", base)
    shutil.rmtree(path / name, ignore_errors=True)
    write_checkpoint(path / name, tuned)
    return pack(path / "base", path / name, options=PackOptions(density=density, scope=scope))


SPECIAL = [
    0x0000_0000,  # 0
    0x8000_0000,  # -0
    0x0000_0001,  # smallest subnormal
    0x8000_0001,
    0x007F_FFFF,  # largest subnormal
    0x0080_0000,  # smallest normal
    0x3F80_0000,  # 1
    0xBF80_0000,  # -1
    0x3F80_0001,  # 1 + ulp
    0x3F80_8000,  # 1 + half a bf16 ulp: a tie
    0x3F81_8000,  # a tie to the other side
    0x3F7F_FFFF,  # just below 1
    0x3DCC_CCCD,  # 0.1
    0x4680_0000,  # 16384
    0x3300_0000,  # fp16's rounding limit to zero, 2^-25
    0x3380_0000,  # fp16's smallest subnormal
]
"""float32 patterns that conversions and sums stumble over, all finite in fp16 too."""


def patterns(*, largest: int = 141) -> st.SearchStrategy[int]:
    """Finite float32 patterns with exponent field up to `largest`; 141 keeps |x| below 2^15, sums inside fp16."""
    built = st.builds(
        lambda sign, exponent, mantissa: sign << 31 | exponent << 23 | mantissa,
        st.integers(0, 1),
        st.integers(0, largest),
        st.one_of(st.integers(0, (1 << 23) - 1), st.sampled_from([0, 1, 0x40_0000, 0x7F_FFFF, 0x8000])),
    )
    return st.one_of(st.sampled_from(SPECIAL), built)


FINITE_PATTERNS = st.one_of(st.sampled_from([*SPECIAL, 0x7F7F_FFFF, 0xFF7F_FFFF]), patterns(largest=254))
"""Every finite float32."""

SHAPES: list[tuple[int, ...]] = [
    (), (1,), (7,), (0,), (3, 4), (4, 0), (0, 3), (1, 5), (5, 1), (2, 3, 2), (2, 1, 3), (2, 2, 1, 3), (1, 0, 2, 2),
]  # fmt: skip


@st.composite
def tensor_pairs(draw: st.DrawFn, *, largest: int = 141) -> tuple[torch.Tensor, torch.Tensor]:
    """A base tensor and its fine-tuned one: any dtypes, any relation between them."""
    shape = draw(st.sampled_from(SHAPES))
    count = int(np.prod(shape, dtype=np.int64))
    dtypes = [TORCH[draw(st.sampled_from(sorted(TORCH)))] for _ in range(2)]
    if torch.float16 in dtypes:
        largest = min(largest, 141)
    element = patterns(largest=largest)
    base = floats(draw(st.lists(element, min_size=count, max_size=count)))
    relation = draw(st.sampled_from(["free", "free", "same", "constant", "near", "signs"]))
    if relation == "free":
        tuned = floats(draw(st.lists(element, min_size=count, max_size=count)))
    elif relation == "constant":
        base = torch.tensor(draw(st.lists(st.integers(-8, 8), min_size=count, max_size=count)), dtype=torch.float32)
        tuned = base + draw(st.sampled_from([0.5, -1.0, 0.25]))
    elif relation == "near":
        tuned = (base.double() * (1 + draw(st.sampled_from([1e-7, -1e-3, 0.01])))).float()
    elif relation == "signs":
        tuned = -base
    else:
        tuned = base.clone()
    return base.reshape(shape).to(dtypes[0]), tuned.reshape(shape).to(dtypes[1])


@st.composite
def model_pairs(draw: st.DrawFn, *, largest: int = 141) -> tuple[Tensors, Tensors]:
    """A base and a fine-tune of it, up to 5 tensors with at least one entry in all."""
    names = ["embed.weight", "encoder.layer.0.a", "encoder.layer.0.b", "encoder.layer.10.a", "encoder.layer.2.a"]
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, max_size=5, unique=True))
    pairs = {name: draw(tensor_pairs(largest=largest)) for name in chosen}
    if not sum(base.numel() for base, _ in pairs.values()):
        pairs[chosen[0]] = (torch.ones(2, 3), torch.tensor([[1.0, 2.0, 1.5], [0.0, -1.0, 1.0]]))
    return {name: pair[0] for name, pair in pairs.items()}, {name: pair[1] for name, pair in pairs.items()}


def splits(names: Sequence[str]) -> st.SearchStrategy[dict[str, int] | None]:
    """A random assignment of tensors to shards, or None for a single file."""
    numbers = st.lists(st.integers(0, 2), min_size=len(names), max_size=len(names))
    return st.one_of(st.none(), numbers.map(lambda found: dict(zip(names, found, strict=True))))


def hide(module: str, patch: pytest.MonkeyPatch) -> None:
    """Make imports of a package fail, as where it is not installed."""
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == module:
            raise ImportError(name)
        return real(name, *rest, **more)

    patch.setattr(builtins, "__import__", without)
