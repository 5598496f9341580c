"""Examples as the tensors that a transformers model takes, labels among them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparsetv.errors import FormatError, NotFoundError, UsageError
from sparsetv.examples.hub import Pixels
from sparsetv.examples.reading import Example
from sparsetv.models import is_causal

MAX_LENGTH = 128
IGNORED = -100
"""Label of a position that no loss counts."""

Batch = dict[str, torch.Tensor]
"""Inputs by name, and `labels`: shape (n,) of classes, or (n, length) of next tokens; int64."""


def encode(
    model: nn.Module, processor: Any, examples: Sequence[Example], *, batch_size: int, max_length: int = MAX_LENGTH
) -> list[Batch]:
    """Batches of examples, in their order.

    Args:
        model: A transformers classifier of texts or images, or a causal language model.
        processor: Its tokenizer or image processor.
        examples: Examples of one kind.
        batch_size: Examples per batch; the last one may have fewer.
        max_length: Longer texts are cut to so many tokens, or fewer where the model has fewer positions.

    Raises:
        UsageError: A label that the model does not have.
        NotFoundError, FormatError: An image is not there, or is none.
    """
    parts = [examples[start : start + batch_size] for start in range(0, len(examples), batch_size)]
    if is_causal(model):
        limit = fit_length(model, processor, max_length)
        return [_causal(processor, part, limit) for part in parts]
    if examples and examples[0].kind == "image":
        mode = "L" if getattr(model.config, "num_channels", 3) == 1 else "RGB"
        return [{**_images(processor, part, mode), **_labels(model, part)} for part in parts]
    limit = fit_length(model, processor, max_length)
    return [{**_texts(processor, part, limit), **_labels(model, part)} for part in parts]


def fit_length(model: nn.Module, tokenizer: Any, max_length: int) -> int:
    """Give a tokenizer without padding one, and cap the length at what the model has positions for."""
    config: Any = model.config
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        config.pad_token_id = tokenizer.pad_token_id
    positions = [getattr(config, "max_position_embeddings", None), tokenizer.model_max_length]
    known = [limit for limit in positions if isinstance(limit, int) and limit > 0]
    return min([max_length, *known])


def class_index(model: nn.Module, label: int | str) -> int:
    """The class that a label names.

    Raises:
        UsageError: The model has none such.
    """
    config: Any = model.config
    if isinstance(label, int):
        if not 0 <= label < config.num_labels:
            raise UsageError(f"label {label} lies outside the model's {config.num_labels} classes")
        return label
    known: dict[str, int] = dict(config.label2id or {})
    if label not in known:
        raise UsageError(f"label {label!r} is none of the model's: {', '.join(sorted(known)[:8])}")
    return int(known[label])


def _labels(model: nn.Module, examples: Sequence[Example]) -> Batch:
    """Classes of labelled examples; nothing where one has no label."""
    found = [class_index(model, example.label) for example in examples if example.label is not None]
    return {"labels": torch.tensor(found)} if len(found) == len(examples) else {}


def _texts(tokenizer: Any, examples: Sequence[Example], max_length: int) -> Batch:
    pairs = [example.pair for example in examples]
    second = None if None in pairs else pairs
    texts = [example.text for example in examples]
    encoded = tokenizer(texts, second, truncation=True, max_length=max_length, padding=True, return_tensors="pt")
    return dict(encoded)


def _causal(tokenizer: Any, examples: Sequence[Example], max_length: int) -> Batch:
    """Prompts with what shall follow; the loss counts the completion alone, or all of a text without one."""
    rows, counted = [], []
    for example in examples:
        prompt = tokenizer(example.text)["input_ids"]
        added = []
        if example.completion is not None:
            added = tokenizer(example.completion, add_special_tokens=False)["input_ids"]
            added += [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        rows.append((prompt + added)[:max_length])
        counted.append(([IGNORED] * len(prompt) + added if added else prompt)[:max_length])
    if not any(label != IGNORED for labels in counted for label in labels):
        raise UsageError(f"no completion fits into {max_length} tokens beside its prompt; raise --max-length")
    width = max(map(len, rows))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    return {
        "input_ids": torch.tensor([row + [pad] * (width - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
        "labels": torch.tensor([row + [IGNORED] * (width - len(row)) for row in counted]),
    }


def _images(processor: Any, examples: Sequence[Example], mode: str) -> Batch:
    """Pixels of image files, in grey (`L`) or in colour (`RGB`) whatever the files hold."""
    try:
        from PIL import Image, UnidentifiedImageError  # noqa: PLC0415  an extra
    except ImportError:
        raise NotFoundError("images need the package pillow: pip install 'sparsetv[data]'") from None
    opened = []
    for example in examples:
        source = example.image or Path()
        where = source.where if isinstance(source, Pixels) else str(source)
        if isinstance(source, Path) and not source.is_file():
            raise NotFoundError(f"{where}: no such image")
        try:
            with Image.open(source.open() if isinstance(source, Pixels) else source) as image:
                opened.append(image.convert(mode))
        except (UnidentifiedImageError, OSError) as error:
            raise FormatError(f"{where}: cannot be read as an image ({error})") from None
    return {"pixel_values": processor(images=opened, return_tensors="pt")["pixel_values"]}
