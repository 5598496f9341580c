"""The command line: one line per error on stderr, nothing on stdout, documented exit codes, JSON that parses."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hostile import (
    BIAS,
    DENSE,
    DIGEST,
    QUERY,
    WORDS,
    Pair,
    Parts,
    base_tensors,
    checkpoint,
    framed,
    make_pair,
    pack_to,
    put_together,
    run,
    safetensors,
    take_apart,
    tuned_tensors,
    with_manifest,
)  # fmt: skip
from safetensors.numpy import load_file

from sparsetv.cli import group
from sparsetv.jobs.options import PackOptions
from sparsetv.jobs.pack import pack
from sparsetv.localize.scope import Scope
from sparsetv.taskfile import read_task
from sparsetv.units import human_bytes

COMMANDS = ("pack", "inspect", "verify", "stitch", "add", "remove", "tasks", "evaluate", "demo")


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_pair(tmp_path)


@pytest.fixture
def task(tmp_path: Path, pair: Pair) -> Path:
    return pack_to(tmp_path / "task.stv", pair.base, pair.tuned, name="task")


@pytest.fixture(autouse=True)
def in_room(tmp_path: Path) -> Iterator[None]:
    """Commands run in the test's own directory."""
    old = Path.cwd()
    os.chdir(tmp_path)
    yield
    os.chdir(old)


def shell(*words: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    code = "from sparsetv.cli import main; main()"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False, env=environment
    )


# Exit codes


def arrange(code: int, pair: Pair, task: Path) -> tuple[object, ...]:
    """Words of a command that ends with a code."""
    room, data = task.parent, task.read_bytes()
    (room / "broken.stv").write_bytes(data[:-1])
    (room / "huge.stv").write_bytes(with_manifest(data, ["files"], [{"name": "config.json", "size": 1 << 40}]))
    other = checkpoint(room / "other", base_tensors(9))
    cases: tuple[tuple[object, ...], ...] = (
        ("verify", task, "--base", pair.base, "--finetuned", pair.tuned),
        ("pack", pair.base, pair.base, "-o", "x.stv"),
        ("pack", pair.base, pair.tuned, "-o", "x.stv", "--density", "0"),
        ("inspect", room / "broken.stv"),
        ("stitch", other, task, "-o", "out"),
        ("verify", "nowhere.stv"),
        ("stitch", pair.base, task, "-o", "out"),
        ("verify", room / "huge.stv"),
    )
    return cases[code]


@pytest.mark.parametrize("code", range(8))
def test_exit_codes(code: int, tmp_path: Path, pair: Pair, task: Path) -> None:
    words = arrange(code, pair, task)
    with FileLock(tmp_path / f".{'out' if code == 6 else 'free'}.sparsetv-lock"):
        done = shell(*words)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    if code:
        assert done.stdout == ""
        assert done.stderr.startswith("sparsetv: ")
        assert done.stderr.count("\n") == 1
        assert done.stderr.endswith("\n")
    else:
        assert done.stdout.count("ok  ") == 5
        assert done.stderr == ""
    assert not (tmp_path / "x.stv").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Usage|Commands"),
        (("frobnicate",), "No such command 'frobnicate'"),
        (("pack",), "Missing argument 'BASE'"),
        (("pack", "a", "b"), "Missing option '-o'"),
        (("pack", "a", "b", "-o", "c", "--density", "many"), "Invalid value for '--density'"),
        (("pack", "a", "b", "-o", "c", "--values", "q3"), "Invalid value for '--values'"),
        (("pack", "a", "b", "-o", "c", "--seed", "-1"), "Invalid value for '--seed'"),
        (("stitch", "a", "-o", "d"), "Missing argument 'TASK.stv...'"),
        (("stitch", "a", "b", "-o", "d", "--rule", "vote"), "Invalid value for '--rule'"),
        (("stitch", "a", "b", "-o", "d", "--weight", "x"), "'x' is not NAME=NUMBER"),
        (("stitch", "a", "b", "-o", "d", "--weight", "=1"), "'=1' is not NAME=NUMBER"),
        (("stitch", "a", "b", "-o", "d", "--weight", "x=one"), "'x=one' is not NAME=NUMBER"),
        (("remove", "d"), "Missing argument 'NAME...'"),
        (("evaluate", "d"), "Missing option '--data'"),
        (("evaluate", "d", "--data", "x", "--max-length", "0"), "Invalid value for '--max-length'"),
    ],
)
def test_wrong_words_are_usage_errors(words: tuple[str, ...], message: str) -> None:
    from click.testing import CliRunner

    result = CliRunner().invoke(group, list(words))
    assert result.exit_code == 2
    assert result.stdout == "" or not words
    assert any(part in result.output for part in message.split("|"))


