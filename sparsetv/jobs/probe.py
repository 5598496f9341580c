"""Running base, fine-tune and graft once, to find and store the scale that brings the skill back."""

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sparsetv.checkpoint.reading import Checkpoint
from sparsetv.compose.base import Base, base_of
from sparsetv.compose.mix import Active, mix
from sparsetv.compose.stitch import Patcher
from sparsetv.compose.undo import Undo
from sparsetv.compose.weights import Patches, Piece, patched, plan_as_task
from sparsetv.errors import ProbeError
from sparsetv.progress import Progress
from sparsetv.rules import Rule
from sparsetv.task_vector import Probe, SparseTaskVector

if TYPE_CHECKING:
    import torch
    from torch import nn

CEILING = 1.1
"""`match` gives at most this times the scale `graft`, which is near the best after AdamW and too large after SGD.

Without a ceiling the worst of five fine-tunes lost 0.022 accuracy against its best scale, with this one 0.015.
"""

AUTO_BYTES = 4 << 30
"""Fine-tunes above this size are probed only when asked: three copies in float32 must fit in memory."""


def add_probe(
    task: SparseTaskVector,
    base: Checkpoint,
    finetuned: Checkpoint,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> SparseTaskVector:
    """The task with its `match` scale and the fine-tune's outputs on seeded random inputs.

    Raises:
        ProbeError: The models cannot be built or run.
    """
    from sparsetv.calibrate.forward import choose_setup  # noqa: PLC0415  torch only where a model runs
    from sparsetv.calibrate.match import match  # noqa: PLC0415

    view = base_of(base, {})
    plain = task_model(view, task, None)
    setup = choose_setup(plain, frame=_frame(finetuned), seed=seed)
    graft = mix([Active(task, 1.0, "none", 1.0)], rule=Rule(), scale="none")
    found = match(
        plain,
        task_model(view, task, Patcher(view, graft, Undo())),
        _whole_model(task, finetuned),
        setup,
        ceiling=CEILING * math.sqrt(math.prod(task.norm_ratios())),
        progress=None if progress is None else lambda done, total: progress("match", done, total),
    )
    probe = Probe(
        kind=setup.kind,
        seed=setup.seed,
        count=setup.count,
        params=setup.params,
        recorded=found.target.recorded,
        outputs=found.target.outputs,
        scale=found.scale,
        distance=found.distance,
    )
    return replace(task, probe=probe)


def task_model(base: Base, task: SparseTaskVector, patches: Patches | None) -> "nn.Module":
    """The task's model class on a base's weights, with or without patches.

    Args:
        base: The base, or a merged directory seen as one.
        task: Gives class, head and names.
        patches: What changes per base tensor; None for nothing.

    Raises:
        ProbeError: The model cannot be built.
    """
    from sparsetv.models import build_model, parse_config  # noqa: PLC0415

    if "config.json" not in task.files:
        raise ProbeError(f"{task.name} carries no config.json, so its model class is not known")
    plans = plan_as_task(base, task)
    tensors = {piece.name: _tensor(base, piece, patches) for pieces in plans.values() for piece in pieces}
    return build_model(parse_config(task.files["config.json"]), tensors)


def _tensor(base: Base, piece: Piece, patches: Patches | None) -> "torch.Tensor":
    import numpy as np  # noqa: PLC0415

    from sparsetv.models import to_torch  # noqa: PLC0415

    patch = patches(piece.base) if patches is not None and piece.base else None
    parts = list(patched(base.raw(piece.base), piece.dtype, patch)) if piece.base else []
    parts += [] if piece.extra is None else [piece.extra]
    return to_torch(np.concatenate(parts), piece.dtype, piece.shape)


def _whole_model(task: SparseTaskVector, checkpoint: Checkpoint) -> "nn.Module":
    from sparsetv.models import build_model, to_torch  # noqa: PLC0415

    tensors = {
        task.finetuned.model_name(name): to_torch(checkpoint.raw(name), checkpoint.dtype(name), checkpoint.shape(name))
        for name in checkpoint.names
    }
    return build_model(checkpoint.config, tensors)


def _frame(checkpoint: Checkpoint) -> tuple[int, int]:
    """Token ids that begin and end a sequence, from the tokenizer beside the weights; -1 where unknown."""
    directory = checkpoint.location.directory
    has_tokenizer = directory is not None and any(
        Path(directory / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")
    )
    if not has_tokenizer:
        return -1, -1
    from transformers import AutoTokenizer  # noqa: PLC0415

    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    except Exception:
        return -1, -1
    ids = (tokenizer.cls_token_id, tokenizer.sep_token_id)
    return (-1, -1) if None in ids else ids
