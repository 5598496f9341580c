"""The README says what is there: commands, tables, names."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import torch
import transformers
from safetensors.torch import load_file

import sparsetv
from benchmarks.readme import FILES, README, fill
from sparsetv.cli import group
from sparsetv.models import quiet
from sparsetv.objective.loss import task_loss

ROOT = README.parent


def test_tables_are_those_of_the_committed_results() -> None:
    for path, tables in FILES.items():
        text = path.read_text()
        assert fill(text, tables) == text
        assert all(f"<!-- {name} -->\n| " in text for name in tables)


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
        if isinstance(command, click.Group):
            command = command.commands[rest.split()[0]]
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
    nested = [command for command in group.commands.values() if isinstance(command, click.Group)]
    commands = {**group.commands, **{f"{g.name} {n}": c for g in nested for n, c in g.commands.items()}}
    for name, command in commands.items():
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


def test_the_python_snippets_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, as a reader would, beside a base, its fine-tunes and a store."""
    found = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(found) == 5
    _make_models(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("sst2", "cr", "trec", "subj"):
        sparsetv.pack_to(f"{name}.stv", "base/", f"{name}-model/", options=sparsetv.PackOptions(probe=False))
    store = sparsetv.Store.init("tasks", "base/")
    for name in ("sst2", "cr"):
        store.add(f"{name}.stv")
    (tmp_path / "sst2-model").rename(tmp_path / "finetuned")
    ids = torch.arange(24).reshape(4, 6)
    space: dict[str, Any] = {
        "my_model": transformers.AutoModelForSequenceClassification.from_pretrained("finetuned"),
        "my_batches": [{"input_ids": ids, "labels": torch.tensor([0, 1, 0, 1])}],
        "my_loss": task_loss,
    }
    with quiet():
        for code in found:
            fitting = code.replace('budget="1%"', 'budget="60%"')  # 1 % of so small a model would not hold its head
            exec(compile(fitting, "README.md", "exec"), space)  # noqa: S102  our own text
    base = load_file(tmp_path / "base" / "model.safetensors")
    merged = load_file(tmp_path / "sst2-again" / "model.safetensors")
    assert any(not torch.equal(base[name], merged[f"bert.{name}"]) for name in base)
    assert space["live"].active == {}
    assert space["found"].mask.nnz == round(0.01 * space["found"].mask.numel)
    assert space["composer"].weights == {"cr": 1.0, "sst2": -1.0}


def _make_models(path: Path) -> None:
    values = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(**values, vocab_size=40)
    torch.manual_seed(0)
    body = transformers.BertModel(config)
    body.save_pretrained(path / "base")
    for number, name in enumerate(("sst2", "cr", "trec", "subj")):
        config.num_labels = 2 + number % 2
        model = transformers.BertForSequenceClassification(config)
        model.bert.load_state_dict(
            {key: tensor + 0.01 * torch.randn_like(tensor) for key, tensor in body.state_dict().items()}
        )
        model.save_pretrained(path / f"{name}-model")