@pytest.mark.parametrize("scale", ["vote", "nan", "inf", "-inf", "1e999", ""])
def test_a_scale_is_a_name_or_a_finite_number(scale: str, pair: Pair, task: Path) -> None:
    done = run("stitch", pair.base, task, "-o", "out", "--scale", scale)
    assert getattr(done.exception, "exit_code", None) == 2
    assert "scale" in str(done.exception)
    assert not Path("out").exists()


def test_an_unreadable_place_is_one_line(pair: Pair) -> None:
    done = shell("inspect", "x" * 300)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"sparsetv: {'x' * 300}: File name too long\n"


def test_a_message_of_several_lines_becomes_one(tmp_path: Path, pair: Pair) -> None:
    """transformers explains a missing tokenizer in a paragraph; names of files may hold line breaks, too."""
    done = shell("inspect", "two\nlines.stv")
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1


def test_output_into_a_closed_pipe_is_no_traceback(task: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = "from sparsetv.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code, "inspect", str(task)],
        stdout=writer, stderr=subprocess.PIPE, text=True, check=False, env=environment,
    )  # fmt: skip
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 1


# Help


@pytest.mark.parametrize("command", [(), *[(name,) for name in COMMANDS]], ids=lambda words: " ".join(words) or "group")
def test_help_loads_nothing_heavy(command: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom sparsetv.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "heavy = {'torch', 'numpy', 'scipy', 'transformers', 'safetensors', 'huggingface_hub', 'zstandard', 'tqdm'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command, "--help"], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "LOADED []"
    assert "Usage: " in done.stdout
    assert not command or "Show this message and exit" in done.stdout


def test_the_help_lists_every_command_and_exit_code() -> None:
    text = run("--help").output
    assert all(f"\n  {command}" in text for command in COMMANDS)
    assert "0 ok, 1 error, 2 usage, 3 invalid file, 4 wrong base, 5 not found, 6 busy, 7 over a limit" in " ".join(
        text.split()
    )


def test_the_version_is_the_package_s() -> None:
    from sparsetv import __version__

    assert run("--version").output == f"sparsetv, version {__version__}\n"


# JSON and text


def test_every_reader_prints_json(tmp_path: Path, pair: Pair, task: Path) -> None:
    summary = json.loads(run("inspect", task, "--json").stdout)
    assert (summary["name"], summary["kept_entries"], summary["scope_entries"]) == ("task", 35, 174)
    assert sum(tensor["nnz"] for tensor in summary["tensors"]) == 35
    assert summary["sizes"].keys() == {"positions", "values", "extras", "probe", "framing"}
    assert sum(summary["sizes"].values()) == task.stat().st_size
    assert summary["digest"] == read_task(task).digest()

    checks = json.loads(run("verify", task, "--base", pair.base, "--finetuned", pair.tuned, "--json").stdout)
    assert [check["name"] for check in checks] == ["container", "content", "base", "entries", "extras"]

    record = json.loads(run("stitch", pair.base, task, "-o", "out", "--scale", "none", "--json").stdout)
    assert [member["name"] for member in record["members"]] == ["task"]
    assert json.loads(run("tasks", "out", "--json").stdout) == record
    other = pack_to(tmp_path / "b.stv", pair.base, pair.tuned, name="b", density=0.5)
    added = json.loads(run("add", "out", other, "--weight", "b=0.5", "--json").stdout)
    assert {member["name"]: member["weight"] for member in added["members"]} == {"task": 1.0, "b": 0.5}
    removed = json.loads(run("remove", "out", "task", "b", "--json").stdout)
    assert removed["members"] == []

    packed = run("pack", pair.base, pair.tuned, "-o", "c.stv", "--scope", "all", "--no-probe", "--json")
    assert json.loads(packed.stdout)["path"] == "c.stv"


def test_what_is_packed_is_told(pair: Pair) -> None:
    done = run("pack", pair.base, pair.tuned, "-o", "t.stv", "--density", "0.1", "--no-probe")
    assert done.stdout.startswith("t.stv: ")
    assert ", 11 of 110 entries (10.0000%), " in done.stdout
    assert done.stdout.count("\n") == 1
    assert "changed outside the scope, not kept: pooler.dense.weight (" in done.stderr


def test_inspect_shows_every_tensor_and_byte(task: Path) -> None:
    text = run("inspect", task).stdout
    assert f"digest      {read_task(task).digest()}" in text
    assert "kept        35 of 174 entries, density 0.201149, magnitude, global threshold, scope all" in text
    assert all(f"\n{name} " in text for name in base_tensors())
    assert "scale       no probe; l2 applies" in text
    assert "files       config.json" in text


def test_a_task_that_keeps_nothing_and_covers_nothing_can_be_shown(tmp_path: Path, task: Path) -> None:
    """A scope of no tensors is valid (SPEC 3.5); shares of nothing are no division by zero."""

    parts = take_apart(task.read_bytes())
    changed = {**parts.manifest, "scope": [], "blocks": [], "tensors": {"l1": [], "l2": []}}
    data = put_together(Parts(changed, {"sparsetv.files": parts.stored["sparsetv.files"]}))
    task.write_bytes(data)
    digest = DIGEST.search(str(run("verify", task).exception))
    assert digest is not None
    task.write_bytes(with_manifest(data, ["digest"], digest[1]))
    assert run("verify", task).exit_code == 0
    assert "kept        0 of 0 entries" in run("inspect", task).stdout


def test_a_file_cannot_speak_to_the_terminal(task: Path) -> None:
    """Free text of a file from elsewhere is printed without control characters, or the file refused."""
    for path in (["recipe", "allocation"], ["recipe", "localizer"], ["recipe", "preset"], ["base", "repo"]):
        data = task.read_bytes()
        task.write_bytes(with_manifest(data, path, "\x1b[2J\x1b]0;owned\x07"))
        result = run("inspect", task)
        assert "\x1b" not in result.output
        task.write_bytes(data)


def test_tasks_and_reports_as_text(tmp_path: Path, pair: Pair, task: Path) -> None:
    other = pack_to(tmp_path / "b.stv", pair.base, pair.tuned, name="b", density=0.5)
    text = run("stitch", pair.base, task, other, "-o", "out", "--scale", "2", "--weight", "b=0.25").stdout
    lines = text.splitlines()
    assert lines[0] == "out: 2 tasks, rule mean"
    digest = read_task(other).digest()[:12]
    assert f"  b: scale 2 (number), weight 0.25, digest {digest}" in lines
    assert run("tasks", "out").stdout == text
    assert run("remove", "out", "b", "task").stdout == "out: the base, bit for bit\n"


# Options


def test_default_names(tmp_path: Path, pair: Pair) -> None:
    """A file's task is named like the file; in Python, without a file, like the fine-tune."""
    for output, name in (("t.stv", "t"), ("a.b.stv", "a.b"), ("plain", "plain")):
        assert run("pack", pair.base, pair.tuned, "-o", output, "--scope", "all", "--no-probe").exit_code == 0
        assert read_task(output).name == name
    for source, name in (
        (pair.tuned, "tuned"), (f"{pair.tuned}/", "tuned"), (pair.tuned / "model.safetensors", "model"),
        (pair.tuned / ".." / "tuned", "tuned"),
    ):  # fmt: skip
        assert pack(pair.base, source, options=PackOptions(scope=Scope("all"))).name == name
    os.chdir(pair.tuned)
    assert pack(pair.base, ".", options=PackOptions(scope=Scope("all"))).name == "tuned"
    run("pack", pair.base, pair.tuned, "-o", "../t.stv", "--scope", "all", "--no-probe", "--name", "other")
    assert read_task("../t.stv").name == "other"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("blocks",), {QUERY, "encoder.layer.0.attention.query.bias", DENSE, BIAS, "encoder.layer.1.gain"}),
        (("all",), set(base_tensors())),
        (("body",), set(base_tensors()) - {WORDS}),
        (("blocks", "!*.bias"), {QUERY, DENSE, "encoder.layer.1.gain"}),
        (("*.weight",), {QUERY, DENSE, WORDS, "pooler.dense.weight"}),
        (("*.weight", "!encoder.*", "!pooler*"), {WORDS}),
        (("*.layer.1.*", "pooler.*"), {DENSE, BIAS, "encoder.layer.1.gain", "pooler.dense.weight"}),
        (("!*.layer.1.*",), {QUERY, "encoder.layer.0.attention.query.bias"}),
        (("*.[0]*.*query.weight",), {QUERY}),
    ],
)
def test_scopes(words: tuple[str, ...], expected: set[str], pair: Pair) -> None:
    options = [part for word in words for part in ("--scope", word)]
    done = run("pack", pair.base, pair.tuned, "-o", "t.stv", "--density", "0.5", "--no-probe", *options)
    assert done.exit_code == 0
    assert set(read_task("t.stv").tensors) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("blocks", "all"), "scopes blocks and all at once; name one"),
        (("decoder.*",), r"scope decoder.* covers none of the 7 tensors that base and fine-tune share"),
        (("all", "!*"), r"scope all !* covers none of the 7 tensors"),
    ],
)
def test_scopes_of_nothing_are_usage_errors(words: tuple[str, ...], message: str, pair: Pair) -> None:
    options = [part for word in words for part in ("--scope", word)]
    done = run("pack", pair.base, pair.tuned, "-o", "t.stv", "--no-probe", *options)
    assert getattr(done.exception, "exit_code", None) == 2
    assert message in str(done.exception)
    assert not Path("t.stv").exists()


