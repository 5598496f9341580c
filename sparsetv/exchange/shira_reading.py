"""A SHiRA adapter that PEFT saved, as deltas of the base."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from sparsetv.arrays import Positions
from sparsetv.checkpoint.locate import JSON_FILE_BYTES
from sparsetv.checkpoint.reading import Checkpoint, open_checkpoint
from sparsetv.dtypes import WEIGHT_DTYPES, to_float32
from sparsetv.errors import CheckpointError, FormatError, NamesError, NotFoundError
from sparsetv.exchange.entries import Collector, Found
from sparsetv.exchange.shira import CONFIG, ROOT, WEIGHTS
from sparsetv.task_vector import Extra
from sparsetv.wire import canonical
from sparsetv.wire.small import read_small

_DEPTH = 16
_INDICES, _VALUES = ".shira_indices", ".shira_weight"
_INTEGERS = {"I32": "<i4", "I64": "<i8"}


def read_shira(source: Path | str, base: Checkpoint) -> Found:
    """Read an adapter directory; a pickled `adapter_model.bin` is refused.

    Layers whose names have one prefix before the base's (`bert.` on a classifier) are matched without it. Modules that
    PEFT saved whole (`modules_to_save`) and that the base lacks are carried.

    Raises:
        NotFoundError: There is no adapter.
        CheckpointError: It is no SHiRA adapter, is pickled, or replaces a tensor of the base.
        FormatError: Its configuration or weights are broken: indices outside, twice, or of another number than values.
        NamesError: Its layers are none of the base's.
        NonFiniteError: A delta is NaN or infinite.
        LimitError: More is kept than the memory limit has room for.
    """
    room = Path(source)
    _check_config(room)
    if not (room / WEIGHTS).is_file() and (room / "adapter_model.bin").is_file():
        raise CheckpointError(f"{room}: adapter_model.bin is a pickle, which can run code; save it as safetensors")
    if not (room / WEIGHTS).is_file():
        raise NotFoundError(f"{room / WEIGHTS}: no such file")
    adapter = open_checkpoint(room / WEIGHTS)
    layers = [name.removesuffix(_INDICES) for name in adapter.names if name.endswith(_INDICES)]
    prefix = _prefix(room, layers, base)
    collector = Collector(base, what=str(source))
    for layer in layers:
        _collect(collector, adapter, layer, prefix)
    taken = {layer + suffix for layer in layers for suffix in (_INDICES, _VALUES)}
    others = [name for name in adapter.names if name not in taken]
    return Found(collector.tensors(), dict(_whole(adapter, others, base, prefix)), ("", prefix))


def _check_config(room: Path) -> None:
    file = room / CONFIG
    if not file.is_file():
        raise NotFoundError(f"{file}: no such file; name an adapter's directory")
    config = canonical.loads(read_small(file, most=JSON_FILE_BYTES), what=str(file), depth=_DEPTH)
    if not isinstance(config, dict):
        raise FormatError(f"{file}: expected an object, found {type(config).__name__}")
    if config.get("peft_type") != "SHIRA":
        raise CheckpointError(
            f"{room}: an adapter of type {config.get('peft_type')!r}, not SHIRA; merge it (peft: "
            "`model.merge_and_unload().save_pretrained(DIR)`) and pack DIR"
        )
    if config.get("fan_in_fan_out"):
        raise CheckpointError(f"{room}: fan_in_fan_out is set, and no linear layer has it; save the adapter without")


def _base_name(layer: str, prefix: str) -> str:
    return layer.removeprefix(ROOT).removeprefix(prefix) + ".weight"


def _prefix(room: Path, layers: list[str], base: Checkpoint) -> str:
    """The shortest run of leading name parts without which all layers are the base's."""
    if not layers or not all(layer.startswith(ROOT) for layer in layers):
        raise FormatError(f"{room / WEIGHTS}: holds no {ROOT}*{_INDICES}; is it a SHiRA adapter that PEFT saved?")
    parts = layers[0].removeprefix(ROOT).split(".")
    for depth in range(min(4, len(parts))):
        prefix = "".join(f"{part}." for part in parts[:depth])
        shared = all(layer.removeprefix(ROOT).startswith(prefix) for layer in layers)
        if shared and all(_base_name(layer, prefix) in base for layer in layers):
            return prefix
    lacking = next(layer for layer in layers if _base_name(layer, "") not in base)
    raise NamesError(
        f"{room}: layer {lacking.removeprefix(ROOT)} is none of {base.source}; pass the base it belongs to"
    )


def _collect(collector: Collector, adapter: Checkpoint, layer: str, prefix: str) -> None:
    name, where = _base_name(layer, prefix), f"{collector.what}: {layer}"
    collector.check(name)
    if layer + _VALUES not in adapter:
        raise FormatError(f"{where}: has indices and no {_VALUES[1:]}; save the adapter again")
    dtype, shape = adapter.dtype(layer + _VALUES), adapter.shape(layer + _VALUES)
    if dtype not in WEIGHT_DTYPES or len(shape) != 1 or adapter.shape(layer + _INDICES) != (2, *shape):
        raise FormatError(
            f"{where}: {dtype} {shape} values at {adapter.shape(layer + _INDICES)} indices; expected (n,) at (2, n), "
            "save the adapter again"
        )
    collector.allow(shape[0])
    positions = _flat(where, adapter, layer + _INDICES, collector.base.shape(name))
    collector.add(name, positions, to_float32(adapter.bits(layer + _VALUES), dtype))


def _flat(where: str, adapter: Checkpoint, key: str, shape: tuple[int, ...]) -> Positions:
    """Rows and columns as flat positions; each is checked on its own, for a wrong pair can make a right position."""
    dtype = adapter.dtype(key)
    if dtype not in _INTEGERS or len(shape) != 2:
        raise FormatError(f"{where}: {dtype} indices into shape {shape}; expected whole numbers, and a matrix")
    pairs = adapter.raw(key).view(_INTEGERS[dtype]).astype(np.int64).reshape(2, -1)
    for pair, side, word in zip(pairs, shape, ("row", "column"), strict=True):
        outside = np.flatnonzero((pair < 0) | (pair >= side))
        if len(outside):
            raise FormatError(
                f"{where}: {word} {int(pair[outside[0]])} of entry {int(outside[0])} lies outside 0 to {side - 1}; "
                "save the adapter again"
            )
    flat: Positions = pairs[0] * shape[1] + pairs[1]
    return flat


def _whole(adapter: Checkpoint, names: Iterable[str], base: Checkpoint, prefix: str) -> Iterable[tuple[str, Extra]]:
    for key in names:
        name = key.removeprefix(ROOT)
        if not key.startswith(ROOT) or key.endswith(_VALUES) or name.removeprefix(prefix) in base:
            raise CheckpointError(
                f"{adapter.source}: {key} is neither SHiRA's nor a tensor that {base.source} lacks; save the adapter "
                "without it"
            )
        yield name, Extra("tensor", adapter.dtype(key), adapter.shape(key), adapter.raw(key))
