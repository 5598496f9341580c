"""Running a model on probe inputs: hidden states after every block, and what a file records."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from sparsetv.arrays import Values
from sparsetv.errors import ProbeError
from sparsetv.objective import inputs
from sparsetv.objective.setup import Setup, feeds

WIDTH = 64
"""Outputs wider than this are projected (probe.md, clause 3)."""


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


def answers(model: nn.Module, setup: Setup) -> Answers:
    """Run a model on the probe's inputs.

    Raises:
        ProbeError: It cannot be run, or gives no hidden states.
    """
    blocks: list[list[torch.Tensor]] = []
    outputs: list[torch.Tensor] = []
    recorded = ""
    with torch.inference_mode():
        for feed in feeds(setup):
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