@pytest.mark.parametrize("density", ["0", "-0.1", "1.01", "nan", "inf", "1e-9"])
def test_densities_are_checked(density: str, pair: Pair) -> None:
    done = run("pack", pair.base, pair.tuned, "-o", "t.stv", "--no-probe", "--density", density)
    assert getattr(done.exception, "exit_code", None) == 2
    assert "density" in str(done.exception)
    assert not Path("t.stv").exists()


@pytest.mark.parametrize(
    ("scale", "factor"), [("none", 1.0), ("1", 1.0), ("0.5", 0.5), ("-2", -2.0), ("0", 0.0), ("2e0", 2.0)]
)
def test_numbers_as_scales(scale: str, factor: float, pair: Pair, task: Path) -> None:
    assert run("stitch", pair.base, task, "-o", "out", "--scale", scale).exit_code == 0
    found, base = load_file("out/model.safetensors"), base_tensors()
    tensor = read_task(task).tensors[QUERY]
    expected = base[QUERY].reshape(-1).copy()
    expected[tensor.positions] += np.float32(factor) * tensor.values
    tolerance = 0 if factor != 1 else 1e-7
    np.testing.assert_allclose(found[QUERY].reshape(-1), expected, rtol=tolerance, atol=tolerance)
    assert found[WORDS].tobytes() == base[WORDS].tobytes()


