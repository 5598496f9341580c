"""Real trouble rather than patched calls: full disks, no permission, names at the limit."""

import ctypes
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from crash import in_child
from crashing.stage import OPTIONS, PLAIN
from crashing.state import temporaries
from crashing.writers import WRITERS, state
from hostile import outcome

from sparsetv.errors import OutputError
from sparsetv.jobs.archive import archive_to, restore
from sparsetv.jobs.pack import pack_to as pack
from sparsetv.jobs.stitch import add, stitch
from sparsetv.jobs.store import Store

NOT_HERE = 77
_NEW_MOUNTS = 0x20000
_PRIVATE = 1 << 18 | 1 << 14
_NOBODY = 65534


def refused(name: str, room: Path, reason: str) -> int:
    """0 where a command fails as it should, and leaves the old state and no temporary file; for `in_child`."""
    target, act = WRITERS[name]
    before, error = state(room / target), outcome(partial(act, room))
    assert isinstance(error, OutputError), repr(error)
    assert reason in str(error), str(error)
    assert "run again" in str(error), str(error)
    assert target in str(error), str(error)
    assert state(room / target) == before
    assert not temporaries(room)
    return 0


# No space, no permission


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "demo"])
def test_a_limit_on_the_size_of_files(name: str, room: Path) -> None:
    """Where the system lets no file grow beyond 100 bytes, every command says so, and the old state stands."""

    def limited() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        return refused(name, room, "File too large; raise the limit on the size of files")

    assert in_child(limited) == 0
    WRITERS[name][1](room)
    assert not temporaries(room)


def mounted(place: Path, stage: Path, act: Callable[[], int]) -> int:
    """Run `act` where a small memory disk with a copy of the stage is mounted, for this process alone, and is full."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "unshare") or libc.unshare(_NEW_MOUNTS) or libc.mount(b"none", b"/", None, _PRIVATE, None):
        return NOT_HERE
    if libc.mount(b"none", os.fsencode(place), b"tmpfs", 0, b"size=1m"):
        return NOT_HERE
    shutil.copytree(stage, place / "room")
    with (place / "ballast").open("wb", buffering=0) as ballast:
        while outcome(lambda: ballast.write(bytes(4096))) is None and not _is_full(place):
            pass
    return act()


def _is_full(place: Path) -> bool:
    return os.statvfs(place).f_bavail == 0


@pytest.mark.parametrize("name", list(WRITERS))
def test_a_disk_that_is_full(name: str, stage: Path, tmp_path: Path) -> None:
    """On a full disk every command says so and the old state stands; with space again the next one works."""

    def full() -> int:
        target, act = WRITERS[name]
        if name == "demo":  # its files are made by others, whose errors have no target
            before = state(tmp_path / "room" / target)
            assert isinstance(outcome(partial(act, tmp_path / "room")), OutputError)
            assert state(tmp_path / "room" / target) == before
        else:
            refused(name, tmp_path / "room", "No space left on device; free some space")
        (tmp_path / "ballast").unlink()
        act(tmp_path / "room")
        assert not temporaries(tmp_path)
        return 0

    code = in_child(lambda: mounted(tmp_path, stage, full))
    if code == NOT_HERE:
        pytest.skip("this user may not mount a disk")
    assert code == 0


@pytest.fixture
def common_room(stage: Path) -> Iterator[Path]:
    """A room that everybody may look into and nobody write to."""
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(stage, Path(place) / "room")
        directories = [Path(place), *(item for item in Path(place).rglob("*") if item.is_dir())]
        for path in directories:
            path.chmod(0o555)
        yield Path(place) / "room"
        for path in directories:
            path.chmod(0o755)


@pytest.mark.parametrize("name", list(WRITERS))
def test_a_room_without_permission(name: str, room: Path, common_room: Path) -> None:
    """A user who may read everything and write nothing is told so, and nothing changes; root plays nobody."""
    WRITERS[name][1](room)  # whoever is nobody may not be able to import what this needs

    def act() -> int:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
        return refused_or_unwritable(name, common_room)

    assert in_child(act) == 0


def refused_or_unwritable(name: str, room: Path) -> int:
    """The same as `refused`, or told before any work that the directory is not writable."""
    target, act = WRITERS[name]
    before, error = state(room / target), outcome(partial(act, room))
    assert isinstance(error, OutputError), repr(error)
    assert "Permission denied; make it writable" in str(error) or "is not writable" in str(error), str(error)
    assert target in str(error), str(error)
    assert state(room / target) == before
    return 0


# Names and places


@pytest.mark.parametrize("name", ["a" * 255, "\u65e5" * 85], ids=["ascii", "unicode"])
def test_a_name_at_the_limit(name: str, room: Path) -> None:
    """The longest name that the file system takes can be a file, a directory and a store; one byte more is refused."""
    os.rename(room / "old.stv", room / name)
    pack(room / name, room / "base", room / "tuned-one", name="one", options=OPTIONS)
    (room / name).unlink()
    stitch(room / "base", [room / "one.stv"], room / name, options=PLAIN)
    add(room / name, [room / "local.stv"])
    shutil.rmtree(room / name)
    Store.init(room / name).add(room / "one.stv")
    longer = room / (name + "a")
    for act in (
        partial(pack, longer, room / "base", room / "tuned-one", name="one", options=OPTIONS),
        partial(stitch, room / "base", [room / "one.stv"], longer, options=PLAIN),
        partial(Store.init, longer),
    ):
        with pytest.raises((OutputError, OSError), match="File name too long"):
            act()
    assert not temporaries(room)


def test_a_missing_parent_directory(room: Path) -> None:
    """What is to be written into a directory that is not there is refused before anything is read."""
    for act in (
        partial(pack, room / "no" / "x", room / "base", room / "tuned-one", options=OPTIONS),
        partial(archive_to, room / "no" / "x", room / "base", room / "tuned-one"),
        partial(stitch, room / "base", [room / "one.stv"], room / "no" / "x"),
        partial(restore, room / "base", room / "one.archive", room / "no" / "x"),
        partial(Store.init, room / "no" / "x"),
    ):
        with pytest.raises(OutputError, match=r"no does not exist; create it first"):
            act()


def test_temporary_files_on_another_file_system(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is renamed from one file system to another, wherever the system keeps temporary files."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == room.stat().st_dev:
        pytest.skip("no second file system here")
    with tempfile.TemporaryDirectory(dir=memory) as place:
        monkeypatch.setenv("TMPDIR", place)
        monkeypatch.setattr(tempfile, "tempdir", None)
        for target, act in WRITERS.values():
            before = state(room / target)
            act(room)
            assert state(room / target) != before
        (room / "link").symlink_to(Path(place) / "far")
        (Path(place) / "far").mkdir()
        stitch(room / "base", [room / "one.stv"], room / "link", options=PLAIN)
        assert (room / "link" / "sparsetv.json").is_file()
        assert (room / "link").is_symlink()
        assert not temporaries(room) + temporaries(Path(place))
