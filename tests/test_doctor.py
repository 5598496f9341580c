"""`doctor` says what is there, tries the whole job, and leaves nothing behind."""

import json
from importlib import metadata
from pathlib import Path

import pytest
from hostile import run

from sparsetv import renaming
from sparsetv.errors import OutputError, VerifyError
from sparsetv.jobs import doctor as ward


def test_all_is_well_here(tmp_path: Path) -> None:
    result = run("doctor", tmp_path)
    assert result.exception is None
    lines = result.output.splitlines()
    assert all(line.startswith("ok   ") for line in lines)
    assert f"ok   numpy            {metadata.version('numpy')}" in lines
    assert "ok   remove           removed: the base, bit for bit" in lines
    assert list(tmp_path.iterdir()) == []


def test_it_says_the_same_as_json(tmp_path: Path) -> None:
    found = json.loads(run("doctor", tmp_path, "--json").output)
    assert [item["about"] for item in found][: 1 + len(ward.PACKAGES)] == ["sparsetv", *ward.PACKAGES]
    assert [item["about"] for item in found][-5:] == ["files", "pack", "verify", "stitch", "remove"]
    assert all(item["good"] for item in found)


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ward, "PACKAGES", ("numpy", "no-such-package"))
    result = run("doctor", tmp_path)
    assert isinstance(result.exception, VerifyError)
    assert "not as it should be: no-such-package" in str(result.exception)
    assert "NOT ok   no-such-package  not installed; pip install no-such-package" in result.output


def test_a_step_that_fails_is_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **named: object) -> None:
        raise OutputError("cannot write task.stv: no space left on device; free some space and run again")

    monkeypatch.setattr(ward, "pack_to", fail)
    result = run("doctor", tmp_path)
    assert isinstance(result.exception, VerifyError)
    assert "NOT ok   pack             cannot write task.stv: no space left on device; free" in result.output
    assert "stitch" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_bits_that_differ_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job can fail: a removal that leaves the task on is told."""
    monkeypatch.setattr(ward, "remove", lambda *args: None)
    result = run("doctor", tmp_path)
    assert isinstance(result.exception, VerifyError)
    assert "h.0.attn.weight of merged and base differ; report this" in result.output


def test_what_a_file_system_lacks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renaming, "_exchange", lambda first, second: False)

    def refuse(*args: object) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr("os.link", refuse)
    result = run("doctor", tmp_path)
    assert result.exception is None
    assert "directories are replaced in two calls, files are copied instead of linked" in result.output


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    result = run("doctor", tmp_path / "nowhere")
    assert isinstance(result.exception, FileNotFoundError)
    assert not (tmp_path / "nowhere").exists()
