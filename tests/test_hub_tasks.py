"""Tasks by hub id wherever a task is named: the real client, a hub on this machine."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakehub import READER
from hubbing import Place, assert_fails, open_place
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from sparsetv.errors import HubError, NotFoundError, UsageError
from sparsetv.hub.ids import TaskId, choose, find_id, parse_id
from sparsetv.hub.troubles import told
from sparsetv.taskfile import read_task

ID = TaskId("org/task")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with open_place(tmp_path) as made:
        yield made


# Ids


@pytest.mark.parametrize(
    ("text", "repo", "name", "revision"),
    [
        ("org/task", "org/task", None, None),
        ("org/task@v1.0", "org/task", None, "v1.0"),
        ("org/repo/name", "org/repo", "name", None),
        ("org/repo/name.stv@refs/pr/3", "org/repo", "name", "refs/pr/3"),
    ],
)
def test_ids_are_read(text: str, repo: str, name: str | None, revision: str | None) -> None:
    assert parse_id(text) == TaskId(repo, name, revision)
    assert str(parse_id(text)) == text.replace(".stv", "")


@pytest.mark.parametrize(
    "text", ["task", "org/", "/org/task", "org/task@", "a/b/c/d", "../task", "org/..", "org/a..b", "org/a b",
             "org/t@a..b", "org/task@-x", "org/a--b", "o\n/task", "org/task\n", ""]
)  # fmt: skip
def test_what_is_no_id_is_refused(text: str) -> None:
    assert find_id(text) is None
    with pytest.raises(UsageError, match="is no hub id; write ORG/TASK"):
        parse_id(text)


def test_what_is_on_this_machine_and_what_looks_like_a_file_is_no_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir()
    assert find_id("org/task") is not None
    (tmp_path / "org" / "task").touch()
    assert find_id("org/task") is None
    assert find_id("models/task.stv") is None
    assert find_id(Path("org/other")) is None


def test_one_file_is_chosen() -> None:
    assert choose(["README.md", "a.stv", "task.stv"], where="x", example="y") == "task.stv"
    assert choose(["README.md", "a.stv", "b/c.stv"], where="x", example="y") == "a.stv"
    with pytest.raises(NotFoundError, match=r"x: holds no task file \(.stv\); is it the right one\?"):
        choose(["model.safetensors"], where="x", example="y")
    with pytest.raises(NotFoundError, match=r"x: holds 12 task files, t0, t1, .* and 4 more; name one: org/r/NAME"):
        choose([f"t{number}.stv" for number in range(12)], where="x", example="org/r/NAME")


# Everywhere


def test_a_hub_id_stands_for_a_task_file_in_every_command(place: Place) -> None:
    place.hub.add("org/one", {"task.stv": place.bytes("one.stv")})
    place.hub.add("org/many", {"first.stv": place.bytes("one.stv"), "two.stv": place.bytes("two.stv")})
    first = place.hub.repos["org/one"].branches["main"]
    place.hub.repos["org/one"].commit({"task.stv": place.bytes("two.stv")})
    assert place.run("stitch", "base", "one.stv", "-o", "local").returncode == 0
    assert place.run("stitch", "base", f"org/one@{first}", "-o", "remote").returncode == 0
    assert place.bytes("local/model.safetensors") == place.bytes("remote/model.safetensors")
    for words in (
        ("add", "local", "org/many/two"),
        ("verify", "org/many/two", "--base", "base", "--finetuned", "two-model"),
        ("overlap", f"org/one@{first}", "org/many/two"),
        ("where", "org/one@main"),
        ("store", "init", "lib"),
        ("store", "add", "lib", "org/one"),
    ):
        done = place.run(*words)
        assert done.returncode == 0, done.stderr
    shown = json.loads(place.run("inspect", "org/one", "--json").stdout)
    assert (shown["name"], shown["path"]) == ("two", "org/one")


def test_no_network_is_asked_for_paths(place: Place) -> None:
    assert place.run("stitch", "base", "one.stv", "two.stv", "-o", "out").returncode == 0
    assert place.run("verify", "one.stv", "--base", "base").returncode == 0
    assert_fails(place.run("inspect", "models/three.stv"), 5, "models/three.stv: no such file")
    assert place.hub.requests == []


def test_the_cache_serves_without_a_network(place: Place) -> None:
    place.hub.add("org/one", {"task.stv": place.bytes("one.stv")})
    place.hub.add("org/other", {"a.stv": place.bytes("one.stv")})
    assert place.run("verify", "org/one").returncode == 0
    assert place.run("verify", "org/other").returncode == 0
    place.hub.requests.clear()
    assert place.run("verify", "org/one", offline=True).returncode == 0
    assert place.run("verify", "org/other/a", offline=True).returncode == 0
    assert place.hub.requests == []
    assert_fails(place.run("verify", "org/new", offline=True), 1, "org/new: not on this machine", "HF_HUB_OFFLINE")


def test_what_comes_is_checked_like_any_file(place: Place) -> None:
    data = bytearray(place.bytes("one.stv"))
    data[-3] ^= 1
    place.hub.add("org/broken", {"task.stv": bytes(data)})
    place.hub.add("org/page", {"task.stv": b"<!DOCTYPE html><html></html>"})
    assert_fails(place.run("verify", "org/broken"), 3, "org/broken")
    assert_fails(place.run("stitch", "base", "org/page", "-o", "out"), 3, "org/page")
    place.hub.add("org/one", {"task.stv": place.bytes("one.stv")})
    assert_fails(place.run("stitch", "base", "org/one", "-o", "out", "--max-memory", "100B"), 7, "org/one")
    assert not (place.path / "out").exists()


# What the hub does not give


def test_what_is_not_there_is_one_clear_line(place: Place) -> None:
    place.hub.add("org/one", {"task.stv": place.bytes("one.stv")})
    place.hub.add("org/none", {"model.safetensors": b"x"})
    place.hub.add("org/many", {"a.stv": b"x", "b.stv": b"x"})
    place.hub.add("org/secret", {"task.stv": place.bytes("one.stv")}, private=True)
    assert_fails(place.run("verify", "org/nothing"), 5, "org/nothing: no such path here", "log in (`hf auth login`")
    assert_fails(place.run("verify", "org/secret"), 5, "or a private one; check the name, or log in")
    assert_fails(place.run("verify", "org/nothing", token=READER), 5, "use a token that may see it")
    assert place.run("verify", "org/secret", token=READER).returncode == 0
    assert_fails(place.run("verify", "org/one@v9"), 5, "org/one has no revision 'v9'; name a branch, tag or commit")
    assert_fails(place.run("verify", "org/one/other"), 5, "org/one holds no other.stv; leave the name out")
    assert_fails(place.run("verify", "org/none"), 5, "org/none: holds no task file (.stv)")
    assert_fails(place.run("verify", "org/many@main"), 5, "holds 2 task files, a, b; name one: org/many/NAME@main")


def test_what_is_refused_is_one_clear_line(place: Place) -> None:
    place.hub.add("org/gated", {"task.stv": place.bytes("one.stv")}, gated=True)
    assert_fails(place.run("verify", "org/gated"), 1, "org/gated is gated; ask for access on its page, and log in")
    assert place.run("verify", "org/gated", token=READER).returncode == 0
    assert_fails(place.run("verify", "org/new", token="hf_old"), 1, "does not take this token; log in")
    place.hub.status = 403
    assert_fails(place.run("verify", "org/new"), 1, "this token may not read org/new; use one that may")


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (401, "log in"),
        (418, "refuses .*; see to that"),
        (429, "too many requests; wait"),
        (502, r"trouble \(status 502\)"),
    ],
)
def test_answers_of_the_hub_say_what_to_do(status: int, text: str) -> None:
    """The client tries again, for half a minute, before it reports some of these."""
    answer: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    with pytest.raises(HubError, match=f"org/task: .*{text}"), told(ID, doing="write"):
        raise HfHubHTTPError("no", response=answer)


@pytest.mark.parametrize("error", [LocalEntryNotFoundError("no"), ConnectionRefusedError("no"), TimeoutError("no")])
def test_a_hub_that_cannot_be_reached_says_what_to_do(error: Exception) -> None:
    """The client, too, tries for half a minute first."""
    with pytest.raises(HubError, match="cannot be reached; go online, or name a file"), told(ID, doing="read"):
        raise error


def test_what_is_no_trouble_of_the_hub_passes() -> None:
    with pytest.raises(TypeError, match="ours"), told(ID, doing="read"):
        raise TypeError("ours")


def test_python_reads_a_hub_id_but_never_takes_a_path_for_one(place: Place) -> None:
    place.hub.add("org/one", {"task.stv": place.bytes("one.stv")})
    done = place.python("import sparsetv; print(sparsetv.read_task('org/one').digest())")
    assert done.stdout.strip() == read_task(place.path / "one.stv").digest(), done.stderr
    with pytest.raises(NotFoundError, match="no such file"):
        read_task(Path("org/one"))


def test_a_live_model_takes_a_hub_id(place: Place) -> None:
    place.hub.add("org/many", {"first.stv": place.bytes("one.stv")})
    code = """if True:
        import sparsetv, torch
        block = torch.nn.Module()
        block.w, block.b = (torch.nn.Parameter(torch.zeros(shape)) for shape in ((4, 5), (5,)))
        model = torch.nn.Module()
        model.h = torch.nn.ModuleList([block])
        live = sparsetv.attach(model, "org/many/first")
        live.activate("one")
        print(sum(int(parameter.count_nonzero()) for parameter in model.parameters()))
    """
    done = place.python(code)
    assert done.stdout.strip() == str(read_task(place.path / "one.stv").nnz), done.stderr