@pytest.mark.parametrize("scale", ["auto", "l2", "graft"])
def test_scales_by_name(scale: str, pair: Pair, task: Path) -> None:
    record = json.loads(run("stitch", pair.base, task, "-o", "out", "--scale", scale, "--json").stdout)
    base, tuned = base_tensors(), tuned_tensors(base_tensors())
    whole = np.concatenate([(tuned[name].astype("f8") - base[name]).reshape(-1) for name in base])
    kept = np.sort(np.abs(whole))[-35:]
    l1, l2 = np.abs(whole).sum() / kept.sum(), np.sqrt(np.square(whole).sum() / np.square(kept).sum())
    expected = {"auto": l2, "l2": l2, "graft": np.sqrt(l1 * l2)}[scale]
    assert record["members"][0]["scale"] == pytest.approx(expected, rel=1e-4)
    assert record["members"][0]["policy"] == ("l2" if scale == "auto" else scale)


def test_match_without_a_probe_says_what_to_do(pair: Pair, task: Path) -> None:
    done = shell("stitch", pair.base, task, "-o", "out", "--scale", "match")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == ("sparsetv: task was packed without a probe, so it has no `match` scale; use `--scale l2`\n")


def test_weights_by_name(tmp_path: Path, pair: Pair, task: Path) -> None:
    words = ("stitch", pair.base, task, "-o", "out", "--scale", "none")
    assert run(*words, "--weight", "task=3").exit_code == 0
    tensor = read_task(task).tensors[QUERY]
    expected = base_tensors()[QUERY].reshape(-1)[tensor.positions] + np.float32(3) * tensor.values
    assert (load_file("out/model.safetensors")[QUERY].reshape(-1)[tensor.positions] == expected).all()
    done = run(*words, "--weight", "tusk=3")
    assert str(done.exception) == "--weight names 'tusk', but the tasks are task"
    odd = pack_to(tmp_path / "odd.stv", pair.base, pair.tuned, name="a=b")
    assert run("stitch", pair.base, odd, "-o", "odd", "--weight", "a=b=2").exit_code == 0


