"""Results as lines of JSON: a header, then one row per measurement, each written as soon as it is known."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsetv.atomic import write_file
from sparsetv.durable import append, cut_off, make_directory
from sparsetv.errors import FormatError, NotFoundError, OutputError

FORMAT = 1
_SAME = ("format", "bench", "suite", "settings", "data")
"""Parts of a header that a run must share with the one that it goes on from."""

_BEGINNING = b'{"format":'
"""Of every file of results: one that was cut off inside its header holds nothing else."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Results:
    """One file of results.

    Attributes:
        header: `format`, `bench`, `suite` (name, about, base, tasks, seed, sha256 of weights), `settings`, `data`
            (sha256 of each task's files, by part) and `machine` (with versions).
        rows: What tells a measurement apart and what was measured, in the order of measuring.
    """

    header: Mapping[str, Any]
    rows: tuple[Row, ...]


def read_results(path: Path) -> Results:
    """Read a file of results.

    Raises:
        NotFoundError: There is none.
        FormatError: A line is no JSON object, or there is no header; a last line without its end is left out.
    """
    if not path.is_file():
        raise NotFoundError(f"{path}: no such results")
    lines = list(_lines(path))
    if not lines or lines[0].get("format") != FORMAT:
        raise FormatError(f"{path}: no results of format {FORMAT}")
    return Results(lines[0], tuple(lines[1:]))


def read_folder(folder: Path) -> dict[str, Results]:
    """All results in a folder, by the name of their bench.

    Raises:
        NotFoundError: There are none.
    """
    found = {path.stem: read_results(path) for path in sorted(folder.glob("*.jsonl"))}
    if not found:
        raise NotFoundError(f"{folder}: no results (*.jsonl); run `sparsetv bench` with -o {folder}")
    return found


def _lines(path: Path) -> Iterator[Row]:
    whole = path.read_bytes().split(b"\n")[:-1]  # what follows the last end of line was cut off while it was written
    for number, line in enumerate(whole, start=1):
        try:
            value = json.loads(line)
        except ValueError as error:
            raise FormatError(f"{path}:{number}: not JSON ({error})") from None
        if not isinstance(value, dict):
            raise FormatError(f"{path}:{number}: not a JSON object")
        yield value


class Recorder:
    """Measures what a file of results does not hold yet, so that a run that was stopped goes on where it was.

    Args:
        path: The file; made where it is missing.
        header: What the results are of. A file of other weights, data, settings or format is refused.

    Raises:
        OutputError: The file holds results of something else, or cannot be written.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self._path = path
        wanted = json.loads(json.dumps({"format": FORMAT, **header}))
        content = path.read_bytes() if path.exists() else b""
        if content.count(b"\n") > 1:  # a header alone says of no measurement
            found = read_results(path)
            for key in _SAME:
                _check_same(path, key, found.header.get(key), wanted.get(key))
            self._known = {_key(row["of"]): row for row in found.rows}
            self._cut_off()
        elif not _BEGINNING.startswith(content[: len(_BEGINNING)]):
            raise OutputError(f"{path}: holds no results; give another -o, or remove the file")
        else:
            self._known = {}
            make_directory(path.parent)
            write_file(path, [_line(wanted)])

    def measure(self, of: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]) -> Row:
        """The row of a measurement: known already, or made and written now.

        Args:
            of: What tells it apart.
            make: Gives what is measured.
        """
        key = _key(of)
        if key not in self._known:
            row = json.loads(json.dumps({"of": dict(of), **make()}))
            append(self._path, _line(row))
            self._known[key] = row
        return self._known[key]

    def knows(self, of: Mapping[str, Any]) -> bool:
        """Whether a measurement has been made."""
        return _key(of) in self._known

    def _cut_off(self) -> None:
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            cut_off(self._path, whole)


def _check_same(path: Path, key: str, found: Any, wanted: Any) -> None:
    """Refuse to mix results."""
    if found == wanted:
        return
    told = ""
    if isinstance(found, dict) and isinstance(wanted, dict):
        names = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
        told = f" (not the same: {', '.join(names)})"
    raise OutputError(f"{path}: holds results of another {key}; give another -o, or remove the file{told}")


def _key(of: Mapping[str, Any]) -> str:
    return json.dumps(of, sort_keys=True)


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
