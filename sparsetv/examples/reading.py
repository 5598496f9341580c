"""Examples from JSON lines or a data set of the hub."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsetv.errors import FormatError, NotFoundError


@dataclass(frozen=True, slots=True)
class Example:
    """One example: a text, a pair of texts or an image with its label, or a prompt with its completion.

    Attributes:
        text: The text, the first of two, or the prompt; empty for an image.
        pair: The second text, if there is one.
        label: A class index or a label's name; None where there is none.
        image: Path of an image file.
        completion: What a causal model shall say after `text`.
    """

    text: str
    pair: str | None
    label: int | str | None
    image: Path | None = None
    completion: str | None = None

    @property
    def kind(self) -> str:
        """`text`, `pair`, `image` or `completion`."""
        if self.image is not None:
            return "image"
        if self.completion is not None:
            return "completion"
        return "text" if self.pair is None else "pair"


def read_examples(source: str | Path, *, labelled: bool = True) -> list[Example]:
    """Read examples: lines of JSON in a file, or rows of a data set of the hub.

    A line is `{"text": …}`, `{"text_a": …, "text_b": …}` or `{"image": PATH}` (relative to the file) with a `label`
    (an integer or a name), or `{"prompt": …, "completion": …}`.

    Args:
        source: A file, or `NAME[:SPLIT]` of a data set that the package `datasets` loads (split `train` if not named).
        labelled: Whether each example must have a label or a completion.

    Raises:
        NotFoundError: There is no such file or data set, or `datasets` is not installed.
        FormatError: A line is something else; the message has its number.
    """
    file = Path(source)
    if file.is_file():
        rows: Iterable[tuple[str, Any]] = json_lines(file)
        folder = file.parent
    else:
        rows, folder = _data_set(str(source)), Path()
    examples = [_example(row, where, folder=folder, labelled=labelled) for where, row in rows]
    if not examples:
        raise FormatError(f"{source}: no examples")
    kinds = sorted({example.kind for example in examples})
    if kinds == ["pair", "text"]:
        raise FormatError(
            f"{source}: some lines have `text` and others `text_a` and `text_b`; use one of both throughout"
        )
    if len(kinds) > 1:
        raise FormatError(f"{source}: examples of {len(kinds)} kinds ({', '.join(kinds)}); use one throughout")
    return examples


def json_lines(file: Path) -> Iterator[tuple[str, Any]]:
    """(where it stands, value) of every line that is not blank.

    Raises:
        NotFoundError: There is no such file.
        FormatError: It is not UTF-8, or a line is not JSON.
    """
    if not file.is_file():
        raise NotFoundError(f"{file}: no such file")
    for number, line in enumerate(_read(file).split("\n"), start=1):
        if line.strip():
            where = f"{file}:{number}"
            try:
                yield where, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise FormatError(f"{where}: not JSON ({error})") from None


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{file}: not UTF-8 at byte {error.start}") from None


def _data_set(name: str) -> Iterable[tuple[str, Any]]:
    """Rows of a data set by the hub's name."""
    if name.endswith((".jsonl", ".json", ".txt", ".csv")) or name.startswith((".", "/")):
        raise NotFoundError(f"{name}: no such file")
    try:
        import datasets  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415  an extra
    except ImportError:
        raise NotFoundError(
            f"{name}: no such file; for a data set of the hub install the extra: pip install 'sparsetv[data]'"
        ) from None
    repository, _, split = name.partition(":")
    try:
        found: Any = datasets.load_dataset(repository, split=split or "train")
    except Exception as error:  # the package raises anything at all for a set that it cannot load
        raise NotFoundError(f"{name}: cannot be loaded as a data set ({error})") from error
    return ((f"{name}, row {number}", dict(row)) for number, row in enumerate(found))


def _example(row: Any, where: str, *, folder: Path, labelled: bool) -> Example:
    value: Mapping[str, Any] = row if isinstance(row, dict) else {}
    if isinstance(value.get("prompt"), str) and isinstance(value.get("completion"), str):
        return Example(value["prompt"], None, None, completion=value["completion"])
    label = value.get("label")
    if labelled and type(label) not in (int, str):
        raise FormatError(f"{where}: needs a `label`, an integer or a string")
    if type(label) not in (int, str):
        label = None  # a number of a regression task: nothing here learns from it
    if isinstance(value.get("text"), str):
        return Example(value["text"], None, label)
    if isinstance(value.get("text_a"), str) and isinstance(value.get("text_b"), str):
        return Example(value["text_a"], value["text_b"], label)
    if isinstance(value.get("image"), str):
        return Example("", None, label, image=folder / value["image"])
    raise FormatError(
        f"{where}: needs a string `text`, or strings `text_a` and `text_b`, an `image`, or `prompt` and `completion`"
    )
