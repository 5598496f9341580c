"""The crash matrix in small, that it sees what is broken, and that its page lists all there is."""

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click
import pytest
from crash import in_child
from crashing import real
from crashing.hooks import CALLS, Hooks
from crashing.matrix import BrokenError, Theatre, theatre
from crashing.scenes import READERS, SCENES, Scene
from crashing.signals import COMMANDS, SIGNALS
from crashing.troubles import TROUBLES

from sparsetv import atomic, leftovers, renaming
from sparsetv.cli import group
from sparsetv.demo import folder

ROOT = Path(__file__).parent.parent


def test_every_scene_survives_every_trouble() -> None:
    """In a process of its own, without torch, whose copies are cheap to make."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash_matrix"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" points, ") == len(SCENES)


def test_the_page_lists_every_scene_trouble_call_and_real_test() -> None:
    page = (ROOT / "tests" / "CRASH.md").read_text("utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    table = {row[0].removeprefix("| "): row[1:] for row in rows}
    assert table["scene"][1:] == [*(trouble.name for trouble in TROUBLES[:-1]), TROUBLES[-1].name + " |"]
    assert [name for name in table if name in {scene.name for scene in SCENES}] == [scene.name for scene in SCENES]
    assert all(table[scene.name][0] == scene.command for scene in SCENES)
    assert all(f"- **{trouble.name}**: {trouble.says}\n" in page for trouble in TROUBLES)
    assert f"({', '.join(CALLS)})".replace(" ", "") in page.replace("\n", "").replace(" ", "")
    struck = [row for row in rows if len(row) == 6 and row[1] in {kind.name for kind in SIGNALS}]
    assert len(struck) == len(COMMANDS) * len(SIGNALS)
    for name, says in real.tests().items():
        assert table[real.plain(name)][0] == says


def test_every_command_has_a_scene_or_writes_nothing() -> None:
    played = {scene.command for scene in SCENES}
    assert {*_leaves(group)} == {*played, *READERS}
    assert not played & {*READERS}


def _leaves(node: click.Group, prefix: str = "") -> Iterator[str]:
    for name, command in node.commands.items():
        if isinstance(command, click.Group):
            yield from _leaves(command, f"{name} ")
        else:
            yield prefix + name


# The matrix sees what is broken


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    with theatre(tmp_path_factory.mktemp("theatre")) as made:
        yield made


def named(name: str) -> Scene:
    return next(scene for scene in SCENES if scene.name == name)


def write_in_place(path: Path, parts: list[bytes]) -> int:
    path.write_bytes(b"".join(parts))
    return 0


@pytest.mark.parametrize(
    ("scene", "module", "name", "instead", "message"),
    [
        ("where --plot, new file", atomic, "sync", lambda path: None, r"not durable in the end: \['\./new.svg'\]"),
        ("where --plot, new file", atomic, "remove_dead", lambda target: None, r"the next command leaves \["),
        ("where --plot, new file", atomic, "cause", str, r"does not say what to do"),
        ("overlap --plot, over an old file", atomic, "write_file", write_in_place, r"neither|not durable"),
        ("demo, new model", folder, "sync_files", lambda path: None, r"not durable in the end: \['content of model"),
        ("demo, over another model, no exchange", renaming, "aside", leftovers.beside, r"neither old nor new"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_broken_is_seen(
    scene: str, module: object, name: str, instead: object, message: str,
    stage: Theatre, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, name, instead)
    with pytest.raises(BrokenError, match=message):
        stage.play(named(scene))


# The hooks see every call


EVENTS = {
    "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.utime", "os.chmod",
}  # fmt: skip
"""Of the interpreter, each time it changes the disk; one for `rename` and `replace`, one for `unlink` and `remove`."""
ALIKE = {"replace": "rename", "unlink": "remove", "ftruncate": "truncate", "fchmod": "chmod"}
UNSEEN = {"write", "pwrite", "writev", "sendfile", "fsync", "fdatasync", "mmap", "renameat2", "copy_file_range"}


def test_the_hooks_see_what_the_interpreter_sees(stage: Theatre) -> None:
    for scene in SCENES:
        room = stage.begin(scene)
        assert in_child(partial(_compare, scene, stage.hooks, room)) == 0, scene.name


def _compare(scene: Scene, hooks: Hooks, room: Path) -> int:
    seen: list[str] = []

    def audit(event: str, args: tuple[object, ...]) -> None:
        if hooks.armed:
            if event in EVENTS:
                seen.append(event.removeprefix("os."))
            if event == "open" and isinstance(args[2], int) and args[2] & (os.O_CREAT | os.O_TRUNC):
                seen.append("open")

    sys.addaudithook(audit)
    hooks.arm()
    scene.act(room)
    hooks.disarm()
    counted = [ALIKE.get(call, call) for call in hooks.calls if call not in UNSEEN]
    return 0 if counted == seen else 1
