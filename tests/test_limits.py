"""Every row of formats/LIMITS.md: the constant has that value, the limit itself passes, and one more is that error."""

import importlib
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from beyond import READ, SMALLER, Amount, Attempt
from evidence import FORMATS, GOLDEN, at_most

from sparsetv import errors
from sparsetv.container.envelope import seal_manifest
from sparsetv.container.writer import encode
from sparsetv.errors import SparseTVError
from sparsetv.jobs.archive import archive_to
from sparsetv.maskfile import write_mask
from sparsetv.masks import Mask
from sparsetv.taskfile import read_task
from sparsetv.wire.header import encode_header, place, read_header

PAGE = (FORMATS / "LIMITS.md").read_text()
ROW = re.compile(r"^\| ([A-Z_]+) \| ([a-z_.]+) \| (\S+) \| (\S+ \S+) \|(?: (.+) \| (.+) \|)?$", re.MULTILINE)
ROWS = {
    f"{module}.{name}": (value, clause, read, write) for name, module, value, clause, read, write in ROW.findall(PAGE)
}
LIMITED = {key: row for key, row in ROWS.items() if row[2]}
PAGES = {"SPEC": "SPEC.md", "ARCHIVE": "ARCHIVE.md", "LIMITS": "LIMITS.md"}
PEAK = 96 << 20


def number(text: str) -> int | float:
    return float(text) if "e" in text else int(text.replace(",", ""))


def constant(key: str) -> int | float:
    module, _, name = f"sparsetv.{key}".rpartition(".")
    found: int | float = getattr(importlib.import_module(module), name)
    return found


def test_the_page_has_rows_for_all_names_in_brackets() -> None:
    text = (FORMATS / "SPEC.md").read_text() + (FORMATS / "ARCHIVE.md").read_text()
    named = set(re.findall(r"\[([A-Z]{2}[A-Z_]+)[\],]", text))
    assert {"HEADER_BYTES", "FILES"} <= named <= {key.rpartition(".")[2] for key in ROWS}
    assert len(ROW.findall(PAGE)) == len(re.findall(r"^\| [A-Z]", PAGE, re.MULTILINE)) == len(ROWS)


@pytest.mark.parametrize("key", ROWS)
def test_the_constant_has_the_value_of_the_page(key: str) -> None:
    assert constant(key) == number(ROWS[key][0])
    assert type(constant(key)) is type(number(ROWS[key][0]))


@pytest.mark.parametrize("key", ROWS)
def test_the_clause_exists(key: str) -> None:
    page, clause = ROWS[key][1].split()
    text = (FORMATS / PAGES.get(page, f"codecs/{page}.md")).read_text()
    assert re.search(rf"^(## )?{re.escape(clause)}\.? ", text, re.MULTILINE)


def test_every_limit_is_tried() -> None:
    assert READ.keys() == LIMITED.keys()


def complaint(attempt: Attempt, amount: Amount, path: Path) -> SparseTVError | None:
    with at_most(PEAK):
        try:
            attempt(amount, path)
        except SparseTVError as error:
            return error
    return None


