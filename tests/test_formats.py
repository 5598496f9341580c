"""The format against its evidence, which shares no code with sparsetv: golden files, a second reader, a schema."""

import copy
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import numpy as np
import pytest
import safetensors
import zstandard
from evidence import FORMATS, GOLDEN, at_most, lines, load, needs

from sparsetv.container.limits import Limits
from sparsetv.container.reader import decode, open_bytes
from sparsetv.container.writer import encode
from sparsetv.csr import Corrections, SparseTensor
from sparsetv.errors import FormatError, LimitError, SparseTVError
from sparsetv.task_vector import SparseTaskVector
from sparsetv.taskfile import read_task

VALID = sorted((GOLDEN / "valid").glob("*.stv"))
INVALID: list[dict[str, str]] = json.loads((GOLDEN / "invalid" / "index.json").read_bytes())
SMALLEST = sorted(VALID, key=lambda path: path.stat().st_size)[:2]
READER_LINES = 128
REFUSAL_BYTES = 4 << 20  # no golden file has more than a few kilobytes of honest content

each_valid_file = pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
each_invalid_file = pytest.mark.parametrize("case", INVALID, ids=lambda case: Path(case["file"]).stem)
each_small_file = pytest.mark.parametrize(
    "path", [*SMALLEST, GOLDEN / "valid" / "minimal.stv"], ids=lambda path: path.stem
)


@pytest.fixture(scope="module")
def reader() -> ModuleType:
    return load("reader")


