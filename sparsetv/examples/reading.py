"""Examples from JSON lines or a data set of the hub."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsetv.errors import FormatError, NotFoundError, UsageError
from sparsetv.examples.hub import Pixels, data_set

COLUMNS = ("text", "text_a", "text_b", "image", "prompt", "completion", "label")
"""What a line may have."""


@dataclass(frozen=True, slots=True)
class Example:
    """One example: a text, a pair of texts or an image with its label, or a prompt with its completion.

    Attributes:
        text: The text, the first of two, or the prompt; empty for an image.
        pair: The second text, if there is one.
        label: A class index or a label's name; None where there is none.
        image: Path of an image file, or an image in a data set.
        completion: What a causal model shall say after `text`.
    """

    text: str
    pair: str | None
    label: int | str | None
    image: Path | Pixels | None = None
    completion: str | None = None

    @property
    def kind(self) -> str:
        """`text`, `pair`, `image` or `completion`."""
        if self.image is not None:
            return "image"
        if self.completion is not None:
            return "completion"
        return "text" if self.pair is None else "pair"


def read_examples(
    source: str | Path, *, labelled: bool = True, columns: Mapping[str, str] | None = None
) -> list[Example]:
    """Read examples: lines of JSON in a file, or rows of a data set of the hub.

    A line is `{"text": …}`, `{"text_a": …, "text_b": …}` or `{"image": PATH}` (relative to the file) with a `label`
    (an integer or a name), or `{"prompt": …, "completion": …}`. Rows of a data set whose label is -1 have none, as is
    the hub's custom; where labels are needed, they are left out.

    Args:
        source: A file, or a data set that the package `datasets` loads: `NAME`, `NAME:SPLIT` or `NAME:CONFIG:SPLIT`,
            as in `nyu-mll/glue:mnli:validation_matched` (split `train` if not named).
        labelled: Whether each example must have a label or a completion.
        columns: Where columns have other names: theirs by ours, as in `{"text_a": "premise", "text_b": "hypothesis"}`.
            Nothing else of a row is read then, but for its `label`.

    Raises:
        NotFoundError: There is no such file or data set, or `datasets` is not installed.
        FormatError: A line is something else; the message has its number.
        UsageError: `columns` has a name that is none of ours.
    """
    _check_columns(columns or {})
    file = Path(source)
    if file.is_file():
        rows: Iterable[tuple[str, Any]] = json_lines(file)
        folder = file.parent
    else:
        rows, folder = data_set(str(source), columns or {}, labelled=labelled), Path()
    examples = [
        _example(_renamed(row, columns, where) if columns else row, where, folder=folder, labelled=labelled)
        for where, row in rows
    ]
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


def _check_columns(columns: Mapping[str, str]) -> None:
    odd = sorted(columns.keys() - set(COLUMNS))
    if odd:
        raise UsageError(f"no column of an example is called {odd[0]!r}; there are {', '.join(COLUMNS)}")


def _renamed(row: Any, columns: Mapping[str, str], where: str) -> Any:
    """A row with its columns under our names."""
    if not isinstance(row, dict):
        return row
    for theirs in columns.values():
        if theirs not in row:
            raise FormatError(f"{where}: has no {theirs!r}; it has {', '.join(map(str, row)) or 'nothing'}")
    label = {"label": row["label"]} if "label" in row else {}
    return {**label, **{ours: row[theirs] for ours, theirs in columns.items()}}


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
    if isinstance(value.get("image"), Pixels):
        return Example("", None, label, image=value["image"])
    if isinstance(value.get("image"), str):
        return Example("", None, label, image=folder / value["image"])
    raise FormatError(
        f"{where}: needs a string `text`, or strings `text_a` and `text_b`, an `image`, or `prompt` and `completion`"
    )
