"""Law 5: a file gives back what was written, the same task gives the same bytes, and damage never passes."""

import hashlib
import math
import string
import struct
import unicodedata
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import FINITE_PATTERNS, pack_pair
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from sparsetv.container import blocks
from sparsetv.container.limits import BLOCK_ENTRIES, Limits
from sparsetv.container.reader import decode, open_bytes
from sparsetv.container.writer import encode
from sparsetv.csr import Corrections, SparseTensor
from sparsetv.dtypes import SIZES
from sparsetv.errors import FormatError, LimitError, NonFiniteError
from sparsetv.fingerprint import Fingerprint
from sparsetv.task_vector import Budget, Extra, FineTuned, Norms, Probe, Recipe, SparseTaskVector

pytestmark = pytest.mark.usefixtures("no_sync")

SHAPES: list[tuple[int, ...]] = [(), (0,), (1,), (9,), (3, 4), (0, 5), (4, 0), (7, 1), (1, 7), (3, 2, 2), (2, 0, 3)]
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
TEXT = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=12).map(
    lambda text: unicodedata.normalize("NFC", text)
)
TENSOR_NAMES = st.one_of(
    st.sampled_from(["w", "h.0.w", "h.10.w", "h.2.w", "größe.ж", "重み.0", "a b", 'quo"te', "back\\slash", "😀"]), TEXT
)
COMPONENTS = st.sampled_from(["task", "sst2", "größe", "データ", "a b", "x" * 128, "v1.2-rc", "😀"])
FILE_NAMES = st.sampled_from(["config.json", ".hidden", "tokenizer.json", "ünï.txt", "merges.txt", "z"])
SIZES_OF_VECTORS = st.one_of(st.floats(0, 1e60), st.sampled_from([5e-324, 3.0, 1e16]))
NUMBERS = st.one_of(st.floats(0, 1e300), st.integers(0, 10**6).map(float), st.sampled_from([5e-324, 1e16, 0.1]))


def exact_tensor(draw: st.DrawFn, dtype: str, shape: tuple[int, ...]) -> SparseTensor:
    """Any kept entries, any finite values, corrections anywhere."""
    count = math.prod(shape)
    where = sorted(draw(st.sets(st.integers(0, count - 1)))) if count else []
    values = draw(st.lists(FINITE_PATTERNS, min_size=len(where), max_size=len(where)))
    corrected = sorted(draw(st.sets(st.sampled_from(range(len(where)))))) if where else []
    amounts = draw(st.lists(st.integers(1, 2**32 - 1), min_size=len(corrected), max_size=len(corrected)))
    return SparseTensor(
        dtype,
        shape,
        np.array(where, np.int64),
        np.array(values, np.uint32).view(np.float32),
        Corrections(np.array(corrected, np.int64), np.array(amounts, np.uint32)),
    )


def sign_tensor(draw: st.DrawFn, dtype: str, shape: tuple[int, ...]) -> SparseTensor:
    """As after `to_signs`: one magnitude, no corrections."""
    tensor = exact_tensor(draw, dtype, shape)
    magnitude = np.float32(draw(st.floats(0, 2.0**100, width=32)))
    values = np.copysign(magnitude, tensor.values).astype(np.float32)
    return replace(tensor, values=values, corrections=Corrections.none())


def few_tensor(draw: st.DrawFn, dtype: str, shape: tuple[int, ...]) -> SparseTensor:
    """As after `to_levels`: multiples of one unit, no corrections."""
    tensor = exact_tensor(draw, dtype, shape)
    unit = draw(st.sampled_from([2.0**-149, 1.0, 1.3125 * 2.0**-20, 2.0**60]))
    multiples = draw(st.lists(st.integers(0, 300), min_size=tensor.nnz, max_size=tensor.nnz))
    values = np.copysign(np.array(multiples, np.float64) * unit, tensor.values).astype(np.float32)
    return replace(tensor, values=values, corrections=Corrections.none())


