"""The README says what is there: commands, tables, names."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch
from helpers import write_checkpoint
from safetensors.torch import load_file

import sparsetv
from benchmarks.readme import README, TABLES, fill
from sparsetv.cli import group

ROOT = README.parent


def test_tables_are_those_of_the_committed_results() -> None:
    text = README.read_text()
    assert fill(text) == text
    assert all(f"<!-- {name} -->\n| " in text for name in TABLES)


def test_ci_runs_the_test_command_of_the_readme() -> None:
    found = re.findall(r"^    (python3 -m venv .*pytest)$", README.read_text(), re.MULTILINE)
    assert len(found) == 1
    assert "torch==2.13.0" in found[0]
    pattern = re.search(r"sed -n '(.*)' README.md", (ROOT / ".ci" / "run").read_text())
    assert pattern is not None
    shown = subprocess.run(["sed", "-n", pattern[1], str(README)], check=True, capture_output=True, text=True)
    assert shown.stdout.strip() == found[0]


def test_every_command_that_the_readme_shows_exists_with_its_options() -> None:
    lines = re.findall(r"^    sparsetv ([a-z]+)(.*?)(?:#.*)?$", README.read_text(), re.MULTILINE)
    assert {name for name, _ in lines} >= {"pack", "inspect", "verify", "stitch", "add", "remove", "tasks", "evaluate"}
    for name, rest in lines:
        command = group.commands[name]
        known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        assert {word.split("=")[0] for word in rest.split() if word.startswith("-")} <= known, name


@pytest.mark.parametrize("name", sparsetv.__all__)
def test_public_names_exist_and_are_documented(name: str) -> None:
    found = getattr(sparsetv, name)
    assert found.__doc__
    assert found.__name__ == name


def test_public_names_are_sorted_and_others_are_refused() -> None:
    assert sorted(sparsetv.__all__) == sparsetv.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sparsetv.nothing  # noqa: B018


def test_every_command_and_option_is_explained() -> None:
    for name, command in group.commands.items():
        assert command.help, name
        options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
        assert all(option.help for option in options), name


def test_the_top_level_holds_nothing_else() -> None:
    shown = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")
    folders = {Path(name).parts[0] for name in shown if "/" in name}
    assert folders == {"sparsetv", "benchmarks", "tests", "formats", ".ci"}


def test_importing_sparsetv_costs_nothing() -> None:
    code = "import sys, sparsetv; print(sorted({'numpy', 'torch', 'transformers', 'scipy'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert shown.stdout.strip() == "[]"


def test_the_python_snippet_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(found) == 1
    base = {"h.0.w": torch.zeros(40, 30), "h.0.b": torch.zeros(30)}
    for name, step in (("base", 0.0), ("finetuned", 1.0), ("other", 2.0)):
        write_checkpoint(tmp_path / name, {key: tensor + step for key, tensor in base.items()})
    monkeypatch.chdir(tmp_path)
    sparsetv.pack_to("cr.stv", "base/", "other/")
    exec(compile(found[0], "README.md", "exec"), {})  # noqa: S102  our own text
    merged = load_file(tmp_path / "sst2-again" / "model.safetensors")
    assert {float(value) for tensor in merged.values() for value in tensor.reshape(-1)} > {0.0}
