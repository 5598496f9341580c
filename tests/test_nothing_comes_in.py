"""No network unless a hub id is given, no pickle unless asked, no code from a model's repository, no shell."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sparsetv"
SOURCES = sorted(PACKAGE.rglob("*.py"))

GUARD = """
import socket, sys, os
def refuse(*args, **named):
    raise SystemExit(f"the network was used: {args}")
for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = socket.gethostbyname = refuse
for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ.pop(name, None)
from sparsetv.cli import main
for line in open(sys.argv[1]):
    sys.argv = ["sparsetv", *line.rstrip("\\n").split("\\t")]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (sys.argv, end.code)
"""
"""Runs commands, one per line, in a process in which any use of the network ends it."""


def run_guarded(room: Path, commands: list[tuple[object, ...]]) -> subprocess.CompletedProcess[str]:
    (room / "commands").write_text("".join("\t".join(map(str, words)) + "\n" for words in commands))
    words = [sys.executable, "-c", GUARD, str(room / "commands")]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "HF_HOME": str(room / "hub")}
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment, cwd=room)


def test_no_command_uses_the_network_for_local_files(trained: Path, tmp_path: Path) -> None:
    """Models are built and run, tokenizers loaded, stores made; nothing is looked up anywhere."""
    base, tuned, data = trained / "base", trained / "tuned", trained / "data.jsonl"
    ended = run_guarded(
        tmp_path,
        [
            ("pack", base, tuned, "-o", "a.stv", "--probe", "--density", "0.1"),
            (
                "pack",
                base,
                trained / "other",
                "-o",
                "b.stv",
                "--density",
                "0.1",
                "--refit",
                "random",
                "--refit-steps",
                "2",
            ),
            ("localize", base, tuned, "-o", "m.safetensors", "--localizer", "learned", "--density", "0.1"),
            ("pack", "--lossless", base, tuned, "-o", "w.stv"),
            ("restore", base, "w.stv", "-o", "back"),
            ("inspect", "a.stv"),
            ("verify", "a.stv", "--base", base, "--finetuned", tuned),
            ("stitch", base, "a.stv", "b.stv", "-o", "out", "--scale", "joint"),
            ("remove", "out", "b"),
            ("evaluate", "out", "--data", data, "--task", "a"),
            ("store", "init", "lib", "--base", base),
            ("store", "add", "lib", "a.stv", "b.stv"),
            ("stitch", "lib:*", "-o", "both"),
            ("overlap", "a.stv", "b.stv"),
        ],
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert not (tmp_path / "hub").exists(), "not even a cache was made"


def test_a_hub_id_would_use_it(tmp_path: Path) -> None:
    """Guards the test above: the guard sees what goes out."""
    ended = run_guarded(tmp_path, [("pack", "org/name", "org/other", "-o", "a.stv")])
    assert "the network was used" in ended.stdout + ended.stderr


@pytest.mark.parametrize("file", ["model", "tokenizer", "config"])
def test_no_code_of_a_model_is_run(file: str, trained: Path, tmp_path: Path) -> None:
    """A directory that asks for its own Python, as repositories with `trust_remote_code` do."""
    import shutil

    source = tmp_path / "evil"
    shutil.copytree(trained / "tuned", source)
    classes = {"model": "AutoModelForSequenceClassification", "tokenizer": "AutoTokenizer", "config": "AutoConfig"}
    settings = source / ("tokenizer_config.json" if file == "tokenizer" else "config.json")
    value = json.loads(settings.read_text()) if settings.is_file() else {}
    own = ["evil.Evil", None] if file == "tokenizer" else "evil.Evil"
    settings.write_text(json.dumps({**value, "auto_map": {classes[file]: own}}))
    (source / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Evil: pass\n")
    ended = run_guarded(
        tmp_path,
        [
            ("pack", trained / "base", source, "-o", "a.stv", "--density", "0.1"),
            ("stitch", trained / "base", "a.stv", "-o", "out"),
            ("evaluate", source, "--data", trained / "data.jsonl"),
            ("evaluate", "out", "--data", trained / "data.jsonl"),
        ],
    )
    assert not (tmp_path / "ran").exists()
    assert "the network was used" not in ended.stdout + ended.stderr
    assert not (tmp_path / "out" / "evil.py").exists(), "code does not travel"


FORBIDDEN = {
    "pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "subprocess", "pty", "ftplib",
    "telnetlib", "socket", "urllib", "http", "requests", "httpx", "aiohttp",
}  # fmt: skip
"""Modules that read code or reach out. The exceptions are below, each with its reason."""

ALLOWED = {("jobs/convert.py", "pickle")}  # the name of the error that torch raises for what would run code


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_the_source_reads_no_code_and_reaches_nowhere(source: Path) -> None:
    where = source.relative_to(PACKAGE).as_posix()
    for node in ast.walk(ast.parse(source.read_text())):
        for module in imported(node):
            assert module not in FORBIDDEN or (where, module) in ALLOWED, f"{where} imports {module}"
        if isinstance(node, ast.Call):
            check_call(where, node)


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    return [(node.module or "").split(".")[0]] if isinstance(node, ast.ImportFrom) else []


def check_call(where: str, call: ast.Call) -> None:
    name = ast.unparse(call.func)
    options = {option.arg: ast.unparse(option.value) for option in call.keywords}
    assert name not in {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}, f"{where}: {name}"
    assert options.get("trust_remote_code", "False") == "False", f"{where}: {name}"
    assert options.get("allow_pickle", "False") == "False", f"{where}: {name}"
    if name == "torch.load":
        assert where == "jobs/convert.py"
        assert options["weights_only"] == "True"
    if name.endswith(".from_pretrained") and ast.unparse(call.args[0]) != "None":  # None: from tensors, not a directory
        assert options.get("trust_remote_code") == "False", f"{where}: {ast.unparse(call)}"
