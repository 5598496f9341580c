"""How jobs tell how far they are."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with (what is under way, done, in all)."""


def counter(progress: Progress | None, what: str, total: int) -> Callable[[int], None]:
    """A function that adds up increments and reports the sum, at most `total`; silent without `progress`."""
    done = 0

    def count(increment: int) -> None:
        nonlocal done
        done = min(done + increment, total)
        if progress is not None:
            progress(what, done, total)

    return count
