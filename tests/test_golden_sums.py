"""Golden files never change: what a released version could write is read for ever (formats/CHANGES.md)."""

import re

import pytest
from evidence import FORMATS, GOLDEN, sha256

SUMS = (GOLDEN / "SHA256SUMS").read_bytes().splitlines(keepends=True)
CHANGES = (FORMATS / "CHANGES.md").read_text()
RELEASED = ["1.1", "1.0", "Mask files 1.0", "Archives 1.0"]
PIN = re.compile(r"^## (.+)\nGolden files to line (\d+): `([0-9a-f]{64})`$", re.MULTILINE)


def listed() -> dict[str, str]:
    pairs = (line.decode().removesuffix("\n").split("  ", 1) for line in SUMS)
    return {name: digest for digest, name in pairs}


def test_every_golden_file_is_listed_once_and_is_what_is_listed() -> None:
    files = [path for path in GOLDEN.rglob("*.*") if path.name != "index.json"]
    found = {path.relative_to(GOLDEN).as_posix(): sha256(path.read_bytes()) for path in files}
    assert found == listed(), "golden files never change and none disappears; `make_golden.py` lists a new one"
    assert len(listed()) == len(SUMS)


def test_every_released_version_pins_its_golden_files() -> None:
    assert [name for name, _, _ in PIN.findall(CHANGES)] == re.findall(r"^## (.+)$", CHANGES, re.MULTILINE)
    assert set(RELEASED) <= {name for name, _, _ in PIN.findall(CHANGES)}


@pytest.mark.parametrize(("release", "count", "digest"), PIN.findall(CHANGES))
def test_golden_files_of_a_release_are_those_of_its_day(release: str, count: str, digest: str) -> None:
    assert int(count) <= len(SUMS)
    assert sha256(b"".join(SUMS[: int(count)])) == digest, f"a golden file of {release} was changed, moved or removed"


RELEASED_IN = {
    "valid/minimal.stv": "1.0",
    "valid/cells.stv": "1.1",
    "archives/sparse.stv": "Archives 1.0",
    "masks/boolean.safetensors": "Mask files 1.0",
}


@pytest.mark.parametrize(("name", "release"), RELEASED_IN.items())
def test_a_release_covers_the_files_that_came_with_it(name: str, release: str) -> None:
    """Not those of an earlier one alone: a pin that was made too short would say nothing."""
    ends = {title: int(count) for title, count, _ in PIN.findall(CHANGES)}
    earlier = [end for end in ends.values() if end < ends[release]]
    assert max(earlier, default=0) <= list(listed()).index(name) < ends[release]
