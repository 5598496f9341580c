"""The evidence under `formats/`, which shares no code with sparsetv, where tests can use it."""

import ast
import hashlib
import importlib
import importlib.util
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

FORMATS = Path(__file__).parents[1] / "formats"
GOLDEN = FORMATS / "golden"


def load(name: str) -> ModuleType:
    """A module of `formats/`, such as the independent `reader`."""
    spec = importlib.util.spec_from_file_location(f"formats_{name}", FORMATS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def second_writer(name: str) -> ModuleType:
    """A module of the second writer, `formats/golden_writer/`."""
    sys.path.insert(0, str(FORMATS))
    try:
        return importlib.import_module(f"golden_writer.{name}")
    finally:
        sys.path.remove(str(FORMATS))


def needs(name: str) -> set[str]:
    """What a module of `formats/` imports that is not of the standard library."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse((FORMATS / f"{name}.py").read_text())):
        if isinstance(node, ast.Import):
            modules.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            modules.add((node.module or "").split(".")[0])
    return modules - set(sys.stdlib_module_names)


def lines(name: str) -> int:
    """Lines of a module of `formats/`."""
    return len((FORMATS / f"{name}.py").read_text().splitlines())


@contextmanager
def at_most(peak: int) -> Iterator[None]:
    """Fail where the block allocates more than `peak` bytes at once, whether it raises or not."""
    tracemalloc.start()
    try:
        yield
    finally:
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert used <= peak, f"allocated {used} bytes, at most {peak} are needed"


def sha256(data: bytes) -> str:
    """As hex."""
    return hashlib.sha256(data).hexdigest()
