"""What transformers calls a checkpoint's tensors in a model: drives its own loading rules, knows no model by name.

Since version 5 transformers renames tensors (`WeightRenaming`) and rearranges them (`WeightConverter`) on load. The
rules of a model come from `get_model_conversion_mapping` and are applied as `convert_and_load_state_dict_in_model`
does. Neither is part of transformers' declared surface: where a version lacks them there are no rules.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
import transformers
from torch import nn

_NEEDED = {
    "WeightConverter": "transformers.core_model_loading",
    "WeightRenaming": "transformers.core_model_loading",
    "dot_natural_key": "transformers.core_model_loading",
    "rename_source_key": "transformers.core_model_loading",
    "get_model_conversion_mapping": "transformers.conversion_mapping",
}


@dataclass(frozen=True, slots=True)
class Rules:
    """A model's loading rules, in transformers' own objects.

    Attributes:
        renamings: Each is applied in turn.
        converters: At most one applies to a tensor.
        prefix: What precedes the names of a model's body in a model with a head, without the dot.
        internals: transformers' functions and classes that drive the rules, by name.
    """

    renamings: Sequence[Any]
    converters: Sequence[Any]
    prefix: str
    internals: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one checkpoint tensor.

    Attributes:
        target: Name in the model, which the model may lack.
        renamed: Name as the converter sees it.
        pattern: Which of the converter's patterns it matches; empty without a converter.
        converter: What rearranges it; None if nothing does.
    """

    target: str
    renamed: str
    pattern: str = ""
    converter: Any = None


def is_transformers(model: nn.Module) -> bool:
    """Whether transformers' loading rules apply to this model."""
    return isinstance(model, transformers.PreTrainedModel)


def find_rules(model: nn.Module) -> Rules | None:
    """The rules of a transformers model; None if this version does not have them where expected."""
    try:
        internals = {name: getattr(import_module(module), name) for name, module in _NEEDED.items()}
        standard = internals["get_model_conversion_mapping"](model)
        transforms = [*_given_on_load(model, standard), *standard]
        rules = Rules(
            [rule for rule in transforms if isinstance(rule, internals["WeightRenaming"])],
            [rule for rule in transforms if isinstance(rule, internals["WeightConverter"])],
            str(model.base_model_prefix),
            internals,
        )
        follow(rules, ["."], {})  # a changed signature shows here, where it can be told from a wrong name
    except (ImportError, AttributeError, TypeError):
        return None
    return rules


def _given_on_load(model: nn.Module, standard: Iterable[Any]) -> list[Any]:
    """Rules that a call to `from_pretrained` brought along (`key_mapping`), which come before the standard ones."""
    known = {repr(rule) for rule in standard}
    used: Any = getattr(model, "_weight_conversions", None) or ()
    return [deepcopy(rule) for rule in used if repr(rule) not in known]


def follow(rules: Rules, names: Iterable[str], live: Mapping[str, torch.Tensor]) -> dict[str, Step]:
    """What becomes of every tensor of a checkpoint.

    Args:
        rules: The model's rules.
        names: All names of the checkpoint; some rules act on one name only if another is there.
        live: The model's tensors by name.
    """
    return {name: _step(rules, name, live) for name in sorted(names, key=rules.internals["dot_natural_key"])}


def _step(rules: Rules, name: str, live: Mapping[str, torch.Tensor]) -> Step:
    rename = rules.internals["rename_source_key"]
    renamed = name
    for rule in rules.renamings:
        renamed, _ = rule.rename_source_key(renamed)
    target, pattern = rename(renamed, [], rules.converters, rules.prefix, live)
    if target not in live and name in live:
        return Step(name, name)
    if pattern is None:
        return Step(target, renamed)
    owner = next(rule for rule in rules.converters if rule.rename_source_key(renamed)[1] == pattern)
    return Step(target, renamed, pattern, owner)


def follow_plainly(model: nn.Module, names: Iterable[str], live: Mapping[str, torch.Tensor]) -> dict[str, Step]:
    """What becomes of every tensor where no rules are known: names stay, but for the prefix of a model's body."""
    prefix = f"{model.base_model_prefix}." if is_transformers(model) else ""
    steps = {}
    for name in names:
        choices = (name, name.removeprefix(prefix), prefix + name)
        steps[name] = Step(next((choice for choice in choices if choice in live), name), name)
    return steps