@pytest.mark.parametrize(("key", "place"), [(key, place) for key, cases in READ.items() for place in range(len(cases))])
def test_the_limit_passes_and_one_more_does_not(
    key: str, place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt, message = READ[key][place]
    amount: Amount = constant(key)
    if key in SMALLER:
        amount, users = SMALLER[key]
        for user in users:
            assert number(ROWS[key][0]) == constant(user)
            monkeypatch.setattr(f"sparsetv.{user}", amount)
    more = math.nextafter(amount, math.inf) if isinstance(amount, float) else amount + 1
    within, beyond = complaint(attempt, amount, tmp_path), complaint(attempt, more, tmp_path)
    assert within is None or not re.search(message, str(within))
    name, code = LIMITED[key][2].split()
    assert isinstance(beyond, SparseTVError)
    assert (type(beyond).__name__, beyond.exit_code) == (name, int(code))
    assert re.search(message, str(beyond)), str(beyond)


UNNAMED = '{"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'


def named(name: str, path: Path) -> object:
    return encode(replace(read_task(GOLDEN / "valid" / "minimal.stv"), name=name))


def archived(path: Path, *, files: int = 2, padding: int = 0) -> object:
    """Archive the golden base with more files, or with a header that is longer by some spaces."""
    tuned = path / f"{files} {padding}"
    shutil.copytree(GOLDEN / "archives" / "base", tuned)
    for number in range(files - 2):
        (tuned / f"{number}.txt").write_bytes(b"")
    data = (tuned / "model.safetensors").read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    text = data[8:end] + b" " * padding
    (tuned / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
    return archive_to(path / "a.stv", GOLDEN / "archives" / "base", tuned)


BASE_HEADER = read_header(GOLDEN / "archives" / "base" / "model.safetensors").size
WRITTEN: dict[str, tuple[str, int, Attempt, str]] = {
    "wire.header.HEADER_BYTES": (
        "wire.header.HEADER_BYTES",
        104,
        lambda n, _: encode_header(place([("n" * (n - len(UNNAMED)), "U8", (1,))]), None),
        "header would take 112 bytes, limit 104",
    ),
    "container.limits.MANIFEST_BYTES": (
        "container.envelope.MANIFEST_BYTES",
        100,
        lambda n, _: seal_manifest({"a": "x" * (n - 8)}),
        "manifest would take 101 bytes, limit 100",
    ),
    "container.limits.TENSOR_NAME_CHARS": (
        "container.names.TENSOR_NAME_CHARS",
        10,
        lambda n, path: write_mask(path / "m", Mask({"n" * n: (1,)}, {"n" * n: np.array([0])})),
        "name of 11 characters; allowed are 1 to 10",
    ),
    "container.limits.NAME_CHARS": (
        "container.names.NAME_CHARS",
        10,
        lambda n, path: named("n" * n, path),
        "task name of 11 characters; allowed are 1 to 10",
    ),
    "container.limits.NAME_BYTES": (
        "container.names.NAME_BYTES",
        10,
        lambda n, path: named("n" * n, path),
        "task name of 11 bytes; allowed are 10",
    ),
    "archive.limits.FILES": ("archive.writer.FILES", 3, lambda n, path: archived(path, files=n), "4 files, limit 3"),
    "archive.limits.HEADERS_BYTES": (
        "archive.writer.HEADERS_BYTES",
        BASE_HEADER,
        lambda n, path: archived(path, padding=n - BASE_HEADER),
        f"headers of weight files of {BASE_HEADER + 1} bytes in all, limit {BASE_HEADER}",
    ),
}


def test_every_limit_of_writing_is_tried() -> None:
    assert WRITTEN.keys() == {key for key, row in LIMITED.items() if "Error" in row[3]}


@pytest.mark.parametrize("key", WRITTEN)
def test_what_a_reader_would_refuse_is_not_written(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user, amount, attempt, message = WRITTEN[key]
    assert constant(user) == constant(key)
    monkeypatch.setattr(f"sparsetv.{user}", amount)
    attempt(amount, tmp_path)
    name, code = LIMITED[key][3].split()
    with pytest.raises(getattr(errors, name), match=message) as caught:
        attempt(amount + 1, tmp_path)
    assert (type(caught.value).__name__, caught.value.exit_code) == (name, int(code))


def test_a_file_beyond_the_limit_is_left_out_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert LIMITED["archive.limits.FILE_BYTES"][3] == "left out, and told"
    monkeypatch.setattr("sparsetv.archive.plan.FILE_BYTES", 10)
    base, tuned = GOLDEN / "archives" / "base", tmp_path / "tuned"
    shutil.copytree(base, tuned)
    (tuned / "a.txt").write_bytes(bytes(10))
    (tuned / "b.txt").write_bytes(bytes(11))
    told: list[str] = []
    summary = archive_to(tmp_path / "a.stv", base, tuned, note=told.append)
    assert told == ["not archived: b.txt (11 bytes, limit 10)"]
    assert [file["name"] for file in summary.files] == ["a.txt", "config.json", "model.safetensors"]
