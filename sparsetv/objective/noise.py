"""Random inputs to train on, as many as are asked for: seeded, and nearer to what models see than uniform noise.

Of token sequences one half follow Zipf's law, since vocabularies are ordered by frequency as far as merges and word
pieces made them so, and one half are uniform: fine-tunes differ in which of the two serves them better. Where
fine-tuning changed the embeddings, the tokens that it changed most are those that it saw most.
"""

from collections.abc import Sequence
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray

from sparsetv.objective import inputs
from sparsetv.objective.loss import Inputs
from sparsetv.objective.setup import Setup

_TOKENS = ("vocabulary", "shortest", "longest", "first", "last", "pad")
_PIXELS = ("channels", "height", "width")

FLAT = 1000
"""Id below which all tokens are about equally likely: special and unused ones, bytes, letters."""


class Noise(Sequence[Inputs]):
    """Batches of random inputs that a model takes; batch i is the same wherever and whenever it is made.

    Args:
        setup: Kind and parameters of the inputs, and the seed.
        batches: Number of batches.
        batch_size: Inputs per batch.
        weights: How often each token id shall occur, shape (vocabulary,), in every other sequence; None where nothing
            is known of it.
    """

    def __init__(
        self, setup: Setup, *, batches: int, batch_size: int, weights: NDArray[np.float64] | None = None
    ) -> None:
        self._setup, self._batches, self._batch_size = setup, batches, batch_size
        self._cumulated = None if weights is None else np.cumsum(weights) / np.sum(weights)

    def __len__(self) -> int:
        return self._batches

    @overload
    def __getitem__(self, index: int) -> Inputs: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Inputs]: ...
    def __getitem__(self, index: int | slice) -> Inputs | Sequence[Inputs]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        generator = np.random.Generator(np.random.Philox(key=[self._setup.seed, index]))
        if self._setup.kind == "pixels":
            return _pixels(self._setup, self._batch_size, generator)
        return _tokens(self._setup, self._batch_size, generator, self._cumulated)


def _tokens(setup: Setup, count: int, generator: np.random.Generator, cumulated: NDArray[np.float64] | None) -> Inputs:
    """Sequences like the probe's (probe.md, clause 1), but for the distribution of ids."""
    params = {key: inputs.whole(setup.params, key) for key in _TOKENS}
    longest = params["longest"]
    lengths = generator.integers(params["shortest"], longest + 1, count)
    drawn, vocabulary = generator.random((count, longest)), params["vocabulary"]
    ids = np.minimum(FLAT * ((vocabulary + FLAT) / FLAT) ** drawn - FLAT, vocabulary - 1).astype(np.int64)
    uniform, seen = slice(1, None, 2), slice(0, None, 2)
    ids[uniform] = (drawn[uniform] * vocabulary).astype(np.int64)
    if cumulated is not None:
        ids[seen] = np.minimum(np.searchsorted(cumulated, drawn[seen], side="right"), vocabulary - 1)
    if params["first"] >= 0:
        ids[:, 0] = params["first"]
    if params["last"] >= 0:
        ids[np.arange(count), lengths - 1] = params["last"]
    mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
    ids = np.where(mask == 1, ids, params["pad"])
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def _pixels(setup: Setup, count: int, generator: np.random.Generator) -> Inputs:
    """Noise of unit deviation, white and smooth in equal parts, as images are smooth for the most part."""
    params = {key: inputs.whole(setup.params, key) for key in _PIXELS}
    shape = (count, params["channels"], params["height"], params["width"])
    white = torch.from_numpy(generator.standard_normal(shape).astype(np.float32))
    coarse = torch.from_numpy(
        generator.standard_normal((*shape[:2], -(-shape[2] // 8), -(-shape[3] // 8))).astype(np.float32)
    )
    smooth = torch.nn.functional.interpolate(coarse, size=shape[2:], mode="bilinear", align_corners=False)
    mixed = white + smooth / smooth.std()
    return {"pixel_values": mixed / mixed.std()}
