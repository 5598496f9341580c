"""What task files may cost in memory is bounded before anything of them is allocated (SPEC 5.2)."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from evidence import at_most
from hostile import (
    Pair,
    base_tensors,
    checkpoint,
    frame,
    framed,
    least_budget,
    listing,
    make_pair,
    pack_to,
    run,
    tuned_tensors,
    with_manifest,
)
from hypothesis import given
from hypothesis import strategies as st

from sparsetv import Store, memory_limit
from sparsetv.container.envelope import open_manifest
from sparsetv.container.limits import DECODED_BYTES, JSON_BYTES, MANIFEST_BYTES, Limits
from sparsetv.container.reader import open_bytes
from sparsetv.errors import FormatError, LimitError, UsageError
from sparsetv.jobs.archive import archive_to
from sparsetv.jobs.stitch import add, remove, stitch
from sparsetv.taskfile import read_task
from sparsetv.units import parse_bytes
from sparsetv.wire.header import HEADER_BYTES

NEED = r"decoding needs up to (\d+) bytes, limit \d+; raise the limit \(--max-memory\)"


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_pair(tmp_path)


@pytest.fixture
def task(tmp_path: Path, pair: Pair) -> Path:
    return pack_to(tmp_path / "one.stv", pair.base, pair.tuned)


def least(path: Path) -> int:
    return least_budget(path.read_bytes())


def test_the_limit_holds_inside_the_block_and_nowhere_else(task: Path) -> None:
    need = least(task)
    with memory_limit(need):
        assert read_task(task).nnz
        with memory_limit(need - 1), pytest.raises(LimitError, match=f"{re.escape(str(task))}: {NEED}"):
            read_task(task)
        assert Limits().decoded_bytes == need
    assert Limits().decoded_bytes == DECODED_BYTES


def test_the_limit_ends_where_the_block_raises() -> None:
    with pytest.raises(KeyError), memory_limit(5):
        raise KeyError
    assert Limits().decoded_bytes == DECODED_BYTES


@pytest.mark.parametrize("size", [0, -1])
def test_a_limit_that_allows_nothing_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match="allows nothing; give more than 0"), memory_limit(size):
        pass


def listed(item: str) -> bytes:
    return f"[{','.join([item] * 4000)}]".encode()


NESTED: list[bytes] = [
    *(listed("[" * depth + "]" * depth) for depth in (1, 2, 5, 9, 10)),
    *map(listed, ["{}", '{"":{}}', '{"":{"":[[]]}}', "[1]", "1", "0.1", '"\u0100"', '{"a":300,"b":[400]}', '{"a":1}']),
    json.dumps({chr(0x20000 + i): [i] for i in range(9000)}, separators=(",", ":"), ensure_ascii=False).encode(),
    json.dumps([{chr(0x20000 + i): [[]]} for i in range(4000)], separators=(",", ":"), ensure_ascii=False).encode(),
]
"""JSON that takes the most memory for its length."""


@pytest.mark.parametrize("text", NESTED, ids=lambda text: text[1:12].decode(errors="ignore"))
def test_a_byte_of_json_takes_less_than_it_counts(text: bytes) -> None:
    sealed = frame(text)
    with at_most(JSON_BYTES * len(text) + (64 << 10)):
        open_manifest(memoryview(sealed), sha256=hashlib.sha256(sealed).hexdigest(), what="x")


def test_the_default_limit_lets_any_header_and_manifest_be_parsed() -> None:
    assert JSON_BYTES * (HEADER_BYTES + MANIFEST_BYTES) < DECODED_BYTES


def test_a_header_is_refused_before_it_is_parsed() -> None:
    text = b'{"a":' + b"[" * (1 << 20) + b"]" * (1 << 20) + b"}"
    data = memoryview(framed(text))
    with at_most(1 << 16), pytest.raises(LimitError, match=NEED):
        open_bytes(data, limits=Limits(1 << 20))


def test_a_manifest_is_refused_before_it_is_unpacked(tmp_path: Path, task: Path) -> None:
    """A megabyte of zeros in the name of the writer takes little in the file."""
    path = tmp_path / "large.stv"
    path.write_bytes(with_manifest(task.read_bytes(), ["writer"], "0" * (1 << 20)))
    with at_most((1 << 19) - 1), pytest.raises(LimitError, match=NEED):
        read_task(path, limits=Limits(1 << 20))


def test_tasks_that_are_held_together_count_together(tmp_path: Path, pair: Pair) -> None:
    """A limit that is enough for each of three tasks need not be enough for all of them."""
    files = []
    for seed in range(3):
        tuned = checkpoint(tmp_path / f"tuned-{seed}", tuned_tensors(base_tensors(), seed=seed))
        files.append(pack_to(tmp_path / f"{seed}.stv", pair.base, tuned, name=f"task-{seed}", density=1.0))
    held = read_task(files[0]).nbytes
    need = max(least(path) for path in files)
    out = tmp_path / "out"
    with memory_limit(need + held // 2), pytest.raises(LimitError, match=rf"1\.stv: {NEED}"):
        stitch(pair.base, files, out)
    assert not out.exists()
    with memory_limit(need + 2 * held):
        stitch(pair.base, files[:2], out)
        add(out, [files[2]])
    with memory_limit(need + held // 2), pytest.raises(LimitError, match=NEED):
        remove(out, ["task-0"])
    with memory_limit(need + 2 * held):
        remove(out, ["task-0"])


def test_a_task_that_goes_needs_no_memory_to_go(tmp_path: Path, pair: Pair, task: Path) -> None:
    """What is removed is read only to see what can stay as it is; where the limit forbids that, all is written anew."""
    out, need = tmp_path / "out", least(task)
    stitch(pair.base, [task], out)
    with memory_limit(need - 1):
        remove(out, ["*"])
    stitch(pair.base, [], tmp_path / "fresh")
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "fresh" / "model.safetensors").read_bytes()


def test_packing_more_than_the_limit_has_room_for_is_refused(tmp_path: Path, pair: Pair) -> None:
    result = run("pack", pair.base, pair.tuned, "-o", tmp_path / "x.stv", "--max-memory", "1MB", "--no-probe")
    assert isinstance(result.exception, LimitError)
    assert re.search(
        r"keeping \d+ entries takes up to \d+ bytes, limit 1000000; lower the density or raise the limit",
        str(result.exception),
    )
    assert not (tmp_path / "x.stv").exists()


def test_localizing_more_than_the_limit_has_room_for_is_refused(tmp_path: Path, pair: Pair) -> None:
    result = run("localize", pair.base, pair.tuned, "-o", tmp_path / "m.safetensors", "--max-memory", "1MB")
    assert isinstance(result.exception, LimitError)
    assert not (tmp_path / "m.safetensors").exists()


def test_a_mask_that_keeps_more_than_the_limit_has_room_for_is_refused(tmp_path: Path, pair: Pair) -> None:
    run("localize", pair.base, pair.tuned, "-o", tmp_path / "m.safetensors", "--density", "0.5")
    words = ("pack", pair.base, pair.tuned, "-o", tmp_path / "x.stv", "--mask", tmp_path / "m.safetensors")
    result = run(*words, "--max-memory", "1MB", "--no-probe")
    assert isinstance(result.exception, LimitError)
    assert not (tmp_path / "x.stv").exists()
    assert run(*words, "--no-probe").exit_code == 0


@pytest.mark.parametrize("command", ["inspect", "verify", "stitch", "add", "evaluate", "overlap", "where", "store"])
def test_every_reader_has_the_option(command: str, tmp_path: Path, pair: Pair, task: Path) -> None:
    stitch(pair.base, [], tmp_path / "merged")
    Store.init(tmp_path / "lib")
    words: dict[str, tuple[object, ...]] = {
        "inspect": (task,), "verify": (task,), "stitch": (pair.base, task, "-o", tmp_path / "out"),
        "add": (tmp_path / "merged", task), "overlap": (task, task), "where": (task,),
        "evaluate": (pair.base, "--data", examples(tmp_path), "--task", task), "store": ("add", tmp_path / "lib", task),
    }  # fmt: skip
    before = listing(tmp_path)
    result = run(command, *words[command], "--max-memory", "1000")
    assert isinstance(result.exception, LimitError)
    assert result.exception.exit_code == 7
    assert re.search(rf"{re.escape(str(task))}: {NEED}", str(result.exception))
    assert listing(tmp_path) == before


def examples(room: Path) -> Path:
    path = room / "data.jsonl"
    path.write_text(json.dumps({"text": "a", "label": 0}) + "\n")
    return path


def test_an_archive_counts_its_header_and_manifest(tmp_path: Path, pair: Pair) -> None:
    archive_to(tmp_path / "whole.stv", pair.base, pair.tuned)
    result = run("restore", pair.base, tmp_path / "whole.stv", "-o", tmp_path / "back", "--max-memory", "40kB")
    assert isinstance(result.exception, LimitError)
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("text", ["", "x", "5 TB", "-1", "1e9", "nan", "5 GB GB", "0x10"])
def test_what_is_no_size_is_a_usage_error(text: str, task: Path) -> None:
    from click import BadParameter

    with pytest.raises(BadParameter, match="is no size; write 4GB, 500MiB or a number of bytes"):
        run("inspect", task, "--max-memory", text)


@given(st.integers(1, 10**6), st.sampled_from(["", "B", "kB", "MB", "GB", "KiB", "MiB", " gib"]))
def test_sizes_are_read(number: int, unit: str) -> None:
    factor = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": 1024**2, "gib": 1024**3}
    assert parse_bytes(f"{number}{unit}") == number * factor[unit.strip().lower()]


def test_a_file_too_large_for_the_store_is_not_read(tmp_path: Path) -> None:
    """Its bytes are read at once, so that what was checked is what is kept; a hole of 1 TiB must not be."""
    path = tmp_path / "hole.stv"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(LimitError, match=r"hole\.stv: decoding needs up to 1099511627776 bytes"):
        Store.init(tmp_path / "lib").add(path)


def test_the_wrong_kind_of_file_is_named_before_its_memory(tmp_path: Path) -> None:
    path = tmp_path / "page.stv"
    path.write_bytes(b"<!DOCTYPE html>" + b" " * 100)
    with memory_limit(1), pytest.raises(FormatError, match="an HTML page"):
        read_task(path)
