"""Files and directories that are replaced whole; what fails or dies at any call, see the crash matrix."""

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile import listing, make_pair, pack_to

from sparsetv import atomic, leftovers, renaming
from sparsetv.errors import OutputError
from sparsetv.jobs.stitch import add, remove, stitch


def visible(path: Path) -> dict[str, str]:
    return {name.removeprefix(str(path)): kind for name, kind in listing(path).items()}


# write_file


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")
    assert atomic.write_file(target, [b"new ", b"", b"content"]) == 11
    assert target.read_bytes() == b"new content"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_decides_the_mode(umask: int, tmp_path: Path) -> None:
    old = os.umask(umask)
    try:
        atomic.write_file(tmp_path / "a", [b"x"])
        with atomic.new_directory(tmp_path / "d") as directory:
            (directory / "x").write_bytes(b"")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o777 & ~umask


def test_a_link_to_a_file_stays_one(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to(Path("real") / "file")
    atomic.write_file(tmp_path / "link", [b"new"])
    assert (tmp_path / "link").readlink() == Path("real") / "file"
    assert (real / "file").read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]


def test_a_dangling_link_gets_its_target(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("later")
    atomic.write_file(tmp_path / "link", [b"new"])
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "later").read_bytes() == b"new"


def test_targets_that_are_no_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    for name, message in (
        ("directory", r"directory: it is a directory; name a file"),
        ("fifo", r"fifo: it is not a regular file"),
        ("no/where", r"no/where: directory .*/no does not exist; create it first"),
    ):
        with pytest.raises(OutputError, match=message):
            atomic.check_writable(tmp_path / name)
        with pytest.raises(OutputError, match=message):
            atomic.write_file(tmp_path / name, [b"x"])
    assert sorted(os.listdir(tmp_path)) == ["directory", "fifo"]


def test_the_longest_name_that_the_system_takes_can_be_written(tmp_path: Path) -> None:
    for name in ("a" * 255, "\u00e9" * 127, "\u65e5" * 85):
        atomic.write_file(tmp_path / name, [b"x"])
        assert (tmp_path / name).read_bytes() == b"x"


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
    assert atomic.write_file(tmp_path / "a", [b"0123456789"]) == 10
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_parts_that_fail_leave_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def parts() -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic.write_file(tmp_path / "a", parts())
    assert visible(tmp_path).keys() == {"/a"}
    assert (tmp_path / "a").read_bytes() == b"old"


def test_what_a_dead_writer_left_goes_with_the_next_write_and_what_a_live_one_makes_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    dead = [leftovers.beside(tmp_path / "a") for _ in range(2)]
    dead[0].write_bytes(b"half")
    dead[1].mkdir()
    (dead[1] / "x").write_bytes(b"")
    other = leftovers.beside(tmp_path / "b")
    other.write_bytes(b"of another target")
    seen: list[str] = []

    def parts() -> Iterator[bytes]:
        yield b"first"
        atomic.write_file(tmp_path / "a", [b"second"])
        seen.extend(os.listdir(tmp_path))

    atomic.write_file(tmp_path / "a", parts())
    assert len(seen) == 3, "a, what is being made in its place, and what belongs to another target"
    assert (tmp_path / "a").read_bytes() == b"first"
    assert sorted(os.listdir(tmp_path)) == [other.name, "a"]


def test_what_is_taken_for_left_over_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, taken = leftovers._lock, list[str]()

    def lock(descriptor: int, *, at_once: bool = False) -> None:
        if not taken:
            taken.extend(item.name for item in tmp_path.iterdir())
            (tmp_path / taken[0]).unlink()
        real(descriptor, at_once=at_once)

    monkeypatch.setattr(leftovers, "_lock", lock)
    atomic.write_file(tmp_path / "a", [b"x"])
    assert len(taken) == 1
    assert (tmp_path / "a").read_bytes() == b"x"
    assert os.listdir(tmp_path) == ["a"]


def test_where_there_are_no_locks_nothing_is_taken_for_left_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, *, at_once: bool = False) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(leftovers, "_lock", refuse)
    other = leftovers.beside(tmp_path / "a")
    other.write_bytes(b"")
    atomic.write_file(tmp_path / "a", [b"x"])
    assert sorted(os.listdir(tmp_path)) == [other.name, "a"]


def test_what_went_wrong_first_is_what_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **named: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "unlink", refuse)
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OutputError, match=r"cannot write .*/a: Input/output error; check the disk and run again"):
        atomic.write_file(tmp_path / "a", [b"x"])


# new_directory


