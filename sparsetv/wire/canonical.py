"""Canonical JSON: one text per value, so that equal content means equal bytes (SPEC 3.1)."""

import json
from typing import Any, NoReturn

from sparsetv.errors import FormatError

INTEGER_DIGITS = 20
"""SPEC 1.2, 3.1: most digits of an integer. 2**64 has 20; longer ones are only there to slow a parser down."""


def dumps(value: Any, *, what: str = "value") -> bytes:
    """Sorted keys, no whitespace, UTF-8."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise FormatError(f"{what}: a lone surrogate is no text") from None
    except ValueError:
        raise FormatError(f"{what}: a number is not finite") from None


def loads(data: bytes, *, what: str, depth: int, finite: bool = True) -> Any:
    """Parse JSON strictly; `finite=False` lets NaN and infinity pass.

    Raises:
        FormatError: Not UTF-8, not JSON, NaN or infinity, duplicate keys, huge integers, nested deeper than `depth`.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=lambda pairs: _unique(pairs, what),
            parse_constant=(lambda text: _refuse(text, what)) if finite else None,
            parse_int=lambda text: _integer(text, what),
        )
    except UnicodeDecodeError as error:
        raise FormatError(f"{what}: not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise FormatError(f"{what}: not JSON at character {error.pos} ({error.msg})") from None
    except RecursionError:
        raise FormatError(f"{what}: nested too deeply") from None
    _check_depth(value, depth, what)
    return value


def _unique(pairs: list[tuple[str, Any]], what: str) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise FormatError(f"{what}: key {twice!r} appears twice")
    return result


def _refuse(text: str, what: str) -> NoReturn:
    raise FormatError(f"{what}: {text} is not allowed")


def _integer(text: str, what: str) -> int:
    if len(text) > INTEGER_DIGITS:
        raise FormatError(f"{what}: integer of {len(text)} digits, limit {INTEGER_DIGITS}")
    if text == "-0":
        raise FormatError(f"{what}: -0 is no integer")
    return int(text)


def _check_depth(value: Any, depth: int, what: str) -> None:
    level = [value]
    for _ in range(depth + 1):
        nested = [item for item in level if isinstance(item, dict | list)]
        if not nested:
            return
        level = [child for item in nested for child in (item.values() if isinstance(item, dict) else item)]
    raise FormatError(f"{what}: nested deeper than {depth}")
