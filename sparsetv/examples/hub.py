"""Rows of a data set of the hub, through the package `datasets`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from sparsetv.errors import FormatError, NotFoundError

_NO_LABEL = -1


@dataclass(frozen=True, slots=True)
class Pixels:
    """An image in a row of a data set, read when it is opened: a data set's images need not fit into memory.

    Attributes:
        rows: The data set, whose images are bytes.
        number: Of the row.
        column: Of the image.
        where: What messages call it.
    """

    rows: Any = field(compare=False, repr=False)
    number: int
    column: str
    where: str

    def open(self) -> BinaryIO:
        """The image's file, as it is stored."""
        stored = self.rows[self.number][self.column]
        return Path(stored["path"]).open("rb") if stored["bytes"] is None else BytesIO(stored["bytes"])


def data_set(name: str, columns: Mapping[str, str], *, labelled: bool) -> Iterator[tuple[str, Any]]:
    """(where it stands, row) of a data set by the hub's name; images stay in it, as `Pixels`.

    Args:
        name: `NAME`, `NAME:SPLIT` or `NAME:CONFIG:SPLIT`.
        columns: Names of its columns by ours, where they differ.
        labelled: Whether to leave out rows whose label is -1, which is the hub's word for none; else it becomes None.

    Raises:
        NotFoundError: There is no such data set, or `datasets` is not installed.
    """
    found = _load(name)
    image, label = columns.get("image", "image"), columns.get("label", "label")
    stored = _with_bytes(found, image)
    for number, given in enumerate(found if stored is None else stored):
        where, row = f"{name}, row {number}", dict(given)
        if row.get(label) == _NO_LABEL:
            if labelled:
                continue
            row[label] = None
        if stored is not None:
            row[image] = Pixels(stored, number, image, where)
        yield where, row


def class_names(name: str, *, column: str = "label") -> tuple[str, ...]:
    """Names of the classes that a data set's labels mean, underscores as spaces.

    Raises:
        NotFoundError: There is no such data set, or `datasets` is not installed.
        FormatError: The column names no classes.
    """
    names = getattr((getattr(_load(name), "features", None) or {}).get(column), "names", None)
    if not names:
        raise FormatError(f"{name}: its column {column!r} names no classes; name them in the suite: settings.names")
    return tuple(str(own).replace("_", " ") for own in names)


def _load(name: str) -> Any:
    if name.endswith((".jsonl", ".json", ".txt", ".csv")) or name.startswith((".", "/")):
        raise NotFoundError(f"{name}: no such file")
    try:
        import datasets  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415  an extra
    except ImportError:
        raise NotFoundError(
            f"{name}: no such file; for a data set of the hub install the extra: pip install 'sparsetv[data]'"
        ) from None
    repository, config, split = split_name(name)
    try:
        return datasets.load_dataset(repository, *([config] if config else []), split=split)
    except Exception as error:  # the package raises anything at all for a set that it cannot load
        raise NotFoundError(f"{name}: cannot be loaded as a data set ({error})") from error


def split_name(name: str) -> tuple[str, str, str]:
    """(repository, configuration or nothing, split) of a data set's name; a split may be a slice, `train[:10%]`."""
    repository, _, rest = name.partition(":")
    first, colon, second = rest.partition(":")
    if colon and "[" not in first:
        return repository, first, second or "train"
    return repository, "", rest or "train"


def _with_bytes(rows: Any, column: str) -> Any:
    """A data set whose column of images gives bytes; None where it has no such column."""
    feature: Any = (getattr(rows, "features", None) or {}).get(column)
    if type(feature).__name__ != "Image":
        return None
    return rows.cast_column(column, type(feature)(decode=False))
