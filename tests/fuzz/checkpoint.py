"""Checkpoints: headers of weight files, the shard index, the configuration."""

import json
import random
from functools import cache

import numpy as np
from hostile import base_tensors, safetensors
from safetensors import SafetensorError, deserialize

from fuzz.json_changes import change_text
from fuzz.room import room
from fuzz.target import Outcome, Target, refused, require, slack
from fuzz.tensors_file import change_tensors_file
from sparsetv.checkpoint.reading import Checkpoint, open_checkpoint
from sparsetv.dtypes import SIZES
from sparsetv.errors import SparseTVError

INDEX = "model.safetensors.index.json"
Files = dict[str, bytes]


@cache
def _seeds() -> tuple[Files, ...]:
    tensors = base_tensors()
    config = json.dumps({"model_type": "x", "vocab_size": 12, "tie_word_embeddings": True}).encode()
    whole = safetensors(tensors, {"format": "pt"})
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[:4], "model-00002-of-00002.safetensors": names[4:]}
    shards = {file: safetensors({name: tensors[name] for name in own}) for file, own in halves.items()}
    weight_map = {name: file for file, own in halves.items() for name in own}
    index = json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}, separators=(",", ":")).encode()
    odd = safetensors({"a": np.arange(3, dtype=np.float16), "b": np.zeros((2, 0), np.int64), "c": np.array(True)})
    return (
        {"model.safetensors": whole, "config.json": config},
        {**shards, INDEX: index, "config.json": config},
        {**shards, INDEX: index},
        {"weights.safetensors": odd},
    )


def make(source: random.Random) -> Files:
    """A checkpoint with changes to one or two of its files."""
    files = dict(source.choice(_seeds()))
    for _ in range(source.choice([1, 1, 1, 2])):
        name = source.choice(sorted(files))
        files[name] = _changed(source, name, files[name])
    if not source.randrange(50):
        del files[source.choice(sorted(files))]
    return files


def _changed(source: random.Random, name: str, content: bytes) -> bytes:
    return change_tensors_file(source, content) if name.endswith(".safetensors") else change_text(source, content)


def examine(files: Files) -> Outcome:
    """A known error, or tensors that are what another reader finds."""
    path = room("checkpoint").lay(files)
    try:
        checkpoint = open_checkpoint(path)
    except SparseTVError as error:
        return refused(error)
    require(list(checkpoint.names) == sorted(checkpoint.names), "names do not ascend")
    for name in checkpoint.names:
        entry, raw = checkpoint.entry(name), checkpoint.raw(name)
        require(len(raw) == SIZES[entry.dtype] * checkpoint.numel(name), f"{name}: {len(raw)} bytes")
        require(len(checkpoint.bits(name)) == checkpoint.numel(name), f"{name}: as bits it has another length")
        checkpoint.identity(name)
    return _compared(files, checkpoint)


def _compared(files: Files, checkpoint: Checkpoint) -> Outcome:
    known = 0
    for name, shard in checkpoint.shards.items():
        try:
            others = dict(deserialize(files[name]))  # type: ignore[no-untyped-call]
        except SafetensorError:
            continue
        known += 1
        require(others.keys() == shard.tensors.keys(), f"{name}: another reader finds other tensors")
        for tensor, other in others.items():
            own = (list(checkpoint.shape(tensor)), checkpoint.raw(tensor).tobytes())
            require(own == (other["shape"], bytes(other["data"])), f"{tensor}: another reader finds other content")
    return Outcome("read" if known == len(checkpoint.shards) else "read, by us alone")


TARGET = Target("checkpoint", make, examine, slack)
