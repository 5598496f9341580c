"""Task heads on a live model: what a task carries beside its kept entries, put in and taken back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sparsetv.errors import NamesError, ProbeError, ShapeError
from sparsetv.models import to_torch
from sparsetv.places.state import State
from sparsetv.task_vector import Extra, SparseTaskVector

_LABELS = ("num_labels", "id2label", "label2id", "problem_type")


@dataclass(frozen=True, slots=True)
class Head:
    """Whole tensors that a task carries, as a live model takes them.

    Attributes:
        tensors: By the model's own names, on the device and in the dtype of what they replace.
        labels: What the task's configuration says of its labels.
    """

    tensors: Mapping[str, torch.Tensor]
    labels: Mapping[str, Any]


def find_head(state: State, task: SparseTaskVector) -> Head:
    """What of a task's extras a live model takes.

    A model without any of the carried tensors (a body alone) takes none; the task's head is then its user's to apply.

    Raises:
        NamesError: The model has some of the carried tensors, but not all.
        ShapeError: The task adds rows to a tensor of the base.
    """
    own = {task.finetuned.model_name(name): extra for name, extra in task.extras.items()}
    for name, extra in own.items():
        if extra.kind == "rows":
            raise ShapeError(
                f"{task.name} adds {extra.shape[0]} rows to {name}, which a live model cannot grow in place; "
                "stitch it to a directory and load that"
            )
        if extra.kind == "alias":
            _check_tied(state, task, name, task.finetuned.model_name(extra.source))
    whole = {name: extra for name, extra in own.items() if extra.kind == "tensor"}
    known = [name for name in whole if name in state.tensors]
    lacking = sorted(whole.keys() - set(known))
    if known and lacking:
        raise NamesError(
            f"{task.name} carries {lacking[0]}, which {state.kind} lacks, and {known[0]}, which it has; "
            "attach to a model of the class that was fine-tuned"
        )
    tensors = {name: _like(state.tensors[name], whole[name]) for name in known}
    return Head(tensors, _labels(task) if known else {})


def _check_tied(state: State, task: SparseTaskVector, name: str, source: str) -> None:
    pair = [state.tensors[key] for key in (name, source) if key in state.tensors]
    if len(pair) == 2 and pair[0].data_ptr() != pair[1].data_ptr():
        raise NamesError(
            f"{task.name} ties {name} to {source}, but {state.kind} here holds them apart; load it with "
            "tie_word_embeddings, or stitch to a directory"
        )


def _like(live: torch.Tensor, extra: Extra) -> torch.Tensor:
    return to_torch(extra.data, extra.dtype, extra.shape).to(live.device, live.dtype)


def _labels(task: SparseTaskVector) -> dict[str, Any]:
    try:
        config = json.loads(task.files.get("config.json", b"{}"))
    except ValueError as error:
        raise ProbeError(f"{task.name}: its config.json is not JSON ({error})") from None
    if not isinstance(config, dict):
        return {}
    labels = {key: config[key] for key in _LABELS if key in config}
    if isinstance(labels.get("id2label"), dict):
        labels["id2label"] = {int(key): value for key, value in labels["id2label"].items()}
        labels["num_labels"] = len(labels["id2label"])
    return labels


class Heads:
    """Puts heads into a live model and remembers the model's own.

    A tensor of equal shape is written in place; one of another shape takes the parameter's place as its data, which
    compiled graphs notice.
    """

    def __init__(self, state: State) -> None:
        self._model = state.model
        self._saved: dict[str, torch.Tensor] = {}
        self._labels: dict[str, Any] | None = None

    def put(self, head: Head | None) -> None:
        """Bring the model's heads to those of a task; None for the model's own."""
        tensors = {} if head is None else head.tensors
        for name in self._saved.keys() - tensors.keys():
            _write(self._model, name, self._saved.pop(name))
        for name, tensor in tensors.items():
            if name not in self._saved:
                self._saved[name] = _find(self._model, name).detach().clone()
            _write(self._model, name, tensor)
        self._set_labels({} if head is None else head.labels)

    def _set_labels(self, labels: Mapping[str, Any]) -> None:
        config = getattr(self._model, "config", None)
        if config is None:
            return
        if self._labels is None:
            self._labels = {key: getattr(config, key, None) for key in _LABELS}
            self._labels["model"] = getattr(self._model, "num_labels", None)
        wanted = {**self._labels, **labels}
        for key in ("id2label", "label2id", "problem_type"):
            if wanted[key] is not None or getattr(config, key, None) is not None:
                setattr(config, key, wanted[key])
        if self._labels["model"] is not None:
            self._model.num_labels = labels.get("num_labels", self._labels["model"])


def _find(model: nn.Module, name: str) -> torch.Tensor:
    parent, _, leaf = name.rpartition(".")
    found: torch.Tensor = getattr(model.get_submodule(parent), leaf)
    return found


def _write(model: nn.Module, name: str, tensor: torch.Tensor) -> None:
    parameter = _find(model, name)
    if parameter.shape == tensor.shape:
        with torch.no_grad():
            parameter.copy_(tensor)
        return
    parameter.data = tensor.clone()
    parent = model.get_submodule(name.rpartition(".")[0])
    if isinstance(parent, nn.Linear):
        parent.out_features, parent.in_features = parent.weight.shape