def test_a_directory_that_fails_vanishes(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic.new_directory(tmp_path / "d") as directory:
            (directory / "x").write_bytes(b"x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("exchange", [True, False], ids=["one call", "two renames"])
def test_a_directory_is_replaced_whole(exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchange:
        monkeypatch.setattr(renaming, "_exchange", lambda first, second: False)
    target = tmp_path / "d"
    (target / "sub").mkdir(parents=True)
    (target / "sub" / "old").write_bytes(b"")
    (tmp_path / "link").symlink_to("d")
    with atomic.new_directory(tmp_path / "link") as directory:
        (directory / "new").write_bytes(b"")
    assert os.listdir(target) == ["new"]
    assert sorted(os.listdir(tmp_path)) == ["d", "link"]
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("failing", [1, 2])
def test_two_renames_that_fail_leave_the_old_directory(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where directories cannot be exchanged in one call, the old one is put back if the second rename fails."""
    target = tmp_path / "d"
    target.mkdir()
    (target / "old").write_bytes(b"")
    monkeypatch.setattr(renaming, "_exchange", lambda first, second: False)
    real, calls = os.rename, []

    def rename(*args: Any, **named: Any) -> None:
        calls.append(args)
        if len(calls) == failing:
            raise OSError(errno.EACCES, "Permission denied")
        real(*args, **named)

    monkeypatch.setattr(os, "rename", rename)
    with (
        pytest.raises(OutputError, match=r"cannot write .*d: Permission denied"),
        atomic.new_directory(target) as directory,
    ):
        (directory / "new").write_bytes(b"")
    assert visible(tmp_path).keys() == {"/d", "/d/old"}


def test_every_file_is_synced_before_a_directory_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename that reaches the disk before its contents leaves empty files after a power cut."""
    pair = make_pair(tmp_path)
    task = pack_to(tmp_path / "t.stv", pair.base, pair.tuned)
    synced: set[int] = set()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    stitch(pair.base, [task], tmp_path / "out")
    unsynced = [str(path) for path in (tmp_path / "out").rglob("*") if path.stat().st_ino not in synced]
    assert unsynced == []
    assert tmp_path.stat().st_ino in synced


def test_a_directory_that_was_set_aside_comes_back(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that dies between two renames loses nothing, old or new."""
    before = visible(room)
    actions: list[Callable[[], object]] = [
        lambda: add(room / "out", [room / "two.stv"]),
        lambda: stitch(room / "base", [room / "two.stv"], room / "out"),
    ]
    for action in actions:
        os.rename(room / "out", leftovers.aside(room / "out"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "sendfile", _full)
            with pytest.raises(OutputError, match="No space left on device; free some space and run again"):
                action()
        assert visible(room) == before
    (room / "out").rename(leftovers.aside(room / "out"))
    add(room / "out", [room / "two.stv"])
    assert sorted(os.listdir(room)) == [".out.sparsetv-lock", "base", "one.stv", "out", "tuned", "two.stv"]


def test_a_set_aside_directory_whose_place_is_taken_goes(room: Path) -> None:
    shutil.copytree(room / "out", leftovers.aside(room / "out"))
    remove(room / "out", ["one"])
    assert not [name for name in os.listdir(room) if name.endswith(".old")]


def _full(*args: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_file_that_cannot_be_read_is_named(room: Path) -> None:
    def lose(what: str, done: int, total: int) -> None:
        (room / "base" / "tokenizer.json").unlink(missing_ok=True)

    with pytest.raises(OutputError, match=r"cannot write .*/fresh: .*/base/tokenizer.json: No such file or directory"):
        stitch(room / "base", [room / "one.stv"], room / "fresh", progress=lose)
    assert not (room / "fresh").exists()


def test_a_directory_may_have_the_longest_name(room: Path) -> None:
    out = room / ("a" * 255)
    stitch(room / "base", [room / "one.stv"], out)
    assert not remove(out, ["one"]).members


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """Base, fine-tunes, task files, and a directory with one task stitched."""
    path = tmp_path / "room"
    pair = make_pair(path)
    pack_to(path / "one.stv", pair.base, pair.tuned, name="one")
    pack_to(path / "two.stv", pair.base, pair.tuned, name="two", density=0.4)
    (path / "base" / "tokenizer.json").write_text("{}")
    stitch(path / "base", [path / "one.stv"], path / "out")
    return path


def test_an_interrupt_while_stitching_leaves_nothing(room: Path) -> None:
    before = visible(room)

    def interrupt(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stitch(room / "base", [room / "one.stv"], room / "fresh", progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        add(room / "out", [room / "two.stv"], progress=interrupt)
    assert visible(room) == before
