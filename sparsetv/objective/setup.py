"""Which random inputs a model takes, and those inputs as it takes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sparsetv.errors import ProbeError
from sparsetv.models import is_causal
from sparsetv.objective import inputs

COUNT = 128
SHORTEST, LONGEST = 6, 31
BATCH = 64
_OFFSET = 2
"""Positions that some models keep back (RoBERTa counts from the padding token's id)."""


@dataclass(frozen=True, slots=True)
class Setup:
    """Which inputs a model takes: kind and parameters of formats/codecs/probe.md, and the seed."""

    kind: str
    seed: int
    count: int
    params: Mapping[str, int | float | str]


def choose_setup(model: nn.Module, *, frame: tuple[int, int] = (-1, -1), seed: int = 0, count: int = COUNT) -> Setup:
    """Inputs that fit a model.

    Args:
        model: A transformers model.
        frame: Token ids that begin and end a sequence, -1 for none.
        seed: Seed of the inputs.
        count: Number of inputs.

    Raises:
        ProbeError: The model takes neither token ids nor pixels alone.
    """
    config: Any = model.config
    main = getattr(model, "main_input_name", "")
    if main == "pixel_values":
        size, channels = getattr(config, "image_size", None), getattr(config, "num_channels", None)
        sides = (size, size) if isinstance(size, int) else size
        if not isinstance(sides, tuple | list) or len(sides) != 2 or not isinstance(channels, int):
            raise ProbeError(f"{type(model).__name__} does not say what images it takes")
        params = {"channels": channels, "height": int(sides[0]), "width": int(sides[1])}
        return Setup("pixels", seed, count, params)
    vocabulary = getattr(config, "vocab_size", None)
    if main != "input_ids" or vocabulary is None or getattr(config, "is_encoder_decoder", False):
        raise ProbeError(f"{type(model).__name__} takes neither token ids nor pixels alone")
    causal = is_causal(model)
    pad = getattr(config, "pad_token_id", None)
    positions = getattr(config, "max_position_embeddings", None)
    longest = LONGEST if not isinstance(positions, int) else max(min(LONGEST, positions - _OFFSET), 1)
    params = {
        "vocabulary": int(vocabulary),
        "shortest": min(SHORTEST, longest),
        "longest": longest,
        "first": frame[0],
        "last": -1 if causal else frame[1],
        "pad": int(pad) if isinstance(pad, int) and 0 <= pad < vocabulary else 0,
    }
    return Setup("causal" if causal else "tokens", seed, count, params)


def feeds(setup: Setup) -> list[dict[str, torch.Tensor]]:
    """The probe's inputs in batches (formats/codecs/probe.md, clauses 1 and 2)."""
    if setup.kind == "pixels":
        images = torch.from_numpy(inputs.pixels(seed=setup.seed, count=setup.count, params=setup.params))
        return [{"pixel_values": batch} for batch in torch.split(images, BATCH)]
    made = inputs.tokens(seed=setup.seed, count=setup.count, params=setup.params)
    ids, mask = torch.from_numpy(made.ids), torch.from_numpy(made.mask)
    return [
        {"input_ids": some, "attention_mask": own}
        for some, own in zip(torch.split(ids, BATCH), torch.split(mask, BATCH), strict=True)
    ]
