"""Pairs that storage is measured on, their directories for peers, and one thread for everything."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.data import ADAMW, SGD, Sentences
from benchmarks.lossless import GENERATED, generate
from sparsetv import threads
from sparsetv.arrays import Bits, Positions, Values
from sparsetv.atomic import Part, write_new_file
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.container import reader, writer
from sparsetv.csr import SparseTensor
from sparsetv.difference import TaskVector, task_vector
from sparsetv.localize import measure
from sparsetv.packing import gather, outside
from sparsetv.wire.header import encode_header, place

MOST = ("CR", "TREC", *SGD)
"""Fine-tunes on which everything is measured; on the others `exact` alone."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A base and a fine-tune of one dtype.

    Attributes:
        name: Fine-tune, or what was generated.
        optimizer: `AdamW`, `SGD` or `generated`.
        dtype: `F32` or `BF16`.
        base, finetuned: Checkpoint directories.
        everything: Whether all encodings and peers are measured.
    """

    name: str
    optimizer: str
    dtype: str
    base: Path
    finetuned: Path
    everything: bool

    @property
    def title(self) -> str:
        """Name and dtype."""
        return f"{self.name} {'bf16' if self.dtype == 'BF16' else 'fp32'}"

    @property
    def checkpoint_bytes(self) -> int:
        """Bytes of the fine-tune's weight file."""
        return (self.finetuned / "model.safetensors").stat().st_size

    def vector(self) -> TaskVector:
        """Both sides, opened."""
        return task_vector(open_checkpoint(self.base), open_checkpoint(self.finetuned))


@dataclass(frozen=True, slots=True)
class Kept:
    """Kept entries of one tensor, as a peer is given them.

    Attributes:
        shape: Shape of the tensor.
        positions: Flat positions, int64, ascending.
        bits: The fine-tuned weights in the checkpoint's dtype: exact, and no peer has smaller exact values.
        deltas: Fine-tuned minus base, float32.
    """

    shape: tuple[int, ...]
    positions: Positions
    bits: Bits
    deltas: Values


def pairs(models: Path, room: Path) -> Iterator[Pair]:
    """Real pairs, then generated ones, which are written to the room."""
    sentences = Sentences(models, models)
    for dtype, suffix in (("F32", ""), ("BF16", "-bf16")):
        for name in (*ADAMW, *SGD):
            sides = sentences.base(suffix), sentences.finetuned(name, suffix)
            yield Pair(name, "SGD" if name in SGD else "AdamW", dtype, *sides, everything=name in MOST)
    for name, (dtype, _) in GENERATED.items():
        if name.startswith("SFT"):
            yield Pair("Llama SFT", "generated", dtype, *generate(room, name), everything=True)


def one_thread() -> None:
    """Give every pool one thread and the process one core."""
    for module in (gather, measure, outside, reader, writer):
        vars(module)["_THREADS"] = 1
    threads.THREADS = 1
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def kept_entries(vector: TaskVector, tensors: Mapping[str, SparseTensor]) -> dict[str, Kept]:
    """What peers are given of the entries that an exact task keeps."""
    return {
        name: Kept(tensor.shape, tensor.positions, vector.target_bits(name, tensor.positions), tensor.values)
        for name, tensor in tensors.items()
    }


def write_sides(vector: TaskVector, kept: Mapping[str, Kept], room: Path) -> None:
    """Write the directories that `benchmarks.peers_storage` reads."""
    names = [name for name in vector.comparable() if name in vector.pairing.shared]
    base = {name: np.array(vector.base.bits(name)) for name in names}
    sides = {
        "base": base,
        "finetuned": {name: np.array(vector.finetuned_bits(name)) for name in names},
        "graft": {name: _with(base[name], kept.get(name)) for name in names},
        "kept": {name: _with(np.zeros_like(base[name]), found) for name, found in kept.items()},
    }
    for side, tensors in sides.items():
        (room / side).mkdir(exist_ok=True)
        stored = place((name, vector.base.dtype(name), vector.base.shape(name)) for name in tensors)
        parts: list[Part] = [encode_header(stored, {"format": "pt"})]
        parts += [bits.view(np.uint8) for bits in tensors.values()]
        path = room / side / "model.safetensors"
        path.unlink(missing_ok=True)
        write_new_file(path, parts)


def _with(bits: Bits, kept: Kept | None) -> Bits:
    found = bits.copy()
    if kept is not None:
        found[kept.positions] = kept.bits
    return found
