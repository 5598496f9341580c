"""Labelled examples from JSON lines."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsetv.errors import FormatError, NotFoundError


@dataclass(frozen=True, slots=True)
class Example:
    """One text or pair of texts, and its label: a class index or a label's name."""

    text: str
    pair: str | None
    label: int | str


def read_examples(path: str | Path) -> list[Example]:
    """Read `{"text": …, "label": …}` or `{"text_a": …, "text_b": …, "label": …}` lines.

    Raises:
        NotFoundError: There is no such file.
        FormatError: A line is something else; the message has its number.
    """
    file = Path(path)
    if not file.is_file():
        raise NotFoundError(f"{file}: no such file")
    examples = []
    for number, line in enumerate(_read(file).split("\n"), start=1):
        if line.strip():
            examples.append(_example(line, f"{file}:{number}"))
    if not examples:
        raise FormatError(f"{file}: no examples")
    if len({example.pair is None for example in examples}) > 1:
        raise FormatError(
            f"{file}: some lines have `text` and others `text_a` and `text_b`; use one of both throughout"
        )
    return examples


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{file}: not UTF-8 at byte {error.start}") from None


def _example(line: str, where: str) -> Example:
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: not JSON ({error})") from None
    keys = set(value) if isinstance(value, dict) else set()
    if "label" not in keys or type(value["label"]) not in (int, str):
        raise FormatError(f"{where}: needs a `label`, an integer or a string")
    if isinstance(value.get("text"), str):
        return Example(value["text"], None, value["label"])
    if isinstance(value.get("text_a"), str) and isinstance(value.get("text_b"), str):
        return Example(value["text_a"], value["text_b"], value["label"])
    raise FormatError(f"{where}: needs a string `text`, or strings `text_a` and `text_b`")
