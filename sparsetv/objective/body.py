"""The tensors in scope of a live model, which move between base and fine-tune."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from sparsetv.arrays import Bits
from sparsetv.difference import TaskVector
from sparsetv.dtypes import to_float32
from sparsetv.errors import CheckpointError, ProbeError, UsageError
from sparsetv.objective.device import precisely
from sparsetv.objective.loss import Inputs, Objective
from sparsetv.places.names import search_places
from sparsetv.places.place import Place


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One tensor of the scope in a live model.

    Attributes:
        name: Base name.
        parameter: The live parameter that holds it.
        place: Where in the parameter it lies.
        live: The tensor in its checkpoint's shape, a float32 view of the parameter's memory: base plus what was added.
    """

    name: str
    parameter: nn.Parameter
    place: Place
    live: torch.Tensor

    def gradient(self) -> torch.Tensor:
        """The loss's gradient here, a view in the checkpoint's shape; zeros where no gradient arrived."""
        if self.parameter.grad is None:
            return torch.zeros_like(self.live)
        return self.place.within(self.parameter.grad.contiguous())


class Weights(Protocol):
    """The base's tensors: a checkpoint, or what a stitched directory remembers of one."""

    @property
    def names(self) -> tuple[str, ...]:
        """All names."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""

    def dtype(self, name: str) -> str:
        """Dtype of a tensor."""

    def bits(self, name: str) -> Bits:
        """Bit patterns of a tensor, flat."""


class Body:
    """A live model's tensors in scope, and gradients of an objective with respect to them.

    The base is copied into the model's own memory once; whoever moves a tensor adds to `Part.live` in place. No second
    copy of the base is held: `base` reads it from the checkpoint again.

    Args:
        weights: The base.
        names: Base names of the scope.
        objective: The model and what is asked of it.
        device: Where the model runs; the model is moved there. None for where its parameters are.
        needed: Names that the model must have a place for, all of `names` if None; others are left out without one.

    Raises:
        NamesError, ShapeError: A tensor of the scope has no place in the model.
        CheckpointError: A parameter is not float32.
        UsageError: The objective has no batches, or two tensors of the scope are one in the model.
    """

    def __init__(
        self,
        weights: Weights,
        names: Sequence[str],
        objective: Objective,
        *,
        device: torch.device | None = None,
        needed: Collection[str] | None = None,
    ) -> None:
        if not objective.batches:
            raise UsageError("there is nothing to learn from: no batches")
        self._weights, self.objective = weights, objective
        model = objective.model if device is None else objective.model.to(device)
        self.model = model
        self.device = next(model.parameters()).device
        shapes = {name: weights.shape(name) for name in weights.names}
        places, problems = search_places(model, shapes, names=names)
        for name in problems:
            if needed is None or name in needed:
                raise problems[name]
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self.parts = tuple(_part(name, parameters, place) for name, place in places.items())
        _check_apart(self.parts)

    def base(self, name: str) -> torch.Tensor:
        """The base's tensor, float32, on the model's device; a copy."""
        values = torch.from_numpy(np.array(to_float32(self._weights.bits(name), self._weights.dtype(name))))
        return values.reshape(self._weights.shape(name)).to(self.device)

    def reset(self) -> None:
        """Put the base's weights into the scope."""
        with torch.no_grad():
            for part in self.parts:
                part.live.copy_(self.base(part.name))

    @contextmanager
    def tuning(self, *, each: Callable[[Part, torch.Tensor], None] | None = None) -> Iterator[None]:
        """Tensors in scope start at the base and want gradients, dropout is off; afterwards all is as it was before.

        Args:
            each: Called in the backward pass with each tensor and its gradient as soon as that is known, after which
                the gradient is dropped, so that one tensor's gradient is held at a time; the tensor may be changed
                there. None to let gradients add up in the parameters until `clear`.
        """
        wanted = {id(part.parameter) for part in self.parts}
        before = [(parameter, parameter.requires_grad) for parameter in self.model.parameters()]
        modes = [(module, module.training) for module in self.model.modules()]
        hooks: list[Any] = []
        try:
            self.model.eval()
            self.reset()
            for parameter, _ in before:
                parameter.requires_grad_(id(parameter) in wanted)
            hooks += _listen(self.parts, each) if each is not None else []
            with _recomputing(self.model, wanted=self.objective.checkpointing):
                yield
        finally:
            for hook in hooks:
                hook.remove()
            self.clear()
            self.reset()
            for parameter, wants in before:
                parameter.requires_grad_(wants)
            for module, training in modes:
                module.training = training

    def clear(self) -> None:
        """Drop gradients."""
        for part in self.parts:
            part.parameter.grad = None

    def backward(self, batch: Inputs, *, share: float = 1.0) -> float:
        """Loss of one batch, after adding `share` times its gradient; raises where it is not finite."""
        inputs = {name: tensor.to(self.device) for name, tensor in batch.items()}
        with torch.enable_grad():
            with precisely(self.device, self.objective.precision):
                loss = self.objective.loss(self.model, inputs)
            if not bool(torch.isfinite(loss.detach())):
                raise ProbeError(f"the loss is {float(loss.detach())}; check the model and its data")
            if loss.requires_grad:
                (loss * share).backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def gradient(self, batches: Sequence[Inputs]) -> float:
        """Mean loss over batches; afterwards the parameters hold its gradient, each batch counting alike."""
        self.clear()
        share = 1 / len(batches)
        return sum(self.backward(batch, share=share) * share for batch in batches)

    def loss(self, batches: Sequence[Inputs]) -> float:
        """Mean loss over batches, without gradients."""
        total = 0.0
        with torch.no_grad(), precisely(self.device, self.objective.precision):
            for batch in batches:
                inputs = {name: tensor.to(self.device) for name, tensor in batch.items()}
                total += float(self.objective.loss(self.model, inputs)) / len(batches)
        return total


