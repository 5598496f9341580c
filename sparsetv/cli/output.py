"""How commands speak: data on stdout, messages and progress on stderr."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import Any

import click

from sparsetv.progress import Progress


def message(text: str) -> None:
    """A line for the person at the terminal."""
    click.echo(plain(text), err=True)


def plain(text: str) -> str:
    """One line, without characters that a terminal would obey."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))


def print_json(value: Any) -> None:
    """A value, or a dataclass, as indented JSON on stdout."""
    plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    click.echo(json.dumps(plain, indent=2, ensure_ascii=False, default=list))


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """A function `(what, done, total)` that draws bars on stderr, after a second and only on a terminal."""
    from tqdm import tqdm

    bars: dict[str, Any] = {}

    def update(what: str, done: int, total: int) -> None:
        if what not in bars:
            bars[what] = tqdm(total=total, desc=what, unit="", unit_scale=True, delay=1, disable=None, leave=False)
        bars[what].update(done - bars[what].n)

    try:
        yield update
    finally:
        for bar in bars.values():
            bar.close()


def parse_numbers(pairs: tuple[str, ...], option: str) -> dict[str, float]:
    """`NAME=NUMBER` words as a dict."""
    numbers = {}
    for name, text in _split((pair.rpartition("=") for pair in pairs), option, "NAME=NUMBER").items():
        try:
            numbers[name] = float(text)
        except ValueError:
            raise click.BadParameter(f"'{name}={text}' is not NAME=NUMBER", param_hint=option) from None
    return numbers


def parse_pairs(pairs: tuple[str, ...], option: str) -> dict[str, str]:
    """`NAME=VALUE` words as a dict."""
    return _split((pair.partition("=") for pair in pairs), option, "NAME=VALUE")


def _split(parts: Iterable[tuple[str, str, str]], option: str, form: str) -> dict[str, str]:
    found = {}
    for name, sign, text in parts:
        if not sign or not name:
            raise click.BadParameter(f"{name + sign + text!r} is not {form}", param_hint=option)
        found[name] = text
    return found
