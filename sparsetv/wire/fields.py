"""Typed access to parsed JSON: each wrong type, sign or length is a FormatError that names its place."""

import math
import re
from typing import Any

from sparsetv.errors import FormatError

DIMENSIONS = 16
"""SPEC 3.5: most dimensions of a tensor."""

ENTRIES = (1 << 62) - 1
"""SPEC 3.5: most entries of a tensor; sums of two such numbers fit 64 bits."""

VERSION_DIGITS = 5
"""SPEC 9.1: most digits of each part of a version."""

_VERSION = re.compile(rf"[0-9]{{1,{VERSION_DIGITS}}}\.[0-9]{{1,{VERSION_DIGITS}}}")


class Fields:
    """A JSON object whose keys are taken one by one; `done` refuses what is left."""

    def __init__(self, value: Any, *, where: str) -> None:
        if not isinstance(value, dict):
            raise FormatError(f"{where}: expected an object, found {type(value).__name__}")
        self.where = where
        self._left: dict[str, Any] = dict(value)

    def take(self, key: str) -> Any:
        """Any value."""
        if key not in self._left:
            raise FormatError(f"{self.where}: missing key {key!r}")
        return self._left.pop(key)

    def text(self, key: str) -> str:
        """A string."""
        return as_text(self.take(key), where=f"{self.where}.{key}")

    def optional_text(self, key: str) -> str | None:
        """A string or null."""
        value = self.take(key)
        return None if value is None else as_text(value, where=f"{self.where}.{key}")

    def integer(self, key: str, *, most: int = 2**63 - 1) -> int:
        """An integer in [0, most]."""
        return as_integer(self.take(key), where=f"{self.where}.{key}", most=most)

    def number(self, key: str) -> float:
        """A finite number >= 0."""
        return as_number(self.take(key), where=f"{self.where}.{key}")

    def items(self, key: str) -> list[Any]:
        """A list."""
        return as_list(self.take(key), where=f"{self.where}.{key}")

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        return tuple(as_text(item, where=f"{self.where}.{key}") for item in self.items(key))

    def integers(self, key: str, *, most: int = 2**63 - 1) -> tuple[int, ...]:
        """A list of integers in [0, most]."""
        return tuple(as_integer(item, where=f"{self.where}.{key}", most=most) for item in self.items(key))

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of finite numbers >= 0."""
        return tuple(as_number(item, where=f"{self.where}.{key}") for item in self.items(key))

    def digest(self, key: str) -> str:
        """64 lowercase hex digits."""
        return as_hex(self.take(key), where=f"{self.where}.{key}", digits=64)

    def fields(self, key: str) -> "Fields":
        """A nested object."""
        return Fields(self.take(key), where=f"{self.where}.{key}")

    def has(self, key: str) -> bool:
        """Whether `key` is there and not yet taken."""
        return key in self._left

    def rest(self) -> dict[str, Any]:
        """All that nobody took yet."""
        left, self._left = self._left, {}
        return left

    def done(self, *, ignore: frozenset[str] = frozenset()) -> None:
        """Refuse keys that nobody took, other than those of `ignore`."""
        unknown = sorted(self._left.keys() - ignore)
        if unknown:
            raise FormatError(f"{self.where}: unknown key {unknown[0]!r}; a newer sparsetv may know it")


def as_text(value: Any, *, where: str) -> str:
    """A string, or FormatError."""
    if not isinstance(value, str):
        raise FormatError(f"{where}: expected a string, found {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise FormatError(f"{where}: a lone surrogate is no text") from None
    return value


def as_integer(value: Any, *, where: str, most: int = 2**63 - 1) -> int:
    """An integer in [0, most]; booleans and floats are no integers."""
    if type(value) is not int:
        raise FormatError(f"{where}: expected an integer, found {type(value).__name__}")
    if not 0 <= value <= most:
        raise FormatError(f"{where}: {value} lies outside 0…{most}")
    return value


def as_number(value: Any, *, where: str) -> float:
    """A finite number >= 0."""
    if type(value) not in (int, float):
        raise FormatError(f"{where}: expected a number, found {type(value).__name__}")
    if not math.isfinite(value) or value < 0:
        raise FormatError(f"{where}: {value} is not a finite number >= 0")
    return float(value)


def as_list(value: Any, *, where: str) -> list[Any]:
    """A list, or FormatError."""
    if not isinstance(value, list):
        raise FormatError(f"{where}: expected a list, found {type(value).__name__}")
    return value


def as_hex(value: Any, *, where: str, digits: int) -> str:
    """`digits` lowercase hex digits."""
    text = as_text(value, where=where)
    if len(text) != digits or not set(text) <= set("0123456789abcdef"):
        raise FormatError(f"{where}: expected {digits} lowercase hex digits")
    return text


def as_shape(value: Any, *, where: str) -> tuple[int, ...]:
    """A list of at most `DIMENSIONS` dimensions, of at most `ENTRIES` entries in all."""
    shape = tuple(as_integer(item, where=where) for item in as_list(value, where=where))
    if len(shape) > DIMENSIONS or math.prod(shape) > ENTRIES:
        raise FormatError(f"{where}: shape {shape} is too large")
    return shape


def check_version(version: str, *, major: int, kind: str) -> str:
    """Return MAJOR.MINOR that a reader of `major` can read.

    Args:
        version: What a file says.
        major: The newest major version that the reader knows.
        kind: What the version is of, for the message.

    Raises:
        FormatError: It is no version, or a newer one.
    """
    if not _VERSION.fullmatch(version):
        raise FormatError(f"version {version!r} is not MAJOR.MINOR")
    if int(version.partition(".")[0]) > major:
        raise FormatError(f"{kind} {version}, this sparsetv reads up to {major}.x; update it")
    return version


def is_text(value: str) -> bool:
    """Whether a string is Unicode text; Python makes half characters of JSON escapes and of file names."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
