"""Results as lines: what was measured is kept whatever cuts a run off, and never mixed with something else."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsetv.errors import FormatError, NotFoundError, OutputError
from sparsetv.results import Recorder, read_folder, read_results

HEADER = {"bench": "x", "suite": {"name": "s"}, "settings": {"limit": None}, "machine": {"cores": 2}}


def fill(path: Path, count: int) -> list[int]:
    """Measure 0 to count - 1; returns what was measured anew."""
    made: list[int] = []
    recorder = Recorder(path, HEADER)

    def make(number: int) -> dict[str, int]:
        made.append(number)
        return {"value": number * number}

    for number in range(count):
        row = recorder.measure({"number": number}, lambda n=number: make(n))  # type: ignore[misc]
        assert row == {"of": {"number": number}, "value": number * number}
    return made


@given(st.integers(1, 400), st.integers(0, 6))
def test_a_run_cut_off_at_any_byte_goes_on_and_ends_as_if_it_had_not_been(cut: int, count: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        path, whole = Path(temporary) / "cut.jsonl", Path(temporary) / "whole.jsonl"
        assert fill(whole, 6) == list(range(6))
        fill(path, count)
        path.write_bytes(path.read_bytes()[:-cut] if cut < path.stat().st_size else b"")
        kept = max(path.read_bytes().count(b"\n") - 1, 0)
        assert fill(path, 6) == list(range(kept, 6))
        assert path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("key", ["bench", "suite", "settings"])
def test_results_of_something_else_are_refused(tmp_path: Path, key: str) -> None:
    path = tmp_path / "x.jsonl"
    fill(path, 2)
    before = path.read_bytes()
    with pytest.raises(OutputError, match=f"another {key}; give another -o"):
        Recorder(path, {**HEADER, key: "other"})
    assert path.read_bytes() == before


def test_what_is_not_the_same_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    fill(path, 1)
    with pytest.raises(OutputError, match=r"not the same: limit\)"):
        Recorder(path, {**HEADER, "settings": {"limit": 3}})


def test_data_must_be_the_same(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    Recorder(path, {**HEADER, "data": {"a": {"test": "12"}}}).measure({"number": 0}, lambda: {"value": 0})
    with pytest.raises(OutputError, match=r"another data.*not the same: a\)"):
        Recorder(path, {**HEADER, "data": {"a": {"test": "34"}}})


@pytest.mark.parametrize("content", [b"notes", b'{"forma" and so on'])
def test_a_line_of_something_else_is_not_written_over(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(OutputError, match="holds no results; give another -o"):
        Recorder(path, HEADER)
    assert path.read_bytes() == content


def test_a_header_without_rows_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    Recorder(path, {**HEADER, "suite": "mistaken"})
    fill(path, 1)
    assert read_results(path).header["suite"] == HEADER["suite"]


def test_another_machine_may_go_on(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    fill(path, 2)
    assert Recorder(path, {**HEADER, "machine": {"cores": 64}}).knows({"number": 1})


def test_the_order_of_what_tells_a_row_apart_does_not_matter(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "x.jsonl", HEADER)
    recorder.measure({"a": 1, "b": 2}, lambda: {"value": 1})
    assert recorder.knows({"b": 2, "a": 1})
    assert not recorder.knows({"a": 1})


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "no results"), (b"[]\n", "not a JSON object"), (b"{\n", "not JSON"), (b'{"format":2}\n', "no results of")],
)
def test_other_files_are_no_results(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message):
        read_results(path)


def test_folders_without_results_are_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="sparsetv bench"):
        read_folder(tmp_path)
    with pytest.raises(NotFoundError, match="no such results"):
        read_results(tmp_path / "x.jsonl")
    fill(tmp_path / "x.jsonl", 3)
    assert [row["value"] for row in read_folder(tmp_path)["x"].rows] == [0, 1, 4]


def test_a_row_that_the_disk_does_not_take_leaves_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run may go on after a measurement that failed, so half a line would spoil the next."""
    path = tmp_path / "x.jsonl"
    fill(path, 2)
    real, before = os.write, path.read_bytes()
    recorder = Recorder(path, HEADER)

    def half(descriptor: int, data: memoryview) -> int:
        real(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        with pytest.raises(OutputError, match=r"x.jsonl: No space left on device; free some space and run again"):
            recorder.measure({"number": 2}, lambda: {"value": 4})
    assert path.read_bytes() == before
    assert not recorder.knows({"number": 2})
    assert fill(path, 3) == [2]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"cannot create .*/file: File exists; see to that and run again"):
        Recorder(tmp_path / "file" / "x.jsonl", HEADER)
