"""How the page writes numbers; what is not known is an empty cell."""

from typing import Any

from sparsetv.units import human_bytes

RANGE = "\N{EN DASH}"


def fixed(value: float | None, digits: int = 3) -> str:
    """A score: 0.873."""
    return "" if value is None else f"{value:.{digits}f}"


def pair(first: float | None, second: float | None) -> str:
    """Normalised and gap closed: 0.968 / 0.93."""
    if first is None:
        return ""
    return f"{first:.3f} / {RANGE if second is None else f'{second:.2f}'}"


def size(value: float | None) -> str:
    """Bytes: 403 kB."""
    return "" if value is None else human_bytes(value)


def percent(value: float | None) -> str:
    """A share, three digits: 0.418 %."""
    return "" if value is None else f"{100 * value:.3g} %"


def times(value: float | None) -> str:
    """A ratio, three digits: 2.31."""
    return "" if value is None else f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def seconds(value: float | None) -> str:
    """A time, three digits, at least milliseconds: 1.24 s."""
    if value is None:
        return ""
    return f"{value:,.0f} s" if value >= 99.95 else f"{value:.3g} s" if value >= 0.9995 else f"{1000 * value:.3g} ms"


def plain(value: Any) -> str:
    """A setting: numbers in six digits, lists and tables spelled out."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    return f"{value:.6g}" if isinstance(value, float) else str(value)
