"""Results as lines of JSON: a header, then one row per measurement, each written as soon as it is known."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsetv.errors import FormatError, NotFoundError, OutputError

FORMAT = 1
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Results:
    """One file of results.

    Attributes:
        header: `format`, `bench`, `suite` (name, about, base, tasks, seed, sha256 of weights), `settings`, `machine`
            and `versions`.
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
        header: What the results are of. A file of other weights, settings or format is refused.

    Raises:
        OutputError: The file holds results of something else, or cannot be written.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self._path = path
        wanted = {"format": FORMAT, **header}
        if path.exists() and path.stat().st_size and b"\n" in path.read_bytes():
            found = read_results(path)
            for key in ("format", "bench", "suite", "settings"):
                if found.header.get(key) != json.loads(json.dumps(wanted.get(key))):
                    raise OutputError(f"{path}: holds results of another {key}; give another -o, or remove the file")
            self._known = {_key(row["of"]): row for row in found.rows}
            self._cut_off()
        else:
            self._known = {}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_line(wanted))

    def measure(self, of: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]) -> Row:
        """The row of a measurement: known already, or made and written now.

        Args:
            of: What tells it apart.
            make: Gives what is measured.
        """
        key = _key(of)
        if key not in self._known:
            row = json.loads(json.dumps({"of": dict(of), **make()}))
            with self._path.open("ab") as file:
                file.write(_line(row))
                file.flush()
                os.fsync(file.fileno())
            self._known[key] = row
        return self._known[key]

    def knows(self, of: Mapping[str, Any]) -> bool:
        """Whether a measurement has been made."""
        return _key(of) in self._known

    def _cut_off(self) -> None:
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with self._path.open("r+b") as file:
                file.truncate(whole)


def _key(of: Mapping[str, Any]) -> str:
    return json.dumps(of, sort_keys=True)


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
