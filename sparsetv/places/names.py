"""Where the tensors of a checkpoint lie in a live model.

Task vectors are addressed by the checkpoint's own names and flat positions. A model's parameters may have other names,
and one of them may hold many of the checkpoint's tensors. For a transformers model the map comes from transformers'
own loading rules (`conversion`), run on marked tensors (`fusing`); any other model is matched by its state names.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import transformers
from torch import nn

from sparsetv.errors import NamesError, ShapeError, SparseTVError
from sparsetv.places.conversion import Rules, Step, find_rules, follow, follow_plainly, is_transformers
from sparsetv.places.fusing import complete, fuse
from sparsetv.places.markers import Layout, Shape, row_major
from sparsetv.places.place import Place
from sparsetv.places.state import State, check_writable, unwrap

_SHOWN = 4


@dataclass(frozen=True, slots=True)
class _Search:
    """What is known while places are looked for.

    Attributes:
        state: The model.
        shapes: Shape per checkpoint tensor.
        rules: transformers' rules for the model, if any.
        steps: What becomes of every checkpoint tensor.
        groups: Checkpoint names per live tensor that a converter makes.
        fused: Layouts per live tensor that a converter makes, as far as looked for.
        alike: The same by what they depend on, which the layers of a model share.
    """

    state: State
    shapes: Mapping[str, Shape]
    rules: Rules | None
    steps: Mapping[str, Step]
    groups: Mapping[str, list[str]]
    fused: dict[str, dict[str, Layout]] = field(default_factory=dict)
    alike: dict[tuple[Any, ...], list[Layout]] = field(default_factory=dict)


def find_places(
    model: nn.Module, shapes: Mapping[str, Shape], *, names: Collection[str] | None = None
) -> dict[str, Place]:
    """Where checkpoint tensors lie in a live model.

    Wrappers of `torch.compile` and of data parallelism are seen through. Where the model ties weights, a tensor has a
    place under each name that the checkpoint has, and these share their storage.

    Args:
        model: A transformers model, or any module whose state names are the checkpoint's.
        shapes: Shape per tensor of the checkpoint, by its own names. All of them, if known: some rules of
            transformers act on one name only if another is there.
        names: Which tensors need a place; all of `shapes` if None.

    Returns:
        Place per name, ascending by name.

    Raises:
        NamesError: A tensor has no place, shares it with another, or transformers does more than move its entries.
        ShapeError: Shapes disagree, or the live tensor cannot be written entry by entry.

    Cost:
        Names only, but for tensors that transformers fuses: about twice the fused tensor's entries at 1 to 4 bytes
        each, for a moment, once per kind of layer.
    """
    places, problems = search_places(model, shapes, names=names)
    for problem in problems.values():
        raise problem
    return places


def search_places(
    model: nn.Module, shapes: Mapping[str, Shape], *, names: Collection[str] | None = None
) -> tuple[dict[str, Place], dict[str, SparseTVError]]:
    """`find_places`, with what it would raise by name of the tensor, so that tensors without a place hurt nobody."""
    search = _start(model, {name: tuple(shape) for name, shape in shapes.items()})
    places: dict[str, Place] = {}
    problems: dict[str, SparseTVError] = {}
    taken: dict[tuple[str, int], str] = {}
    for name in sorted(search.shapes if names is None else names):
        try:
            place = _place(search, name)
        except (NamesError, ShapeError) as problem:
            problems[name] = problem
            continue
        other = taken.setdefault((place.parameter, place.offset), name)
        if other != name and 0 not in place.shape:
            problems[name] = NamesError(
                f"{other} and {name} of the checkpoint both become {place.parameter} of {search.state.kind}, "
                f"which holds one of them; apply the task to the checkpoint instead"
            )
            continue
        places[name] = place
    return places, problems


def _start(model: nn.Module, shapes: Mapping[str, Shape]) -> _Search:
    state = unwrap(model)
    rules = find_rules(state.model) if is_transformers(state.model) else None
    if rules is None:
        steps = follow_plainly(state.model, shapes, state.tensors)
    else:
        steps = follow(rules, shapes, state.tensors)
    groups: dict[str, list[str]] = {}
    for name, step in steps.items():
        if step.converter is not None:
            groups.setdefault(step.target, []).append(name)
    return _Search(state, shapes, rules, steps, groups)


def _place(search: _Search, name: str) -> Place:
    if name not in search.shapes:
        raise NamesError(f"{name} is not among the shapes of the checkpoint; pass its shape too")
    step, shape, state = search.steps[name], search.shapes[name], search.state
    if step.target not in state.tensors:
        raise NamesError(_missing(search, name))
    tensor, parameter = state.tensors[step.target], state.names[step.target]
    check_writable(tensor, name=name, parameter=parameter)
    if step.converter is not None:
        layout = _fused(search, step)[name]
    elif tuple(tensor.shape) == shape:
        layout = row_major(shape)
    else:
        raise ShapeError(
            f"{name} has shape {shape} in the checkpoint, but {parameter} of {state.kind} has {tuple(tensor.shape)}; "
            f"attach to a model of the base's configuration, before its embeddings or heads are resized"
        )
    return Place(parameter, tensor, shape, layout.offset, layout.strides)


def _missing(search: _Search, name: str) -> str:
    """Why a tensor has no place."""
    state, target = search.state, search.steps[name].target
    known = sorted(state.tensors)
    has = ", ".join(known[:_SHOWN]) + (f", … ({len(known)} in all)" if len(known) > _SHOWN else "")
    if not is_transformers(state.model):
        remedy = "pass the model that the checkpoint belongs to, or the transformers model inside this one"
    elif search.rules is None:
        remedy = (
            f"transformers {transformers.__version__} does not have its conversion of checkpoints where expected, so "
            f"names that it changes on load cannot be followed; install the version that sparsetv was tested with"
        )
    else:
        remedy = "pass a model of a class that has it, or leave it out of the names that need a place"
    renamed = f" (as {target})" if target != name else ""
    return f"{name} of the checkpoint has no place in {state.kind}{renamed}, which has {has or 'no tensors'}; {remedy}"


def _fused(search: _Search, step: Step) -> dict[str, Layout]:
    """Layouts of all checkpoint tensors that a converter brings together in one live tensor."""
    target, rules, model = step.target, search.rules, search.state.model
    if target in search.fused:
        return search.fused[target]
    members = search.groups[target]
    if rules is None or len(step.converter.target_patterns) > 1:
        raise NamesError(
            f"{members[0]} of the checkpoint is split into {', '.join(step.converter.target_patterns)} when "
            f"{search.state.kind} is loaded, so no one live tensor holds it; apply the task to the checkpoint instead"
        )
    shape = tuple(search.state.tensors[target].shape)
    sources = complete(rules, model, {name: (search.steps[name], search.shapes[name]) for name in members}, shape=shape)
    key = (id(step.converter), shape, *((source.step.pattern, source.shape) for source in sources))
    if key not in search.alike:
        search.alike[key] = fuse(model, sources, shape=shape)
    search.fused[target] = dict(zip((source.name for source in sources), search.alike[key], strict=True))
    return search.fused[target]
