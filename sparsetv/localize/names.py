"""Localizers by name, imported when they are used: only those that learn need torch."""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from sparsetv.errors import UsageError
from sparsetv.localize.problem import Localized, Problem

LOCALIZERS = ("magnitude", "learned", "grafting", "saliency", "tall", "random")
LEARNING = ("learned", "grafting", "saliency")
"""Those that need an objective."""

Settings = Mapping[str, float | str | bool]
"""Values of a localizer's own keyword parameters by name."""


def run_localizer(name: str, problem: Problem, settings: Settings | None = None) -> Localized:
    """Run a localizer by name.

    Raises:
        UsageError: There is none of that name, or it has no such setting.
    """
    given = check_settings(name, settings or {})
    localizer: Any = _find(name)
    found: Localized = localizer(problem, **given)
    return found


def check_settings(name: str, settings: Settings) -> dict[str, Any]:
    """Settings of a localizer in the types that it takes.

    Raises:
        UsageError: There is no localizer of that name, it has no such setting, or a value is of another type.
    """
    known = {
        key: parameter
        for key, parameter in inspect.signature(_find(name)).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    unknown = sorted(settings.keys() - known.keys())
    if unknown:
        raise UsageError(f"{name} has no setting {unknown[0]!r}; it has {', '.join(known) or 'none'}")
    return {key: _convert(f"{name}, {key}", value, known[key].default) for key, value in settings.items()}


def _find(name: str) -> Any:
    if name not in LOCALIZERS:
        raise UsageError(f"unknown localizer {name!r}; known are {', '.join(LOCALIZERS)}")
    return getattr(import_module(f"sparsetv.localize.{name}"), name)


def _convert(what: str, value: Any, default: Any) -> Any:
    """A value, possibly the command line's text, in the type of the parameter's default (None: a number)."""
    wanted: Any = float if default is None else type(default)
    if wanted is bool and str(value).lower() in {"true", "false", "1", "0"}:
        return str(value).lower() in {"true", "1"}
    try:
        made = wanted(value)
        if wanted is bool or (wanted is int and float(value) != made):
            raise ValueError
    except (TypeError, ValueError):
        raise UsageError(f"{what}: {value!r} is no {wanted.__name__}") from None
    return made
