"""Accuracy of a sequence classifier."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sparsetv.errors import UsageError
from sparsetv.evaluation.data import Example

MAX_LENGTH = 128
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Share of examples whose label has the largest logit."""

    correct: int
    total: int

    @property
    def value(self) -> float:
        """`correct / total`."""
        return self.correct / self.total


def accuracy(
    model: nn.Module,
    tokenizer: Any,
    examples: Sequence[Example],
    *,
    max_length: int = MAX_LENGTH,
    progress: Callable[[int], None] | None = None,
) -> Accuracy:
    """Run a classifier over examples, batched by length.

    Args:
        model: A transformers sequence classifier, in evaluation mode.
        tokenizer: Its tokenizer.
        examples: What to classify.
        max_length: Longer inputs are cut to so many tokens, or fewer where the model has fewer positions.
        progress: Called with the examples of each batch when it is done.

    Raises:
        UsageError: A label that the model does not have.
    """
    labels = [_index(model, example.label) for example in examples]
    max_length = _fit(model, tokenizer, max_length)
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].text) + len(examples[i].pair or ""))
    correct = 0
    with torch.inference_mode():
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            logits = model(**_tokenize(tokenizer, [examples[i] for i in chosen], max_length)).logits
            wanted = torch.tensor([labels[i] for i in chosen])
            correct += int((logits.argmax(dim=-1) == wanted).sum())
            if progress is not None:
                progress(len(chosen))
    return Accuracy(correct, len(examples))


def _fit(model: nn.Module, tokenizer: Any, max_length: int) -> int:
    """Give a tokenizer without padding one, and cap the length at what the model has positions for."""
    config: Any = model.config
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        config.pad_token_id = tokenizer.pad_token_id
    positions = [getattr(config, "max_position_embeddings", None), tokenizer.model_max_length]
    known = [limit for limit in positions if isinstance(limit, int) and limit > 0]
    return min([max_length, *known])


def _tokenize(tokenizer: Any, examples: Sequence[Example], max_length: int) -> dict[str, torch.Tensor]:
    pairs = [example.pair for example in examples]
    second = None if None in pairs else pairs
    texts = [example.text for example in examples]
    encoded = tokenizer(texts, second, truncation=True, max_length=max_length, padding=True, return_tensors="pt")
    return dict(encoded)


def _index(model: nn.Module, label: int | str) -> int:
    config: Any = model.config
    if isinstance(label, int):
        if not 0 <= label < config.num_labels:
            raise UsageError(f"label {label} lies outside the model's {config.num_labels} classes")
        return label
    known: dict[str, int] = dict(config.label2id or {})
    if label not in known:
        raise UsageError(f"label {label!r} is none of the model's: {', '.join(sorted(known)[:8])}")
    return int(known[label])
