"""Pushing, pulling and cards: the real client, a hub on this machine."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakehub import READER, WRITER
from helpers import write_checkpoint
from hubbing import BASE, Place, assert_fails, open_place
from huggingface_hub import ModelCard

import sparsetv
from benchmarks.readme import README
from sparsetv.errors import BusyError, NotFoundError, OutputError, UsageError
from sparsetv.jobs.card import card
from sparsetv.jobs.card_text import MARK
from sparsetv.jobs.hub import load_pretrained, push, save_pretrained
from sparsetv.taskfile import read_task, write_task


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with open_place(tmp_path) as made:
        yield made


def metadata(text: str) -> dict[str, Any]:
    found: dict[str, Any] = ModelCard(text).data.to_dict()  # type: ignore[no-untyped-call]
    return found


# Push, then pull


def test_what_is_pushed_is_what_is_pulled(place: Place) -> None:
    done = place.run("push", "one.stv", "org/task", token=WRITER)
    assert done.returncode == 0, done.stderr
    files = place.hub.files("org/task")
    assert files.keys() == {"task.stv", "README.md"}
    assert files["task.stv"] == place.bytes("one.stv")
    assert place.hub.messages == [f"Task one, digest {read_task(place.path / 'one.stv').digest()[:12]}"]
    pulled = place.run("pull", "org/task", "-o", "back.stv", "--json")
    assert pulled.returncode == 0, pulled.stderr
    assert place.bytes("back.stv") == place.bytes("one.stv")
    told = json.loads(pulled.stdout)
    assert (told["path"], told["file"], told["commit"]) == (
        "back.stv",
        "task.stv",
        place.hub.repos["org/task"].branches["main"],
    )


def test_several_tasks_branches_and_requests(place: Place) -> None:
    for words in (
        ("one.stv", "org/many/one", "--message", "first", "--private"),
        ("two.stv", "org/many/two", "--revision", "new"),
        ("two.stv", "org/many", "--create-pr"),
    ):
        done = place.run("push", *words, token=WRITER)
        assert done.returncode == 0, done.stderr
    assert "/discussions/1: task.stv, digest" in done.stdout
    assert place.hub.repos["org/many"].private
    assert place.hub.messages[0] == "first"
    assert place.hub.files("org/many").keys() == {"one.stv", "README.md"}
    assert place.hub.files("org/many", "new").keys() == {"one.stv", "two.stv", "README.md"}
    assert place.hub.files("org/many", "new")["README.md"] == place.hub.files("org/many")["README.md"]
    assert place.run("pull", "org/many/two@new", token=READER).returncode == 0
    assert place.bytes("two.stv") == place.hub.files("org/many", "new")["two.stv"]


def test_a_card_of_somebody_else_stays_and_ours_is_replaced(place: Place) -> None:
    place.hub.add("org/theirs", {"README.md": b"mine\n"})
    place.hub.add("org/ours", {"README.md": f"old\n{MARK}\n".encode()})
    told = place.run("push", "one.stv", "org/theirs", token=WRITER)
    assert "task.stv, digest" in told.stdout
    assert "its README.md stays as it is" in told.stdout
    assert place.hub.files("org/theirs")["README.md"] == b"mine\n"
    assert place.run("push", "one.stv", "org/ours", token=WRITER).returncode == 0
    assert place.hub.files("org/ours")["README.md"].startswith(b"---\nlibrary_name: sparsetv\n")


def test_a_dry_run_prints_the_card_and_asks_nothing(place: Place) -> None:
    done = place.run("push", "one.stv", "org/task", "--dry-run", "--accuracy", "SST2=0.91")
    assert done.returncode == 0, done.stderr
    assert metadata(done.stdout)["model-index"][0]["results"][0]["metrics"] == [{"type": "accuracy", "value": 0.91}]
    assert f"task.stv: {len(place.bytes('one.stv')):,} bytes, not written" in done.stderr
    assert place.hub.requests == []


def test_what_hinders_a_push_is_one_clear_line(place: Place) -> None:
    place.hub.add("org/task", {"task.stv": b"old"})
    place.hub.add("them/task", {})
    ours = ("push", "one.stv", "org/task")
    assert_fails(
        place.run(*ours), 1, "not logged in; log in (`hf auth login`, or HF_TOKEN) with a token that may write"
    )
    assert_fails(place.run(*ours, token=READER), 1, "this token may not write org/task; use one that may")
    assert_fails(place.run(*ours, token="hf_old"), 1, "does not take this token")
    assert_fails(place.run("push", "one.stv", "them/task", token=WRITER), 1, "this token may not write them/task")
    assert_fails(place.run("push", "one.stv", "them/new", token=WRITER), 1, "this token may not write them/new")
    assert_fails(place.run(*ours, "--private", token=WRITER), 1, "org/task is public; make it private on its page")
    assert_fails(place.run(*ours, "--parent-commit", "0" * 40, token=WRITER), 6, "expected 0000", "push again")
    assert_fails(place.run("push", "one.stv", "task"), 2, "task: is no hub id; write ORG/TASK")
    assert_fails(place.run("push", "three.stv", "org/task", token=WRITER), 5, "three.stv: no such file")
    assert_fails(place.run("push", "base/model.safetensors", "org/task", token=WRITER), 3, "base/model.safetensors")
    assert_fails(place.run(*ours, "--accuracy", "SST2=91", token=WRITER), 2, "outside 0 to 1; write 91 % as 0.91")
    assert place.hub.files("org/task") == {"task.stv": b"old"}
    assert place.hub.messages == []


def test_who_is_second_writes_nothing(place: Place) -> None:
    repo = place.hub.add("org/task", {})
    place.hub.before_commit = lambda: repo.commit({"task.stv": b"theirs"})
    done = place.run("push", "one.stv", "org/task", token=WRITER)
    assert_fails(done, 6, "org/task: has changed since it was looked at, and nothing was written")
    assert place.hub.files("org/task") == {"task.stv": b"theirs"}
    assert BusyError.exit_code == 6


def test_what_is_pulled_is_checked_and_replaces_nothing_else(place: Place) -> None:
    data = place.bytes("one.stv")
    place.hub.add("org/task", {"task.stv": data})
    place.hub.add("org/broken", {"task.stv": data[:-1]})
    assert_fails(place.run("pull", "org/broken"), 3, "org/broken")
    assert_fails(place.run("pull", "org/task", "--max-memory", "10B"), 7, "org/task")
    assert not (place.path / "task.stv").exists()
    (place.path / "task.stv").write_bytes(place.bytes("two.stv"))
    assert_fails(place.run("pull", "org/task"), 1, "task.stv: is there, and another task; name the output (-o FILE)")
    assert place.run("pull", "org/task", "-o", "task.stv").returncode == 0
    assert place.run("pull", "org/task").returncode == 0
    assert place.bytes("task.stv") == data
    assert_fails(place.run("pull", "org/task", "-o", "base/config.json"), 1, "exists and is no task file")
    assert_fails(place.run("pull", "task.stv"), 2, "task.stv: is no hub id")


# Directories


def test_python_goes_to_the_hub_and_back(place: Place) -> None:
    code = """if True:
        from sparsetv import SparseTaskVector
        task = SparseTaskVector.from_pretrained("one.stv")
        task.save_pretrained("saved")
        done = task.push_to_hub("org/task", message="hello", accuracy={"SST2": 0.9})
        for source in ("saved", "org/task", f"org/task@{done.commit}"):
            assert SparseTaskVector.from_pretrained(source).digest() == task.digest() == done.digest
    """
    done = place.python(code, WRITER)
    assert done.returncode == 0, done.stderr
    assert place.bytes("saved/task.stv") == place.hub.files("org/task")["task.stv"] == place.bytes("one.stv")
    assert "| SST2 | 0.9 |" in place.hub.files("org/task")["README.md"].decode()


def test_a_saved_directory_is_read_and_a_strange_card_stays(tmp_path: Path, place: Place) -> None:
    task = read_task(place.path / "one.stv")
    saved = tmp_path / "saved"
    assert save_pretrained(task, saved) == saved / "task.stv"
    assert load_pretrained(saved).digest() == task.digest()
    assert (saved / "README.md").read_text() == card(task)
    (saved / "README.md").write_text("mine")
    save_pretrained(task, saved)
    assert (saved / "README.md").read_text() == "mine"
    (saved / "task.stv").write_text("mine")
    with pytest.raises(OutputError, match=r"task.stv: exists and is no task file"):
        save_pretrained(task, saved)
    with pytest.raises(NotFoundError, match=r"base: holds no task file"):
        load_pretrained(place.path / "base")
    with pytest.raises(NotFoundError, match=r"holds 2 task files, one, two; name one: .*/NAME.stv"):
        load_pretrained(place.path)
    with pytest.raises(OutputError, match=r"one.stv: cannot be made"):
        save_pretrained(task, place.path / "one.stv")


# Cards


def test_the_card_of_a_task_says_what_the_file_says(place: Place) -> None:
    file = place.path / "one.stv"
    told, text = sparsetv.inspect(file), card(file, accuracy={"b|c": 0.5, "SST2": 0.91})
    data = metadata(text)
    assert (data["library_name"], data["pipeline_tag"]) == ("sparsetv", "text-classification")
    assert "base_model" not in data
    assert "base_model_relation" not in data
    assert [one["dataset"]["name"] for one in data["model-index"][0]["results"]] == ["SST2", "b|c"]
    parts = (
        f"| digest | `{told.digest}` |",
        f"{told.kept_entries} of {told.scope_entries} entries, density 0.48",
        f"| file | {told.sizes.file:,} bytes, ",
        told.base["digest"],
        "| values | exact, ",
        "| b\\|c | 0.5 |",
    )
    for part in parts:
        assert part in text
    assert str(place.path) not in text


def test_the_base_is_named_where_it_is_known_and_can_be(place: Place) -> None:
    task = read_task(place.path / "one.stv")
    known = replace(task, base=replace(task.base, repo="org/base", commit="0" * 40))
    text = card(known, repo="org/task")
    assert metadata(text)["base_model"] == "org/base"
    assert metadata(text)["base_model_relation"] == "adapter"
    assert f"    sparsetv stitch org/base@{'0' * 40} org/task -o one\n" in text
    odd = card(replace(task, base=replace(task.base, repo="`x`\n---\nlicense: mit")))
    assert "base_model" not in metadata(odd)
    assert "license" not in odd


def test_the_card_of_a_stitched_directory_lists_its_tasks(place: Place) -> None:
    assert place.run("stitch", "base", "one.stv", "two.stv", "-o", "both", "--weight", "two=0.5").returncode == 0
    assert place.run("stitch", "base", "one.stv", "-o", "alone").returncode == 0
    record = json.loads(place.bytes("both/sparsetv.json"))
    text = place.run("card", "both").stdout
    for member in record["members"]:
        scale = f"{member['weight']:g} | {member['scale']:.6g} ({member['policy']})"
        assert f"| {member['name']} | {scale} | `{member['digest']}` |" in text
    assert metadata(text)["tags"] == ["sparsetv", "task-vector", "merge"]
    assert "| rule | mean |" in text
    assert f"digest `{record['base_digest']}`" in text
    assert "merge" not in metadata(place.run("card", "alone").stdout)["tags"]
    assert str(place.path) not in text
    with pytest.raises(NotFoundError, match="`sparsetv stitch` did not write it"):
        card(place.path / "base")


def test_names_in_a_card_are_only_text(place: Place) -> None:
    task = replace(read_task(place.path / "one.stv"), name="a b$(x)[y](z)")
    write_task(place.path / "odd.stv", task)
    text = card(place.path / "odd.stv", repo="org/task")
    assert "# a b$(x)\\[y\\](z)\n" in text
    assert "stitch BASE org/task -o a-b-x-y-z" in text
    with pytest.raises(UsageError, match="accuracy nan is outside 0 to 1"):
        card(task, accuracy={"x": float("nan")})


def test_the_commands_of_a_card_run(place: Place) -> None:
    assert place.run("push", "one.stv", "org/task", token=WRITER).returncode == 0
    text = place.hub.files("org/task")["README.md"].decode()
    words = re.findall(r"^    sparsetv (.*)$", text, re.MULTILINE) + re.findall(r"`sparsetv (verify .*?)`", text)
    assert len(words) == 2
    for line in words:
        done = place.run(*shlex.split(line.replace("BASE", "base")))
        assert done.returncode == 0, done.stderr
    (place.path / "one").rename(place.path / "first")
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    done = place.python(code.replace("BASE", "base"))
    assert done.returncode == 0, done.stderr
    assert place.bytes("one/model.safetensors") == place.bytes("first/model.safetensors")


def test_the_hub_section_of_the_readme_runs(place: Place) -> None:
    section = README.read_text().split("## On the hub\n")[1].split("\n## ")[0]
    lines = re.findall(r"^    sparsetv (.*?)(?:#.*)?$", section, re.MULTILINE)
    assert {line.split()[0] for line in lines} == {"push", "pull", "stitch", "card"}
    (place.path / "one.stv").rename(place.path / "sst2.stv")
    place.hub.add("org/trec", {"task.stv": place.bytes("two.stv")})
    write_checkpoint(place.path / "BASE", BASE, files={"config.json": b"{}"})
    for line in lines:
        done = place.run(*shlex.split(line), token=WRITER)
        assert done.returncode == 0, (line, done.stderr)
    assert place.hub.files("org/sst2").keys() == {"task.stv", "README.md"}


def test_push_checks_before_it_asks(tmp_path: Path, place: Place) -> None:
    with pytest.raises(UsageError, match="is no hub id"):
        push(place.path / "one.stv", "nothing")
    done = push(place.path / "one.stv", "org/task", dry_run=True)
    assert (done.commit, done.url, done.files["task.stv"]) == (None, None, len(place.bytes("one.stv")))