@pytest.fixture(scope="module")
def schema() -> Any:
    schema = json.loads((FORMATS / "manifest.schema.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def expected(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.with_suffix(".json").read_bytes())
    return content


def hex_bits(values: Any) -> list[str]:
    assert values.dtype == np.float32
    return [f"{bits:08x}" for bits in values.view(np.uint32).tolist()]


def content_of(task: SparseTaskVector) -> dict[str, Any]:
    """A task in the words of the golden files."""
    return {
        "digest": task.digest(),
        "entries": task.numel,
        "tensors": {name: tensor_of(tensor) for name, tensor in task.tensors.items()},
        "extras": {
            name: {
                "kind": extra.kind,
                "dtype": extra.dtype,
                "shape": list(extra.shape),
                "source": extra.source,
                "data": extra.data.tobytes().hex(),
            }
            for name, extra in task.extras.items()
        },
        "files": {name: content.hex() for name, content in task.files.items()},
        "probe": None if task.probe is None else [hex_bits(row) for row in task.probe.outputs],
    }


def tensor_of(tensor: SparseTensor) -> dict[str, Any]:
    assert tensor.positions.dtype == np.int64
    amounts = tensor.corrections.amount.view(np.int32).tolist()
    return {
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "positions": tensor.positions.tolist(),
        "values": hex_bits(tensor.values),
        "corrections": [list(pair) for pair in zip(tensor.corrections.index.tolist(), amounts, strict=True)],
    }


def check_independent(reader: ModuleType, path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Read a file with formats/reader.py and compare its tensors; returns the manifest."""
    manifest, tensors = reader.read(path)
    assert list(tensors) == list(content["tensors"])
    for name, (shape, positions, values, corrections) in tensors.items():
        tensor = content["tensors"][name]
        assert positions.dtype == np.int64
        assert corrections["amount"].dtype == np.int32
        assert list(shape) == tensor["shape"]
        assert positions.tolist() == tensor["positions"]
        assert hex_bits(values) == tensor["values"]
        pairs = zip(corrections["index"].tolist(), corrections["amount"].tolist(), strict=True)
        assert [list(pair) for pair in pairs] == tensor["corrections"]
    assert manifest["digest"] == content["digest"]
    found: dict[str, Any] = manifest
    return found


def manifest_of(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, framework="np") as file:
        frame = file.get_tensor("__sparsetv__").tobytes()
    manifest: dict[str, Any] = json.loads(zstandard.ZstdDecompressor().decompress(frame))
    return manifest


# --- the golden files themselves


def test_index_names_every_invalid_file_and_a_clause_that_exists() -> None:
    assert sorted(case["file"] for case in INVALID) == sorted(path.name for path in (GOLDEN / "invalid").glob("*.stv"))
    specification = (FORMATS / "SPEC.md").read_text()
    for clause in {case["clause"] for case in INVALID}:
        page, _, number = clause.partition(" ")
        text = specification if page[0].isdigit() else (FORMATS / "codecs" / f"{page}.md").read_text()
        pattern = rf"^{re.escape(page)} " if page[0].isdigit() else rf"^{number}"
        assert re.search(pattern, text, re.MULTILINE), clause


def test_independent_reader_is_short_and_independent() -> None:
    assert lines("reader") <= READER_LINES
    assert needs("reader") == {"numpy", "safetensors", "zstandard"}


@pytest.mark.parametrize("source", sorted([*FORMATS.glob("golden_writer/*.py"), FORMATS / "make_golden.py"]), ids=str)
def test_second_writer_shares_no_code_with_the_first(source: Path) -> None:
    assert not re.search(r"^\s*(import|from) sparsetv", source.read_text(), re.MULTILINE)


# --- valid files


@each_valid_file
def test_valid_file_holds_what_its_json_says(path: Path) -> None:
    content = content_of(read_task(path))
    assert content == expected(path)
    assert list(content["tensors"]) == list(expected(path)["tensors"])


@each_valid_file
def test_independent_reader_agrees(path: Path, reader: ModuleType) -> None:
    check_independent(reader, path, expected(path))


@each_valid_file
def test_safetensors_opens_valid_file(path: Path) -> None:
    with safetensors.safe_open(path, framework="np") as file:
        assert file.metadata()["format"] == "sparsetv"
        assert "__sparsetv__" in file.keys()  # noqa: SIM118  a safe_open is no mapping


@each_valid_file
def test_reencoded_task_has_the_same_digest(path: Path) -> None:
    task = read_task(path)
    data = encode(task).tobytes()
    again = decode(open_bytes(data))
    assert again.digest() == task.digest() == expected(path)["digest"]
    assert content_of(again) == content_of(task)
    assert encode(again).tobytes() == data


@each_valid_file
def test_reencoded_task_is_read_by_others(path: Path, tmp_path: Path, reader: ModuleType, schema: Any) -> None:
    fresh = tmp_path / "fresh.stv"
    fresh.write_bytes(encode(read_task(path)).tobytes())
    schema.validate(check_independent(reader, fresh, expected(path)))


def test_independent_reader_as_a_script() -> None:
    path = GOLDEN / "valid" / "corrections.stv"
    command = [sys.executable, str(FORMATS / "reader.py"), str(path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    content = expected(path)
    kept = sum(len(tensor["positions"]) for tensor in content["tensors"].values())
    assert told[0] == f"golden density {kept / content['entries']}"
    assert told[1:] == ["a [700] 650 kept, 6 corrected", "b [2, 8] 3 kept, 1 corrected"]


# --- invalid files


def refusal(path: Path) -> SparseTVError:
    with at_most(REFUSAL_BYTES), pytest.raises(SparseTVError) as caught:
        read_task(path)
    return caught.value


@each_invalid_file
def test_invalid_file_is_refused(case: dict[str, str]) -> None:
    path = GOLDEN / "invalid" / case["file"]
    error = refusal(path)
    wanted = {"FormatError": FormatError, "LimitError": LimitError}[case.get("error", "FormatError")]
    assert type(error) is wanted
    message = str(error).replace(str(path), "FILE")  # a file's name shall not be taken for the message
    assert re.search(case["match"], message), f"{message!r} does not say {case['match']!r}: {case['breaks']}"


@each_invalid_file
def test_error_names_the_file(case: dict[str, str]) -> None:
    path = GOLDEN / "invalid" / case["file"]
    with pytest.raises(Exception) as caught:  # noqa: PT011  which error it is, the test above says
        read_task(path)
    assert str(path) in str(caught.value)


# --- every bit and every length


def is_refused(data: bytes) -> bool:
    try:
        decode(open_bytes(data))
    except (FormatError, LimitError):
        return True
    return False


@each_small_file
def test_every_flipped_bit_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    assert not is_refused(whole)
    data = bytearray(whole)
    accepted = []
    for bit in range(8 * len(whole)):
        data[bit // 8] ^= 1 << bit % 8
        if not is_refused(bytes(data)):
            accepted.append(bit)
        data[bit // 8] ^= 1 << bit % 8
    assert accepted == []


@each_small_file
def test_every_other_length_is_refused(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    assert [length for length in range(len(whole)) if not is_refused(whole[:length])] == []
    assert is_refused(whole + b"\0")
    for length in (0, 1, 7, 8, 9, 100, len(whole) - 1):
        cut = tmp_path / f"{length}.stv"
        cut.write_bytes(whole[:length])
        with pytest.raises(FormatError, match=re.escape(str(cut))):
            read_task(cut)


# --- memory


@pytest.mark.parametrize(
    ("shape", "nnz", "budget"),
    [
        pytest.param((5000, 1000), 5_000_000, 128 << 20, id="many entries"),
        pytest.param((2**31, 2**30), 100_000, 32 << 20, id="many low bits"),
        pytest.param((2**31, 2**13), 100_000, 32 << 20, id="some low bits"),
    ],
)
def test_decoding_stays_within_the_budget(shape: tuple[int, int], nnz: int, budget: int) -> None:
    """Either the reader refuses or it allocates no more than it was allowed."""
    task = read_task(GOLDEN / "valid" / "minimal.stv")
    positions = np.arange(nnz, dtype=np.int64) * (math.prod(shape) // nnz)
    tensor = SparseTensor("F32", shape, positions, np.ones(nnz, np.float32), Corrections.none())
    large = replace(task, base=replace(task.base, shapes=(shape,)), tensors={"w": tensor})
    data = encode(large).tobytes()
    with at_most(budget):
        try:
            decode(open_bytes(data, limits=Limits(decoded_bytes=budget)))
        except LimitError:
            return


# --- schema


@each_valid_file
def test_valid_manifest_satisfies_the_schema(path: Path, schema: Any) -> None:
    schema.validate(manifest_of(path))


BROKEN: list[tuple[str, Any]] = [
    ("digest", "A" * 64),
    ("payload_sha256", None),
    ("name", ".hidden"),
    ("name", "a/b"),
    ("name", "a."),
    ("name", ""),
    ("x-notes", 1),
    ("features.required", ["future"]),
    ("features.optional", "x"),
    ("features.x", []),
    ("base.shapes.0.0", -1),
    ("base.shapes.0.0", 1.5),
    ("base.shapes.0.0", True),
    ("base.dtypes.0", "F4"),
    ("base.names.0", "a\0"),
    ("base.tags", "0123456"),
    ("base.x", 1),
    ("blocks.0.x", 1),
    ("blocks.0.pieces", []),
    ("blocks.0.pieces", [[0, 1]]),
    ("blocks.0.pieces.1.0", -1),
    ("blocks.0.positions.codec", "gaps2"),
    ("blocks.0.positions.high_size", "6"),
    ("blocks.0.positions.shifts.0", 63),
    ("blocks.0.positions.bias", 0),
    ("blocks.0.values.frames", [1]),
    ("blocks.0.values.bias", 1 << 31),
    ("blocks.0.values.magnitudes", [1.0]),
    ("extras.0.kind", "column"),
    ("extras.0.of", "a"),
    ("extras.5.base", 1),
    ("files", [{"name": "../a", "size": 1}]),
    ("files", [{"name": "a", "size": True}]),
    ("finetuned.prefix", [""]),
    ("finetuned.outside", [["a"]]),
    ("finetuned.dtype", ""),
    ("probe", {}),
    ("recipe.density", "0.5"),
    ("recipe.x", 1),
    ("scope", [[0, 0]]),
    ("tensors.l1.0", -1.0),
    ("writer", None),
]


@pytest.mark.parametrize(("path", "value"), BROKEN)
def test_broken_manifest_fails_the_schema(path: str, value: Any, schema: Any) -> None:
    manifest = manifest_of(GOLDEN / "valid" / "extras.stv")
    schema.validate(manifest)
    broken = copy.deepcopy(manifest)
    *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    target: Any = broken
    for key in parents:
        target = target[key]
    target[last] = value
    with pytest.raises(jsonschema.ValidationError):
        schema.validate(broken)


@pytest.mark.parametrize("key", sorted(manifest_of(GOLDEN / "valid" / "minimal.stv")))
def test_schema_misses_every_missing_key(key: str, schema: Any) -> None:
    manifest = manifest_of(GOLDEN / "valid" / "minimal.stv")
    del manifest[key]
    with pytest.raises(jsonschema.ValidationError):
        schema.validate(manifest)


def test_schema_knows_the_keys_in_one_order() -> None:
    schema = json.loads((FORMATS / "manifest.schema.json").read_bytes())
    keys = schema["required"]
    assert keys == list(schema["properties"]) == schema["then"]["propertyNames"]["enum"]
    assert all(first < second for first, second in pairwise(keys))
