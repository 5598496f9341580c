"""Checkpoint tensors that transformers rearranges into one live tensor, such as the experts of a mixture."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sparsetv.errors import NamesError, ShapeError
from sparsetv.places.conversion import Rules, Step
from sparsetv.places.markers import Layout, Shape, find_layouts


@dataclass(frozen=True, slots=True)
class Source:
    """One tensor that a converter takes.

    Attributes:
        name: Name in the checkpoint; the converter's own for one that the checkpoint is not known to have.
        step: What becomes of it.
        shape: Shape in the checkpoint.
        expected: Shape that the live tensor asks for, where the converter can be reversed.
    """

    name: str
    step: Step
    shape: Shape
    expected: Shape


def complete(rules: Rules, model: nn.Module, given: Mapping[str, tuple[Step, Shape]], *, shape: Shape) -> list[Source]:
    """All tensors that a converter takes to make one live tensor, in the order in which it takes them.

    The converter's own reverse tells which there are. Those that are not given have the shape of a given one of the
    same pattern, else what the live tensor asks for. A converter that cannot be reversed gets what is given.

    Args:
        rules: The model's rules.
        model: The model.
        given: Step and shape by name of those that the checkpoint is known to have.
        shape: Shape of the live tensor.
    """
    short = f"{rules.prefix}."
    own = {step.renamed.removeprefix(short): name for name, (step, _) in given.items()}
    any_step = next(iter(given.values()))[0]
    shapes = {step.pattern: own_shape for step, own_shape in given.values()}
    found: dict[str, Source] = {}
    for renamed, expected in _reverse(model, any_step, shape).items():
        pattern = any_step.converter.rename_source_key(renamed)[1] or ""
        step = Step(any_step.target, renamed, pattern, any_step.converter)
        name = own.get(renamed.removeprefix(short), renamed)
        step, own_shape = given.get(name, (step, shapes.get(pattern, expected)))
        found[name] = Source(name, step, own_shape, expected)
    if not given.keys() <= found.keys():
        found = {name: Source(name, step, own_shape, own_shape) for name, (step, own_shape) in given.items()}
    natural = rules.internals["dot_natural_key"]
    return sorted(found.values(), key=lambda source: natural(source.step.renamed.removeprefix(short)))


def fuse(model: nn.Module, sources: Sequence[Source], *, shape: Shape) -> list[Layout]:
    """Where the entries of all sources of one live tensor lie in it.

    Args:
        model: The model.
        sources: What the converter takes, in order.
        shape: Shape of the live tensor.

    Raises:
        NamesError: transformers cannot convert them, or does more than move their entries evenly.
        ShapeError: They do not give a tensor of this shape.

    Cost:
        About twice the live tensor's entries at 1 to 4 bytes each, for a moment.
    """
    first = sources[0]
    what = f"{first.name} becomes part of {first.step.target} through {first.step.converter.operations}"
    shapes = [source.shape for source in sources]
    try:
        made = _convert(model, sources, [torch.empty(each, device="meta") for each in shapes]).shape
        layouts = find_layouts(shapes, lambda tensors: _convert(model, sources, tensors)) if made == shape else None
    except Exception as error:  # operations raise anything at all for tensors that do not fit
        _check_shapes(sources)
        raise NamesError(f"{what}, which transformers cannot do ({error}); check that the checkpoint fits") from error
    if made != shape:
        _check_shapes(sources)
        raise ShapeError(
            f"{what}; {len(sources)} tensors of the checkpoint give shape {tuple(made)} but the model has {shape}; "
            f"attach to a model of the base's configuration, and pass the shapes of all tensors of the checkpoint"
        )
    if layouts is None:
        raise NamesError(
            f"{what}, which is no even rearrangement of its entries, so deltas cannot be placed one by one; "
            f"stitch the checkpoint and load that instead"
        )
    return layouts


def _check_shapes(sources: Sequence[Source]) -> None:
    for source in sources:
        if source.shape != source.expected:
            raise ShapeError(
                f"{source.name} has shape {source.shape} in the checkpoint, but {source.step.target} of the model "
                f"asks for {source.expected}; attach to a model of the base's configuration"
            )


def _convert(model: Any, sources: Sequence[Source], tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The one tensor that transformers makes of these."""
    step = sources[0].step
    converter = deepcopy(step.converter)
    for source, tensor in zip(sources, tensors, strict=True):
        converter.add_tensor(step.target, source.name, source.step.pattern, tensor)
    made = converter.convert(step.target, model=model, config=model.config)
    if list(made) != [step.target]:
        raise ValueError(f"it gives {', '.join(made)}")
    return _single(made[step.target])


def _reverse(model: Any, step: Step, shape: Shape) -> dict[str, Shape]:
    """Names and shapes of what a converter takes to make a tensor of this shape; empty if it cannot be reversed."""
    back = deepcopy(step.converter)
    try:
        back = back.reverse_transform()
        name, pattern = back.rename_source_key(step.target)
        if pattern is None:
            return {}
        back.add_tensor(name, step.target, pattern, torch.empty(shape, device="meta"))
        made = back.convert(name, model=model, config=model.config)
        return {key: tuple(_single(value).shape) for key, value in made.items()}
    except Exception:  # operations raise anything at all, NotImplementedError first
        return {}


def _single(value: Any) -> torch.Tensor:
    tensor: torch.Tensor = value[0] if isinstance(value, list) else value
    return tensor
