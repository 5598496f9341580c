"""The demo's network: a vision transformer of about 0.8 million parameters."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from transformers import ViTConfig, ViTForImageClassification, ViTModel
from transformers.utils import logging

from sparsetv.demo.data import SIDE


def new_classifier(classes: tuple[str, ...]) -> nn.Module:
    """A `ViTForImageClassification` whose weights come from torch's global generator."""
    model: nn.Module = ViTForImageClassification(_config(classes))
    return model


def with_new_head(body: nn.Module, classes: tuple[str, ...]) -> nn.Module:
    """A classifier with a copy of `body`, and a head from torch's global generator."""
    model = new_classifier(classes)
    model.get_submodule("vit").load_state_dict(body.state_dict())
    return model


def save_body(classifier: nn.Module, directory: Path) -> None:
    """Save a classifier without its head: as a bare `ViTModel`, which is what most published bases are.

    The names in the file then lack the prefix `vit.` that those of every fine-tune have.
    """
    body = ViTModel(_config(()), add_pooling_layer=False)
    body.load_state_dict(classifier.get_submodule("vit").state_dict())
    _save(body, directory)


def read_body(directory: Path) -> nn.Module:
    """The `ViTModel` that `save_body` wrote."""
    with _no_progress_bars():
        body: nn.Module = ViTModel.from_pretrained(directory, add_pooling_layer=False, trust_remote_code=False)
    return body


def save_classifier(model: nn.Module, directory: Path) -> None:
    """Save a classifier with its head and the names of its classes."""
    _save(model, directory)


def read_classifier(directory: Path) -> nn.Module:
    """The `ViTForImageClassification` in a directory, in evaluation mode."""
    with _no_progress_bars():
        model: nn.Module = ViTForImageClassification.from_pretrained(directory, trust_remote_code=False)
    return model


def _save(model: Any, directory: Path) -> None:
    with _no_progress_bars():
        model.save_pretrained(directory)


def _config(classes: tuple[str, ...]) -> ViTConfig:
    """Configuration of a classifier, or without classes of the bare body.

    An image is four patches of 4x4 pixels and the class token; with patches of 2x2 training takes three times as
    long, and in the same time ends at a lower accuracy. Weights start near 1 / sqrt(hidden size): the library's 0.02
    is meant for a width of 768 and a far longer training.
    """
    labels = {"id2label": dict(enumerate(classes)), "label2id": {name: i for i, name in enumerate(classes)}}
    return ViTConfig(
        image_size=SIDE,
        patch_size=4,
        num_channels=1,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.1,
        **(labels if classes else {}),
    )


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing bars of its own while a small checkpoint is read or written."""
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()
