"""The option `--max-memory`, which all commands that read task files share."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from sparsetv.units import parse_bytes

_Callback = Callable[..., None]


def _size(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else parse_bytes(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def max_memory(command: _Callback) -> _Callback:
    """Give a command the option; what it reads is bounded by it."""

    @click.option(
        "--max-memory",
        "limit",
        callback=_size,
        metavar="SIZE",
        help="Most memory for what task files hold, such as 500MB; a file that needs more is refused before it is "
        "decoded.  [default: 8GiB]",
    )
    @wraps(command)
    def bounded(*words: Any, limit: int | None, **options: Any) -> None:
        if limit is None:
            return command(*words, **options)
        from sparsetv.container.limits import memory_limit

        with memory_limit(limit):
            return command(*words, **options)

    return bounded
