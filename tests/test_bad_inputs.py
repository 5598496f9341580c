"""The list of hostile and broken input: every line has its evidence, and every invalid golden file its one line."""

import ast
import re
from pathlib import Path

import pytest
from evidence import at_most
from hostile import Pair, listing, make_pair, run

from sparsetv.errors import SparseTVError

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "formats" / "golden"
LINES_OF_TABLES = re.findall(r"^\| \d+ \|.*\|$", (HERE / "BAD_INPUTS.md").read_text(), re.MULTILINE)
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in LINES_OF_TABLES]
INVALID = sorted(GOLDEN.glob("*invalid/*.stv")) + sorted(GOLDEN.glob("*invalid/*.safetensors"))
LIMITED = {"over_budget_entries", "over_budget_file", "seeded_huge"}
LINES = 55
REFUSAL_BYTES = 8 << 20
NEVER_TOUCHED = 32 << 20  # what decoding an archive sets aside so that the allocator keeps freed memory (threads.py)


def words(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def all_tests() -> set[str]:
    trees = (ast.parse(path.read_text()) for path in HERE.rglob("test_*.py"))
    functions = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return {function.name for function in functions if function.name.startswith("test_")}


def test_every_line_is_there_and_has_evidence() -> None:
    assert [int(row[0]) for row in ROWS] == list(range(1, LINES + 1))
    assert all(words(golden) or words(tests) for _, _, _, golden, tests in ROWS)


def test_every_golden_file_and_test_that_is_named_exists() -> None:
    known = all_tests()
    for number, _, _, golden, tests in ROWS:
        for pattern in words(golden):
            assert list(GOLDEN.glob(f"{pattern}.*")), f"line {number}: no golden file {pattern}"
        for test in words(tests):
            assert test in known or test == "convert", f"line {number}: no test {test}"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    found = make_pair(tmp_path_factory.mktemp("pair"))
    run("verify", GOLDEN / "invalid" / "empty.stv")  # what the first command imports is no cost of the file
    return found


@pytest.mark.parametrize("path", INVALID, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_invalid_file_is_one_line_and_an_exit_code(path: Path, pair: Pair, tmp_path: Path) -> None:
    out = tmp_path / "out"
    commands: dict[str, tuple[tuple[object, ...], ...]] = {
        "invalid": (("verify", path), ("stitch", pair.base, path, "-o", out)),
        "archives_invalid": (("verify", path, "--base", GOLDEN / "archives" / "base"),
                             ("restore", GOLDEN / "archives" / "base", path, "-o", out)),
        "masks_invalid": (("pack", pair.base, pair.tuned, "--mask", path, "--no-probe", "-o", out),),
    }  # fmt: skip
    for command in commands[path.parent.name]:
        before = listing(tmp_path, pair.base.parent)
        with at_most(REFUSAL_BYTES + NEVER_TOUCHED * (path.parent.name == "archives_invalid")):
            result = run(*command)
        error = result.exception
        assert isinstance(error, SparseTVError), command
        assert path.name in str(error)
        assert ";" in str(error) or "?" in str(error), f"what to do about {error}"
        assert error.exit_code in ((7,) if path.stem in LIMITED else (3, 4) if "archives" in str(path) else (3,))
        assert result.stdout == ""
        assert listing(tmp_path, pair.base.parent) == before
