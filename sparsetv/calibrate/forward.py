"""Running a model on probe inputs: hidden states after every block, and what a file records."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from sparsetv.arrays import Values
from sparsetv.calibrate import inputs
from sparsetv.errors import ProbeError

WIDTH = 64
"""Outputs wider than this are projected (probe.md, clause 3)."""

COUNT = 128
SHORTEST, LONGEST = 6, 31
_BATCH = 64
_CAUSAL = ("ForCausalLM", "LMHeadModel")


@dataclass(frozen=True, slots=True)
class Setup:
    """Which inputs a model takes: kind and parameters of formats/codecs/probe.md, and the seed."""

    kind: str
    seed: int
    count: int
    params: Mapping[str, int | float | str]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model answers.

    Attributes:
        blocks: Hidden states after each block at all unmasked positions, each shape (positions, hidden), float32.
        outputs: Shape (count, width), float32: what a file records.
        recorded: Name of what `outputs` holds.
    """

    blocks: list[torch.Tensor]
    outputs: Values
    recorded: str


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
    causal = type(model).__name__.endswith(_CAUSAL)
    pad = getattr(config, "pad_token_id", None)
    params = {
        "vocabulary": int(vocabulary),
        "shortest": SHORTEST,
        "longest": LONGEST,
        "first": frame[0],
        "last": -1 if causal else frame[1],
        "pad": int(pad) if isinstance(pad, int) and 0 <= pad < vocabulary else 0,
    }
    return Setup("causal" if causal else "tokens", seed, count, params)


def answers(model: nn.Module, setup: Setup) -> Answers:
    """Run a model on the probe's inputs.

    Raises:
        ProbeError: It cannot be run, or gives no hidden states.
    """
    feeds = _feeds(setup)
    blocks: list[list[torch.Tensor]] = []
    outputs: list[torch.Tensor] = []
    recorded = ""
    with torch.inference_mode():
        for feed in feeds:
            result = _run(model, feed)
            mask = feed.get("attention_mask")
            states = [_unmasked(state, mask) for state in result.hidden_states[1:]]
            blocks.append(states)
            recorded, output = _record(result, mask, setup.kind)
            outputs.append(output)
    joined = [torch.cat([batch[layer] for batch in blocks]) for layer in range(len(blocks[0]))]
    values = torch.cat(outputs).float().numpy()
    if values.shape[1] > WIDTH:
        values = values @ inputs.projection(seed=setup.seed, rows=values.shape[1], columns=WIDTH)
        recorded = f"{recorded}/{WIDTH}"
    if not np.isfinite(values).all() or not all(bool(torch.isfinite(state).all()) for state in joined):
        raise ProbeError("the model's outputs on random inputs are not finite")
    return Answers(joined, np.ascontiguousarray(values, np.float32), recorded)


def _feeds(setup: Setup) -> list[dict[str, torch.Tensor]]:
    if setup.kind == "pixels":
        images = torch.from_numpy(inputs.pixels(seed=setup.seed, count=setup.count, params=setup.params))
        return [{"pixel_values": batch} for batch in torch.split(images, _BATCH)]
    made = inputs.tokens(seed=setup.seed, count=setup.count, params=setup.params)
    ids, mask = torch.from_numpy(made.ids), torch.from_numpy(made.mask)
    return [
        {"input_ids": some, "attention_mask": own}
        for some, own in zip(torch.split(ids, _BATCH), torch.split(mask, _BATCH), strict=True)
    ]


def _run(model: nn.Module, feed: dict[str, torch.Tensor]) -> Any:
    try:
        result = model(**feed, output_hidden_states=True, return_dict=True)
    except Exception as error:  # a model may raise anything at all
        raise ProbeError(f"{type(model).__name__} cannot be run on random inputs ({error})") from error
    if not getattr(result, "hidden_states", None):
        raise ProbeError(f"{type(model).__name__} gives no hidden states")
    return result


def _unmasked(state: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    flat = state.flatten(1, -2) if state.dim() > 3 else state
    if mask is None or flat.shape[:2] != mask.shape:
        return flat.reshape(-1, flat.shape[-1]).float()
    return flat[mask.bool()].float()


def _record(result: Any, mask: torch.Tensor | None, kind: str) -> tuple[str, torch.Tensor]:
    logits = getattr(result, "logits", None)
    if kind == "causal" and logits is not None and mask is not None:
        return "last", logits[torch.arange(len(mask)), mask.sum(dim=1) - 1]
    if logits is not None and logits.dim() == 2:
        return "logits", logits
    return "hidden", result.hidden_states[-1].flatten(1, -2)[:, 0]