BUDGETS = st.builds(
    Budget,
    asked=TEXT,
    of=st.sampled_from(["fp32", "stored"]),
    bytes=st.integers(0, 2**62),
    fixed=st.integers(0, 2**40),
    energy=st.one_of(st.none(), st.floats(0, 1)),
)


@st.composite
def extras(draw: st.DrawFn, base: Fingerprint) -> dict[str, Extra]:
    found = {}
    for name in draw(st.sets(TENSOR_NAMES, max_size=4)):
        kind = draw(st.sampled_from(["tensor", "rows", "alias"]))
        dtype = draw(st.sampled_from(sorted(SIZES)))
        shape, source = draw(st.sampled_from(SHAPES)), ""
        if kind == "rows":
            matrices = [i for i, known in enumerate(base.shapes) if len(known) >= 2]
            if not matrices:
                continue
            which = draw(st.sampled_from(matrices))
            shape, source = (draw(st.integers(1, 3)), *base.shapes[which][1:]), base.names[which]
        size = SIZES[dtype] * math.prod(shape) if kind != "alias" else 0
        if kind == "alias":
            source = draw(TENSOR_NAMES)
        data = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
        found[name] = Extra(kind, dtype, shape, data, source)
    return found


@st.composite
def probes(draw: st.DrawFn) -> Probe:
    count, width = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    numbers = draw(st.lists(FINITE_PATTERNS, min_size=count * width, max_size=count * width))
    values: st.SearchStrategy[int | float | str] = st.one_of(st.integers(-5, 5), st.floats(-1e9, 1e9), TEXT)
    return Probe(
        kind=draw(st.sampled_from(["tokens", "causal", "pixels"])),
        seed=draw(st.integers(0, 2**63 - 1)),
        count=count,
        params=draw(st.dictionaries(st.text(string.ascii_lowercase, min_size=1), values, max_size=4)),
        recorded=draw(TEXT),
        outputs=np.array(numbers, np.uint32).view(np.float32).reshape(count, width),
        scale=draw(NUMBERS),
        distance=draw(NUMBERS),
    )


@st.composite
def bases(draw: st.DrawFn) -> Fingerprint:
    names = tuple(sorted(draw(st.sets(TENSOR_NAMES, min_size=1, max_size=6))))
    dtypes = tuple(draw(st.sampled_from(["F32", "BF16", "F16", "F32", "I64", "BOOL"])) for _ in names)
    return Fingerprint(
        names=names,
        dtypes=dtypes,
        shapes=tuple(draw(st.sampled_from(SHAPES)) for _ in names),
        tags=tuple(draw(HEX)[:8] for _ in names),
        digest=draw(HEX),
        touched=draw(HEX),
        repo=draw(st.one_of(st.none(), TEXT)),
        commit=draw(st.one_of(st.none(), TEXT)),
    )


@st.composite
def tasks(draw: st.DrawFn) -> SparseTaskVector:
    """Any task that the format can hold."""
    base = draw(bases())
    codec = draw(st.sampled_from(["exact", "exact", "sign", "budget"]))
    make = {"exact": exact_tensor, "sign": sign_tensor, "budget": few_tensor}[codec]
    tensors = {}
    for name, dtype, shape in zip(base.names, base.dtypes, base.shapes, strict=True):
        if dtype in {"F32", "BF16", "F16"} and draw(st.integers(0, 4)):
            tensors[name] = make(draw, dtype, shape)
    missing = draw(st.sets(st.sampled_from(base.names)))
    return SparseTaskVector(
        name=draw(COMPONENTS),
        base=base,
        tensors=tensors,
        norms={name: Norms(draw(SIZES_OF_VECTORS), draw(SIZES_OF_VECTORS)) for name in tensors},
        extras=draw(extras(base)),
        files=draw(st.dictionaries(FILE_NAMES, st.binary(max_size=40), max_size=4)),
        finetuned=FineTuned(
            prefix=(draw(st.sampled_from(["", "bert."])), draw(st.one_of(st.just(""), TEXT))),
            dtype=draw(st.sampled_from([None, "BF16"])),
            missing=tuple(sorted(missing)),
            outside=tuple((name, draw(st.floats(0, 1))) for name in base.names[:2]),
        ),
        recipe=Recipe(
            localizer=draw(TEXT),
            density=draw(NUMBERS),
            allocation="global",
            preset="blocks",
            include=tuple(draw(st.lists(TEXT, max_size=2))),
            exclude=tuple(draw(st.lists(TEXT, max_size=2))),
            values=codec,
        ),
        probe=draw(st.one_of(st.none(), probes())),
        budget=draw(st.one_of(st.none(), BUDGETS)),
    )