def test_names_with_dashes_and_spaces(tmp_path: Path, pair: Pair) -> None:
    odd = pack_to(tmp_path / "-odd name.stv", pair.base, pair.tuned, name="-odd name")
    assert run("stitch", pair.base, "-o", "-out", "--", odd.name).exit_code == 0
    assert run("remove", "--", "-out", "-odd name").stdout == "-out: the base, bit for bit\n"


def test_a_prefix_can_be_given(tmp_path: Path, pair: Pair) -> None:
    words = ("pack", pair.base, pair.tuned, "-o", "t.stv", "--no-probe")
    assert run(*words, "--prefix", "", "").exit_code == 0
    done = run(*words, "--prefix", "x.", "y.")
    assert "no tensor of base and fine-tune has the same name and shape" in str(done.exception)


def test_verify_finds_what_differs(tmp_path: Path, pair: Pair, task: Path) -> None:
    other = checkpoint(tmp_path / "other", tuned_tensors(base_tensors(), seed=5))
    done = run("verify", task, "--base", pair.base, "--finetuned", other)
    assert "is not the fine-tune's, bit for bit; is it the one that was packed?" in str(done.exception)
    assert "encoder." in str(done.exception)
    done = run("verify", task, "--finetuned", other)
    assert str(done.exception) == "comparing with the fine-tune needs the base, too; pass --base"
    wrong = checkpoint(tmp_path / "wrong", base_tensors(4))
    assert "was packed against base" in str(run("verify", task, "--base", wrong).exception)
    untouched = checkpoint(tmp_path / "untouched", base_tensors() | {WORDS: np.ones((12, 4), np.float32)})
    assert f"untouched ones differ, first {WORDS}" in run("verify", task, "--base", untouched).stdout


def test_packing_twice_gives_the_same_bytes(pair: Pair) -> None:
    for name in ("a.stv", "b.stv"):
        run("pack", pair.base, pair.tuned, "-o", name, "--name", "n", "--scope", "all", "--no-probe")
    assert Path("a.stv").read_bytes() == Path("b.stv").read_bytes()


def test_a_checkpoint_may_be_a_lone_file(tmp_path: Path) -> None:
    base = base_tensors()
    (tmp_path / "a.safetensors").write_bytes(safetensors(base))
    (tmp_path / "b.safetensors").write_bytes(safetensors(tuned_tensors(base)))
    assert run("pack", "a.safetensors", "b.safetensors", "-o", "t.stv", "--scope", "all").exit_code == 0
    assert read_task("t.stv").name == "t"
    assert run("stitch", "a.safetensors", "t.stv", "-o", "out").exit_code == 0
    assert {path.name for path in Path("out").iterdir()} >= {"a.safetensors", "sparsetv.json"}


def test_a_broken_header_names_the_file_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "x.stv").write_bytes(framed(b"{}"))
    done = shell("inspect", "x.stv")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("sparsetv: x.stv: ")


def test_sizes_read_well() -> None:
    assert [human_bytes(size) for size in (0, 999, 1000, 403_400, 999_499, 999_500, 12_345_678, 5e12)] == [
        "0 B", "999 B", "1 kB", "403 kB", "999 kB", "1 MB", "12.3 MB", "5000 GB",
    ]  # fmt: skip