def delta_of(vector: TaskVector, name: str, device: torch.device) -> torch.Tensor:
    """Fine-tuned minus base, float32, in the base's shape, on a device; a copy."""
    deltas = np.concatenate([chunk.deltas() for chunk in vector.chunks(name)] or [np.zeros(0, np.float32)])
    return torch.from_numpy(deltas).reshape(vector.base.shape(name)).to(device)


def _part(name: str, parameters: dict[str, nn.Parameter], place: Place) -> Part:
    parameter = parameters.get(place.parameter)
    if parameter is None:
        raise CheckpointError(f"{name}: {place.parameter} is a buffer of the model, which no gradient reaches")
    if parameter.dtype != torch.float32:
        raise CheckpointError(
            f"{name}: {place.parameter} is {parameter.dtype}; learning needs float32 weights: call model.float(), "
            "and choose the precision bf16 for faster matrix products"
        )
    return Part(name, parameter, place, place.view)


def _check_apart(parts: Iterable[Part]) -> None:
    """Refuse tensors that share their memory in the model: what is added to one would be added to the other."""
    seen: dict[tuple[int, int], str] = {}
    for part in parts:
        key = (part.live.data_ptr(), part.live.numel())
        if part.live.numel() and key in seen:
            raise UsageError(
                f"{seen[key]} and {part.name} are one tensor in the model; leave one out: --scope '!{part.name}'"
            )
        seen[key] = part.name


def _listen(parts: Iterable[Part], each: Callable[[Part, torch.Tensor], None]) -> list[Any]:
    """Hooks that hand a parameter's gradient to `each`, tensor by tensor, and drop it."""
    members: dict[int, list[Part]] = {}
    for part in parts:
        members.setdefault(id(part.parameter), []).append(part)

    def arrived(parameter: torch.Tensor) -> None:
        with torch.no_grad():
            for part in members[id(parameter)]:
                each(part, part.gradient())
        parameter.grad = None

    hooks: list[Any] = []
    for held in members.values():
        register: Any = held[0].parameter.register_post_accumulate_grad_hook
        hooks.append(register(arrived))
    return hooks


@contextmanager
def _recomputing(model: Any, *, wanted: bool) -> Iterator[None]:
    """Gradient checkpointing, which transformers ties to training mode, with dropout off all the same."""
    if not wanted:
        yield
        return
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise UsageError(f"{type(model).__name__} has no gradient checkpointing; leave it off")
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"  # renamed in 5.2x
    getattr(model, f"{kind}_checkpointing_enable")()
    blocks = [module for module in model.modules() if getattr(module, "gradient_checkpointing", False)]
    for block in blocks:
        block.training = True  # this module alone: what it holds, dropout among it, stays in evaluation mode
    try:
        yield
    finally:
        getattr(model, f"{kind}_checkpointing_disable")()
