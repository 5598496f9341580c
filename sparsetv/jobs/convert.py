"""Pickled weights (`.bin`) as a safetensors checkpoint: the one place where a pickle is opened, and only when asked."""

import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sparsetv import atomic
from sparsetv.checkpoint.locate import INDEX_NAME, read_map
from sparsetv.compose.files import copy_files, other_files
from sparsetv.errors import CheckpointError, FormatError, LimitError, NotFoundError, OutputError
from sparsetv.jobs.outputs import locked
from sparsetv.progress import Progress, counter
from sparsetv.wire.fields import is_text
from sparsetv.wire.header import read_header

if TYPE_CHECKING:
    import torch

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
"""Suffixes of files that hold pickles."""

COPIES = 64
"""LIMITS 5: bytes of tensors that each byte of a pickle may become; tensors may share memory, and repeat it."""

_SINGLE, _INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
_SHARD = re.compile(r"[\w.-]+\.bin")


def convert(source: str | Path, output: str | Path, *, progress: Progress | None = None) -> tuple[str, ...]:
    """Write pickled weights as a safetensors checkpoint, which everything else here reads.

    Pickles can run code. They are opened with torch's `weights_only`, which builds tensors and plain containers and
    refuses everything else; convert what you trust all the same.

    Args:
        source: One file; or a directory with `pytorch_model.bin` or its index and shards, whose other files are copied.
        output: Directory to write, atomically; it must not exist, or be empty.
        progress: Reports bytes of weights.

    Returns:
        Names of the tensors, ascending.

    Raises:
        NotFoundError: No pickled weights are there.
        FormatError: A file is broken, or holds more than tensors.
        CheckpointError: What it holds is no flat dict of tensors by name, or one that safetensors cannot hold.
        LimitError: It would become far larger than it is.
        OutputError: The output cannot or must not be written.

    Cost:
        Memory of one weight file, mapped where its format allows it.
    """
    path, target = Path(source), Path(output)
    files = _pickled(path)
    if target.resolve() == path.resolve() or (target.exists() and not target.is_dir()) or _holds(target):
        raise OutputError(f"{target}: exists; name a new directory")
    count = counter(progress, "convert", sum(file.stat().st_size for file in files))
    weight_map: dict[str, str] = {}
    with locked(target), atomic.new_directory(target) as directory:
        for file in files:
            name = "model.safetensors" if len(files) == 1 else f"{file.stem}.safetensors"
            weight_map |= dict.fromkeys(_convert(file, directory / name, weight_map), name)
            atomic.sync(directory / name)
            count(file.stat().st_size)
        if len(files) > 1:
            index = json.dumps({"metadata": {}, "weight_map": dict(sorted(weight_map.items()))}, indent=2) + "\n"
            atomic.write_new_file(directory / INDEX_NAME, [index.encode()])
        copy_files(other_files(path if path.is_dir() else None), directory)
    return tuple(sorted(weight_map))


def _holds(target: Path) -> bool:
    return target.is_dir() and any(target.iterdir())


def _pickled(path: Path) -> list[Path]:
    """Files with pickled weights, in order."""
    if path.is_file():
        if path.suffix not in PICKLES:
            raise CheckpointError(f"{path}: has none of the suffixes {', '.join(PICKLES)}; only those are converted")
        return [path]
    if (path / _SINGLE).is_file():
        return [path / _SINGLE]
    if not (path / _INDEX).is_file():
        raise NotFoundError(f"{path}: no {_SINGLE} and no {_INDEX}; name a directory or a file with pickled weights")
    shards = sorted(set(read_map(path / _INDEX).values()))
    for shard in shards:
        if not _SHARD.fullmatch(shard):
            raise FormatError(f"{path / _INDEX}: names shard {shard!r}; a shard is a .bin file in this directory")
        real = os.path.realpath(path / shard)
        if not os.path.isfile(real) or os.path.dirname(real) != os.path.realpath(path):
            raise FormatError(f"{path}: shard {shard} of the index is missing or leaves the directory; fetch it again")
    return [path / shard for shard in shards]


def _convert(source: Path, target: Path, before: Mapping[str, str]) -> list[str]:
    """Write one file's tensors; returns their names."""
    from safetensors.torch import save_file  # noqa: PLC0415  torch only where a pickle is read

    found = _tensors(source, _load(source))
    twice = next((name for name in found if name in before), None)
    if twice is not None:
        raise FormatError(f"{source}: tensor {twice} stands in another shard, too; fetch the checkpoint again")
    # each in memory of its own, as safetensors wants it
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in found.items()}
    try:
        save_file(tensors, target, metadata={"format": "pt"})
    except KeyError as error:
        raise CheckpointError(f"{source}: safetensors has no dtype {error}; save it in another one") from None
    try:
        read_header(target)
    except FormatError as error:
        reason = str(error).removeprefix(f"{target}: ")
        raise CheckpointError(f"{source}: as safetensors nothing here could read it ({reason}); save it anew") from None
    return list(tensors)


def _check_stored(source: Path) -> None:
    """Refuse a zip with compressed parts: torch writes none, and would map what is compressed as if it were values."""
    try:
        with zipfile.ZipFile(source) as archive:
            packed = next((part.filename for part in archive.infolist() if part.compress_type), None)
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return  # an older file, or a broken one, which torch refuses
    if packed is not None:
        raise FormatError(f"{source}: part {packed[:120]!r} is compressed, as torch writes none; fetch it again")


def _load(source: Path) -> object:
    import torch  # noqa: PLC0415

    _check_stored(source)

    def load(*, mapped: bool) -> object:
        with warnings.catch_warnings(action="ignore"):  # of pickles that torch did not write
            loaded: object = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
        return loaded

    try:
        try:
            return load(mapped=True)
        except RuntimeError:  # files of torch before 1.6 cannot be mapped
            return load(mapped=False)
    except pickle.UnpicklingError:
        raise FormatError(
            f"{source}: is broken, or holds more than tensors and would run code; get the checkpoint as safetensors"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FormatError(f"{source}: cannot be read as pickled weights ({reason}); fetch it again") from None


def _tensors(source: Path, loaded: object) -> "dict[str, torch.Tensor]":
    """The tensors by name, none of which needs more memory than its file can account for."""
    import torch  # noqa: PLC0415

    items = dict(loaded) if isinstance(loaded, Mapping) else {}
    if not items or not all(isinstance(n, str) and isinstance(t, torch.Tensor) for n, t in items.items()):
        raise CheckpointError(f"{source}: is no flat dict of tensors by name; save the model's `state_dict()` alone")
    for name, tensor in items.items():
        if name == "__metadata__" or not is_text(name):
            raise CheckpointError(f"{source}: no safetensors file can hold the name {name!r}; save it under another")
        if tensor.is_nested or tensor.layout != torch.strided or tensor.is_quantized:
            raise CheckpointError(f"{source}: {name} is nested, sparse or quantized; save it dense")
        if tensor.device.type != "cpu":
            raise CheckpointError(f"{source}: {name} has no data (device {tensor.device}); save it from a CPU")
    need, size = sum(tensor.nbytes for tensor in items.values()), source.stat().st_size
    if need > COPIES * size:
        raise LimitError(
            f"{source}: a file of {size} bytes would become {need}, limit {COPIES} times; tensors in it repeat what "
            "they share, save them once"
        )
    return items