def plain(value: Any) -> Any:
    """Dataclasses, mappings and arrays as nested tuples that `==` compares bit by bit."""
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.shape, value.tobytes())
    if isinstance(value, dict):
        return sorted((key, plain(item)) for key, item in value.items())
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}.items()
    if isinstance(value, float):
        return struct.pack("<d", value)
    return value


def same(first: SparseTaskVector, second: SparseTaskVector) -> bool:
    return bool(plain(first) == plain(second))


def digest_by_hand(task: SparseTaskVector) -> str:
    """SPEC 7.2, number by number."""
    out = bytearray()

    def number(value: int) -> None:
        out.extend(struct.pack("<Q", value))

    def text(value: str) -> None:
        number(len(value.encode()))
        out.extend(value.encode())

    for value in ("sparsetv task 1", task.base.touched, *task.finetuned.prefix):
        text(value)
    for name in sorted(task.tensors):
        tensor = task.tensors[name]
        text(name)
        text(tensor.dtype)
        for value_ in (len(tensor.shape), *tensor.shape, len(tensor.positions)):
            number(value_)
        for position in tensor.positions.tolist():
            out.extend(struct.pack("<q", position))
        for bits in tensor.values.view(np.uint32).tolist():
            out.extend(struct.pack("<I", bits))
        number(len(tensor.corrections.index))
        for index in tensor.corrections.index.tolist():
            out.extend(struct.pack("<q", index))
        for amount in tensor.corrections.amount.tolist():
            out.extend(struct.pack("<I", amount))
    number(len(task.extras))
    for name in sorted(task.extras):
        extra = task.extras[name]
        for value in (name, extra.kind, extra.source, extra.dtype):
            text(value)
        for value_ in (len(extra.shape), *extra.shape):
            number(value_)
        out.extend(bytes(32) if extra.kind == "alias" else hashlib.sha256(extra.data.tobytes()).digest())
    number(len(task.files))
    for name in sorted(task.files):
        text(name)
        out.extend(hashlib.sha256(task.files[name]).digest())
    return hashlib.sha256(bytes(out)).hexdigest()


SLOW = settings(max_examples=150, suppress_health_check=list(HealthCheck))


