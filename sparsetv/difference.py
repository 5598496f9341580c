"""Fine-tuned minus base, lazily, by name: the task vector before anything is dropped."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sparsetv.arrays import Bits, Positions, Values
from sparsetv.checkpoint.names import Pairing, pair_names
from sparsetv.checkpoint.reading import Checkpoint, same_files
from sparsetv.dtypes import WEIGHT_DTYPES, cast, to_float32
from sparsetv.errors import CheckpointError, NonFiniteError

CHUNK = 1 << 19
"""Entries that are subtracted at a time; smaller pieces spend two threads' time on the interpreter lock."""


@dataclass(frozen=True, slots=True)
class TaskVector:
    """A base, a fine-tune of it, and how their tensors correspond. Holds no deltas: they are made when asked for."""

    base: Checkpoint
    finetuned: Checkpoint
    pairing: Pairing

    def comparable(self) -> tuple[str, ...]:
        """Base names of weight tensors that both sides have, ascending; added rows do not count."""
        both = {**self.pairing.shared, **self.pairing.grown}
        return tuple(
            name
            for name in sorted(both)
            if self.base.dtype(name) in WEIGHT_DTYPES and self.finetuned.dtype(both[name]) in WEIGHT_DTYPES
        )

    def finetuned_name(self, name: str) -> str:
        """The fine-tune's name of a base tensor."""
        pairing = self.pairing
        return pairing.shared.get(name) or pairing.grown.get(name) or pairing.reshaped[name]

    def finetuned_bits(self, name: str) -> Bits:
        """The fine-tune's bits of a base tensor, without added rows, in the fine-tune's dtype; shape (numel,)."""
        return self.finetuned.bits(self.finetuned_name(name))[: self.base.numel(name)]

    def target_bits(self, name: str, positions: np.ndarray) -> Bits:
        """Fine-tuned bits at flat positions, cast to the base's dtype; shape (len(positions),)."""
        source = self.finetuned.dtype(self.finetuned_name(name))
        return cast(self.finetuned_bits(name)[positions], source, self.base.dtype(name))

    def chunks(self, name: str) -> Iterator["Chunk"]:
        """Consecutive pieces of one tensor, in order."""
        base, tuned = self.base.bits(name), self.finetuned_bits(name)
        dtypes = self.base.dtype(name), self.finetuned.dtype(self.finetuned_name(name))
        for start in range(0, len(base), CHUNK):
            stop = min(start + CHUNK, len(base))
            yield Chunk(name, start, base[start:stop], tuned[start:stop], *dtypes)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of entries of one tensor.

    Attributes:
        name: Base name of the tensor.
        start: Flat position of the first entry.
        base, tuned: Bits on both sides, shape (n,).
        dtype, tuned_dtype: Their dtypes.
    """

    name: str
    start: int
    base: Bits
    tuned: Bits
    dtype: str
    tuned_dtype: str

    def __len__(self) -> int:
        return len(self.base)

    def deltas(self, *, most: int | None = None) -> Values:
        """Fine-tuned minus base in float32, shape (n,) or the first `most` of them; a new array.

        Where dtypes differ the fine-tune is cast to the base's first.
        """
        tuned = cast(self.tuned[:most], self.tuned_dtype, self.dtype)
        with np.errstate(invalid="ignore", over="ignore"):
            return to_float32(tuned, self.dtype) - to_float32(self.base[:most], self.dtype)


def refuse_non_finite(chunk: Chunk, bad: Positions) -> None:
    """Raise if a chunk has entries at `bad`, counted from its start, that are no finite numbers.

    Raises:
        NonFiniteError: It has.
    """
    if len(bad):
        raise NonFiniteError(
            f"{chunk.name}: fine-tuned minus base is NaN or infinite at position {chunk.start + int(bad[0])}; "
            "repair the checkpoint or leave the tensor out with `--scope '!NAME'`"
        )


def task_vector(base: Checkpoint, finetuned: Checkpoint, *, prefix: tuple[str, str] | None = None) -> TaskVector:
    """Pair a base with its fine-tune.

    Raises:
        CheckpointError: Both are the very same files.
        NamesError: Their tensor names cannot be brought together.
    """
    if same_files(base, finetuned):
        raise CheckpointError(f"{base.source} and {finetuned.source} are the same files; pass a base and its fine-tune")
    shapes = [{name: side.shape(name) for name in side.names} for side in (base, finetuned)]
    return TaskVector(base, finetuned, pair_names(shapes[0], shapes[1], prefix=prefix))
