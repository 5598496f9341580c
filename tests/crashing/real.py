"""What the tests under real trouble say, and how they ended."""

import ast
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

TESTS = tuple(Path(__file__).parent.parent / f"test_crash_{part}.py" for part in ("real", "others"))


@dataclass(frozen=True, slots=True)
class Told:
    """One test: its name, its docstring, how it ended."""

    name: str
    says: str
    result: str


def tests() -> dict[str, str]:
    """What each test says, by its name."""
    found = [item for path in TESTS for item in ast.parse(path.read_text("utf-8")).body]
    named = (item for item in found if isinstance(item, ast.FunctionDef) and item.name.startswith("test_"))
    return {item.name: " ".join((ast.get_docstring(item) or "").split()) for item in named}


def run() -> list[Told]:
    """Run them all."""
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *map(str, TESTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout)
    ends = re.findall(r"::(test_\w+)\S*.* (PASSED|SKIPPED|FAILED|ERROR)", done.stdout)
    return [Told(plain(name), says, _result([end for of, end in ends if of == name])) for name, says in tests().items()]


def plain(name: str) -> str:
    """A test's name as words."""
    return name.removeprefix("test_").replace("_", " ")


def _result(ends: list[str]) -> str:
    skipped = f", {ends.count('SKIPPED')} skipped" if "SKIPPED" in ends else ""
    return f"{ends.count('PASSED')} passed{skipped}"