@SLOW
@given(task=tasks(), block=st.sampled_from([1, 2, 5, BLOCK_ENTRIES]))
def test_reading_gives_back_what_was_written(task: SparseTaskVector, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_ENTRIES", block)
        data = encode(task).tobytes()
        assert encode(task).tobytes() == data
    found = decode(open_bytes(data))
    assert same(found, task)
    assert found.digest() == digest_by_hand(task)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_ENTRIES", block)
        assert encode(found).tobytes() == data


@SLOW
@given(task=tasks(), data=st.data())
def test_order_and_provenance_do_not_show_in_bytes_or_identity(task: SparseTaskVector, data: st.DataObject) -> None:
    shuffled = replace(
        task,
        extras=dict(data.draw(st.permutations(list(task.extras.items())))),
        files=dict(data.draw(st.permutations(list(task.files.items())))),
    )
    assert encode(shuffled).tobytes() == encode(task).tobytes()
    renamed = replace(task, name="another name")
    assert renamed.digest() == task.digest()
    assert (encode(renamed).tobytes() == encode(task).tobytes()) == (task.name == "another name")
    told_otherwise = replace(task, recipe=replace(task.recipe, density=0.123), probe=None, norms=dict(task.norms))
    assert told_otherwise.digest() == task.digest()


@SLOW
@given(task=tasks(), data=st.data())
def test_any_change_of_content_is_another_task(task: SparseTaskVector, data: st.DataObject) -> None:
    touched = [name for name, tensor in task.tensors.items() if tensor.nnz]
    assume(touched)
    name = data.draw(st.sampled_from(touched))
    tensor, which = task.tensors[name], data.draw(st.integers(0, task.tensors[name].nnz - 1))
    flipped = tensor.values.view(np.uint32).copy()
    flipped[which] ^= np.uint32(1)
    without = [i for i in range(tensor.nnz) if i != which]
    none = Corrections.none()
    changes = [
        replace(tensor, values=flipped.view(np.float32)),
        replace(tensor, positions=tensor.positions[without], values=tensor.values[without], corrections=none),
        replace(tensor, corrections=Corrections(np.array([which]), np.array([2**31 + 12345], np.uint32))),
        replace(tensor, dtype="F16" if tensor.dtype != "F16" else "BF16"),
    ]
    others = [replace(task, tensors={**task.tensors, name: change}) for change in changes]
    others.append(replace(task, files={**task.files, "extra file": b""}))
    others.append(
        replace(task, extras={**task.extras, "extra tensor": Extra("alias", "F32", (2,), np.zeros(0, np.uint8), "w")})
    )
    others.append(replace(task, finetuned=replace(task.finetuned, prefix=("", "a prefix of its own."))))
    digests = [other.digest() for other in others]
    assert task.digest() not in digests
    assert len(set(digests)) == len(digests)


@SLOW
@given(task=tasks(), block=st.sampled_from([1, 2, 5, 9]))
def test_blocks_are_cut_as_the_specification_says(task: SparseTaskVector, block: int) -> None:
    """SPEC 4.4: fewest rows that keep `block` entries, and a block ends with the first piece that fills it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_ENTRIES", block)
        manifest = open_bytes(encode(task).tobytes()).manifest
    listed = list(task.tensors.values())
    covered = [0] * len(listed)
    for number, coded in enumerate(manifest.blocks):
        before_last = sum(piece.nnz for piece in coded.pieces[:-1])
        assert before_last < block
        assert coded.nnz >= block or number == len(manifest.blocks) - 1
        for piece in coded.pieces:
            tensor = listed[piece.tensor]
            rows = tensor.shape[0] if len(tensor.shape) > 1 else 1
            columns = math.prod(tensor.shape[1:] if len(tensor.shape) > 1 else tensor.shape)
            assert piece.first_row == covered[piece.tensor]
            covered[piece.tensor] += piece.rows
            end = piece.first_row + piece.rows
            row_of = [position // columns for position in tensor.positions.tolist()]
            assert piece.nnz == sum(piece.first_row <= row < end for row in row_of)
            if end < rows:
                assert sum(piece.first_row <= row < end - 1 for row in row_of) < block <= piece.nnz
    assert covered == [tensor.shape[0] if len(tensor.shape) > 1 else 1 for tensor in listed]


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(task=tasks())
def test_any_safetensors_reader_opens_it(tmp_path: Path, task: SparseTaskVector) -> None:
    path = tmp_path / "task.stv"
    path.write_bytes(encode(task).tobytes())
    stored = {name: extra for name, extra in task.extras.items() if extra.kind != "alias" and extra.dtype != "F8_E8M0"}
    with safe_open(path, "pt") as file:
        assert file.metadata()["format"] == "sparsetv"
        assert "__sparsetv__" in file.keys()  # noqa: SIM118  not a mapping
        for name, extra in stored.items():
            assert tuple(file.get_slice(f"extra.{name}").get_shape()) == extra.shape
            if math.prod(extra.shape) and extra.dtype in {"U8", "F32", "I64", "BF16"}:
                tensor = file.get_tensor(f"extra.{name}").contiguous()
                assert tensor.reshape(-1).view(torch.uint8).numpy().tobytes() == extra.data.tobytes()
        if task.probe is not None:
            assert file.get_tensor("sparsetv.probe").numpy().tobytes() == task.probe.outputs.tobytes()


def small_task(path: Path) -> SparseTaskVector:
    base = {"h.0.w": torch.arange(30.0).reshape(5, 6), "h.1.w": torch.ones(4).bfloat16()}
    tuned = {"h.0.w": base["h.0.w"] * 1.0001, "h.1.w": base["h.1.w"] + 1, "head": torch.ones(3)}
    return pack_pair(path, base, tuned, density=0.5)


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    data = encode(small_task(tmp_path)).tobytes()
    for at in range(len(data)):
        for bit in (at % 8, (at + 3) % 8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            with pytest.raises(FormatError):
                decode(open_bytes(bytes(damaged)))


def test_every_truncation_and_addition_is_noticed(tmp_path: Path) -> None:
    data = encode(small_task(tmp_path)).tobytes()
    for length in range(len(data)):
        with pytest.raises(FormatError):
            decode(open_bytes(data[:length]))
    for junk in (b"\0", b" ", data):
        with pytest.raises(FormatError, match="trailing bytes"):
            decode(open_bytes(data + junk))


def test_a_budget_is_checked_before_decoding(tmp_path: Path) -> None:
    data = encode(small_task(tmp_path)).tobytes()
    with pytest.raises(LimitError, match=r"decoding needs up to \d+ bytes, limit 100; raise the limit"):
        open_bytes(data, limits=Limits(decoded_bytes=100))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_not_written(tmp_path: Path, bad: float) -> None:
    task = small_task(tmp_path)
    tensor = task.tensors["h.0.w"]
    values = tensor.values.copy()
    values[0] = bad
    with pytest.raises(NonFiniteError, match=r"h\.0\.w: a kept delta is NaN or infinite"):
        encode(replace(task, tensors={**task.tensors, "h.0.w": replace(tensor, values=values)}))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "task name of 0 characters; allowed are 1 to 128"),
        ("x" * 129, "task name of 129 characters; allowed are 1 to 128"),
        ("a/b", "is not a portable path component"),
        ("..", "is not a portable path component"),
        (".hidden", "is not a portable path component"),
        ("dot.", "is not a portable path component"),
        (" space", "is not a portable path component"),
        ("what?", "is not a portable path component"),
        ("Con", "is reserved on Windows; choose another"),
        ("lpt1.txt", "is reserved on Windows; choose another"),
        ("line\nbreak", "holds control characters"),
        ("zero\u200bwidth", "holds control characters"),
        ("e\u0301", "is not in Unicode normal form C"),
    ],
)
def test_names_that_no_file_may_carry(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        encode(replace(small_task(tmp_path), name=name))


def test_files_that_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="names not ascending, or equal after case folding"):
        encode(replace(small_task(tmp_path), files={"A.txt": b"", "a.txt": b""}))


@pytest.mark.parametrize("size", [1e-30, 1e25])
def test_tasks_of_extreme_size_can_be_written(tmp_path: Path, size: float) -> None:
    task = pack_pair(tmp_path, {"w": torch.zeros(4)}, {"w": torch.full((4,), size)}, density=0.5)
    assert same(decode(open_bytes(encode(task).tobytes())), task)


def test_a_broken_tensor_outside_the_scope_does_not_stop_packing(tmp_path: Path) -> None:
    """Padding rows of real embeddings hold NaN; their energy is no number, and the rest must still be reported."""
    from sparsetv.localize.scope import Scope

    base = {"h.0.w": torch.zeros(4), "embed.weight": torch.zeros(3), "norm": torch.zeros(2)}
    tuned = {"h.0.w": torch.ones(4), "embed.weight": torch.tensor([1.0, float("nan"), 0.0]), "norm": torch.ones(2)}
    task = pack_pair(tmp_path, base, tuned, density=0.5, scope=Scope("blocks"))
    found = decode(open_bytes(encode(task).tobytes()))
    assert same(found, task)
    assert "norm" in dict(found.finetuned.outside)
