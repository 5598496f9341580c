"""Changes to JSON values, in place, and to their text."""

import json
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

from fuzz.byte_changes import scramble
from fuzz.odd import JUNK, NUMBERS, SPELLINGS, WORDS

Path = tuple[str | int, ...]


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """Places of all values inside a value, but its own."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield from paths(child, (*path, key))


def at(value: Any, path: Path) -> Any:
    """What stands at a place."""
    for key in path:
        value = value[key]
    return value


def change_value(source: random.Random, value: Any, roots: Sequence[Path] = ((),)) -> None:
    """Another value somewhere below one of the roots."""
    root = source.choice(roots)
    inside = [(*root, *path) for path in paths(at(value, root))]
    if not inside:
        return
    path = source.choice(inside)
    at(value, path[:-1])[path[-1]] = _other(source, at(value, path), value)


def _other(source: random.Random, old: Any, whole: Any) -> Any:
    kind = source.randrange(8)
    if kind < 3:
        return _near(source, old)
    if kind == 3:
        return json.loads(json.dumps(source.choice(JUNK)))
    if kind == 4:
        return source.choice(WORDS)
    if kind == 5:
        return json.loads(json.dumps(at(whole, source.choice(list(paths(whole))))))
    return source.choice(NUMBERS)


def _near(source: random.Random, old: Any) -> Any:
    if isinstance(old, bool | int | float):
        return source.choice([old + 1, old - 1, old * 2, -old, source.choice(NUMBERS), bool(old)])
    if isinstance(old, str):
        place = source.randrange(len(old) + 1)
        changed = old[:place] + source.choice("0af. /\n") + old[place + 1 :]
        return source.choice([changed, old[:place], old + old])
    if isinstance(old, list):
        return source.choice([old[1:], old[:-1], old + old, old[::-1], [old], source.sample(old, len(old))])
    return source.choice(NUMBERS)


def change_keys(source: random.Random, value: Any) -> None:
    """A key or an element too many or too few, or two that changed places."""
    holders = [path for path in [(), *paths(value)] if isinstance(at(value, path), dict | list)]
    if not holders:
        return
    holder = at(value, source.choice(holders))
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    kind = source.randrange(4)
    if kind == 0 and isinstance(holder, dict):
        holder[source.choice(["", "x", "shifts", "bias", "of", "base", "a.weight"])] = source.choice(NUMBERS)
    elif kind == 1 and isinstance(holder, list):
        holder.insert(source.randrange(len(holder) + 1), source.choice([0, "x", [], {}, *holder]))
    elif kind == 2 and len(keys) > 1:
        first, second = source.sample(keys, 2)
        holder[first], holder[second] = holder[second], holder[first]
    elif keys:
        del holder[source.choice(keys)]


def change(source: random.Random, value: Any, roots: Sequence[Path] = ((),)) -> None:
    """Another value, or now and then other keys."""
    if source.randrange(4):
        change_value(source, value, roots)
    else:
        change_keys(source, value)


def respell(source: random.Random, text: bytes) -> bytes:
    """A text scrambled, or one value of it spelled in an odd way."""
    values = list(re.finditer(rb'(?<=[:,\[])("[^"]*"|[0-9.e+-]+|null)(?=[,\]}])', text))
    if source.randrange(2) or not values:
        return scramble(source, text)
    chosen = source.choice(values)
    return text[: chosen.start()] + source.choice(SPELLINGS) + text[chosen.end() :]


def parsed(text: bytes) -> Any | None:
    """The value of a JSON text; None where an earlier change left no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def change_text(source: random.Random, text: bytes) -> bytes:
    """A JSON text with another spelling, other values or other keys."""
    value = parsed(text)
    if value is None or not source.randrange(4):
        return respell(source, text)
    for _ in range(source.choice([1, 1, 2])):
        change(source, value)
    return json.dumps(value, separators=(",", ":")).encode()
