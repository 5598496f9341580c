"""Live models from checkpoints: the base under a task's head, with or without what tasks change, and the fine-tune."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsetv.checkpoint.reading import Checkpoint
from sparsetv.compose.base import Base
from sparsetv.compose.mix import Active, mix
from sparsetv.compose.stitch import Patcher
from sparsetv.compose.undo import Undo
from sparsetv.compose.weights import Carrier, Patches, Piece, patched, plan_as_task
from sparsetv.errors import ProbeError
from sparsetv.rules import Rule
from sparsetv.task_vector import SparseTaskVector

if TYPE_CHECKING:
    import torch
    from torch import nn


TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_IMAGES = "preprocessor_config.json"


def task_model(base: Base, task: Carrier, patches: Patches | None) -> "nn.Module":
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


def graft(base: Base, task: SparseTaskVector, scale: float) -> Patches:
    """What one task alone changes in a base, at a scale."""
    return Patcher(base, mix([Active(task, 1.0, "number", scale)], rule=Rule(), scale=scale), Undo())


def _tensor(base: Base, piece: Piece, patches: Patches | None) -> "torch.Tensor":
    import numpy as np  # noqa: PLC0415

    from sparsetv.models import to_torch  # noqa: PLC0415

    patch = patches(piece.base) if patches is not None and piece.base else None
    parts = list(patched(base.raw(piece.base), piece.dtype, patch)) if piece.base else []
    parts += [] if piece.extra is None else [piece.extra]
    return to_torch(np.concatenate(parts), piece.dtype, piece.shape)


def whole_model(task: Carrier, checkpoint: Checkpoint) -> "nn.Module":
    """The fine-tune itself.

    Raises:
        ProbeError: It cannot be built.
    """
    from sparsetv.models import build_model, to_torch  # noqa: PLC0415

    tensors = {
        task.finetuned.model_name(name): to_torch(checkpoint.raw(name), checkpoint.dtype(name), checkpoint.shape(name))
        for name in checkpoint.names
    }
    return build_model(checkpoint.config, tensors)


def frame(checkpoint: Checkpoint) -> tuple[int, int]:
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


def find_processor(*directories: Path | None, images: bool = False) -> Any:
    """The tokenizer, or the image processor, of the first directory that has one.

    Raises:
        ProbeError: None has.
    """
    import transformers  # noqa: PLC0415

    wanted = (_IMAGES,) if images else TOKENIZERS
    kind = "image processor" if images else "tokenizer"
    loader: Any = transformers.AutoImageProcessor if images else transformers.AutoTokenizer
    named = [directory for directory in directories if directory is not None]
    for directory in named:
        if any((directory / name).is_file() for name in wanted):
            try:
                return loader.from_pretrained(directory, trust_remote_code=False)
            except (OSError, ValueError, ImportError) as error:
                raise ProbeError(f"{directory}: has no {kind} ({error})") from None
    where = " and ".join(map(str, named)) or "a file without its directory"
    raise ProbeError(f"{where}: has no {kind} ({', '.join(wanted[:3])}{', …' if len(wanted) > 3 else ''})")


def task_processor(files: Mapping[str, Path], task: Carrier, *, images: bool = False) -> Any:
    """The tokenizer or image processor that some files of a base give, with a task's own files over them.

    Raises:
        ProbeError: There is none.
    """
    with tempfile.TemporaryDirectory() as temporary:
        room = Path(temporary)
        for name, path in files.items():
            if "/" not in name and path.suffix in {".json", ".txt", ".model", ".jinja"}:
                (room / name).write_bytes(path.read_bytes())
        for name, content in task.files.items():
            (room / name).write_bytes(content)
        return find_processor(room, images=images)
