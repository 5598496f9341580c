"""The processes that `benchmarks.peers` measures, and the rows that they make up, each with what is not equal in it."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import peers_mergekit

MERGED = 3
MANY = 10
METHODS = ("ties", "dare_ties", "task_arithmetic")
TENSOR = ("--scope", "all", "--allocation", "tensor", "--no-probe")
"""Options of `pack` that choose what mergekit's TIES chooses: the largest 1 % of each tensor, and no scale."""

SPARSETV = "sparsetv"
PEER = "peer"


@dataclass(frozen=True, slots=True)
class Job:
    """A process.

    Attributes:
        command: What is run.
        clear: What is removed before, untimed.
        file: Whose size is recorded after, if it writes one.
    """

    command: Sequence[str | Path]
    clear: tuple[Path, ...] = ()
    file: Path | None = None

    def prepare(self) -> None:
        """Remove what would be in the way."""
        for path in self.clear:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table: one job, or several one after another.

    Attributes:
        by: Whose it is.
        name: What is done.
        jobs: Jobs that it is made of; their seconds are added, round by round, and the largest peak counts.
        unequal: What is not equal between this and what it stands beside; empty for what the others are compared with.
    """

    by: str
    name: str
    jobs: tuple[str, ...]
    unequal: str


@dataclass(frozen=True, slots=True)
class Places:
    """Where things lie in the room; what is read is made before, untimed."""

    room: Path

    @property
    def work(self) -> Path:
        """What jobs write."""
        return self.room / "work"

    @property
    def pair(self) -> Path:
        """The directories that `benchmarks.peers_storage` reads."""
        return self.room / "pair"

    @property
    def checkpoints(self) -> list[Path]:
        """The base, then the fine-tunes."""
        return [self.room / "dense" / name for name in ("base", *(f"tuned-{n}" for n in range(MERGED)))]

    @property
    def many(self) -> list[Path]:
        """Task files for the directory of ten."""
        return [self.room / "ten" / f"task-{number:02}.stv" for number in range(MANY)]

    def packed(self, number: int) -> Path:
        """A packed fine-tune."""
        return self.work / f"task-{number}.stv"


def sparsetv(*words: str | Path) -> list[str | Path]:
    """A command of ours."""
    return [Path(sys.executable).parent / "sparsetv", *words]


def stitch(base: Path, tasks: Sequence[Path], out: Path) -> list[str | Path]:
    """TIES at scale 1, as mergekit does it with weight 1."""
    return sparsetv("stitch", base, *tasks, "-o", out, "--rule", "ties", "--scale", "none")


def merging(places: Places, python: Path | None) -> dict[str, Job]:
    """Three fine-tunes to one checkpoint, and one task out of it and back, with both tools."""
    base, *tuned = places.checkpoints
    work, packed = places.work, [places.packed(number) for number in range(MERGED)]
    three, ten = work / "three", work / "ten"
    jobs = {
        f"pack {number}": Job(sparsetv("pack", base, path, "-o", file, *TENSOR), (file,), file)
        for number, (path, file) in enumerate(zip(tuned, packed, strict=True))
    }
    jobs["stitch"] = Job(stitch(base, packed, three), (three,))
    jobs["remove 3"] = Job(sparsetv("remove", three, packed[-1].stem))
    jobs["add 3"] = Job(sparsetv("add", three, packed[-1]))
    jobs["remove 10"] = Job(sparsetv("remove", ten, places.many[-1].stem))
    jobs["add 10"] = Job(sparsetv("add", ten, places.many[-1]))
    probed = work / "probed.stv"
    jobs["pack probe"] = Job(sparsetv("pack", base, tuned[0], "-o", probed), (probed,), probed)
    if python is not None:
        for method in METHODS:
            out = work / f"mergekit-{method}"
            jobs[method] = Job(peers_mergekit.command(python, places.room / f"{method}.yaml", out), (out,))
        jobs["mergekit start"] = Job([peers_mergekit.program(python), "--help"])
    return jobs


PACKS = tuple(f"pack {number}" for number in range(MERGED))
PACK_ALL = "`sparsetv pack` three times"
MERGING = (
    Row(PEER, "mergekit `ties`, 3 fine-tunes", ("ties",), ""),
    Row(
        PEER,
        "mergekit `dare_ties`, 3 fine-tunes",
        ("dare_ties",),
        "drops entries at random instead of the smallest: nothing is ranked",
    ),
    Row(PEER, "mergekit `task_arithmetic`, 3 fine-tunes", ("task_arithmetic",), "keeps every entry: nothing is chosen"),
    Row(PEER, "`mergekit-yaml --help`", ("mergekit start",), "its start alone, part of each of the above"),
    Row(
        SPARSETV,
        "`sparsetv pack`, one of the 3",
        ("pack 0",),
        "one fine-tune to one file that can be used again; merges nothing; also hashes the base",
    ),
    Row(SPARSETV, PACK_ALL, PACKS, "three files instead of one merged checkpoint"),
    Row(
        SPARSETV,
        "`sparsetv pack` three times, then `stitch --rule ties`",
        (*PACKS, "stitch"),
        "the same merge, four processes; also keeps the tasks and what is needed to take them out again",
    ),
    Row(
        SPARSETV,
        "`sparsetv pack` with no options, one of the 3",
        ("pack probe",),
        "does more: runs both models on random inputs to find the scale; only the blocks",
    ),
)

CHANGING = (
    Row(
        SPARSETV,
        "`sparsetv add`, the third task",
        ("add 3",),
        "reads three task files, not three checkpoints; checks the base by hash",
    ),
    Row(
        SPARSETV,
        "`sparsetv remove`, one of 3",
        ("remove 3",),
        "two tasks stay, while mergekit merges three; gives the base's bits back",
    ),
    Row(SPARSETV, "`sparsetv add`, the tenth task", ("add 10",), "ten tasks, while mergekit merges three"),
    Row(SPARSETV, "`sparsetv remove`, one of 10", ("remove 10",), "nine tasks stay, while mergekit merges three"),
)


def storing(places: Places, python: Path | None) -> dict[str, Job]:
    """One fine-tune to a file and back, with every tool."""
    base, tuned, *_ = places.checkpoints
    work, script = places.work, Path(__file__).parent / "peers_storage.py"
    archive, task = work / "whole.stv", work / "kept.stv"
    jobs = {
        "archive compress": Job(sparsetv("pack", "--lossless", base, tuned, "-o", archive), (archive,), archive),
        "archive restore": _to_directory(sparsetv("restore", base, archive, "-o"), work / "restored"),
        "task compress": Job(sparsetv("pack", base, tuned, "-o", task, *TENSOR), (task,), task),
        "task restore": _to_directory(sparsetv("stitch", base, task, "--scale", "none", "-o"), work / "grafted"),
    }
    if python is not None:
        for peer, file in FILES.items():
            out = places.pair / "peer"
            command: list[str | Path] = [python, script, peer, places.pair]
            jobs[f"{peer} compress"] = Job([*command, "compress"], (out / file,), out / file)
            jobs[f"{peer} restore"] = Job([*command, "restore"], (out / "again.safetensors",))
    return jobs


def _to_directory(command: list[str | Path], out: Path) -> Job:
    return Job([*command, out], (out,))


FILES = {
    "zipnn": "task.znn",
    "weightscope-whole": "patch.wsp",
    "weightscope": "patch.wsp",
    "compressed-tensors": "bitmask.safetensors",
    "deltatensors-int4": "task.wdelta",
}
"""What each peer writes in `benchmarks.peers_storage`, in the order in which they run."""

LOSSLESS = "lossless"
KEPT = "1 % of the entries, exact"
LOSSY = "every entry, about"
STORING = (
    (SPARSETV, "archive", "`sparsetv pack --lossless` / `restore`", LOSSLESS, "files of the directory too, all hashed"),
    (PEER, "zipnn", "ZipNN, delta mode", LOSSLESS, "the weight file only, read whole into memory; nothing is checked"),
    (
        PEER,
        "weightscope-whole",
        "weightscope, threshold 0",
        LOSSLESS,
        "made for few changed weights: stores a position for every one",
    ),
    (SPARSETV, "task", "`sparsetv pack` / `stitch`", KEPT, "chooses the entries, too"),
    (PEER, "weightscope", "weightscope, threshold 0", KEPT, "chooses nothing: is given the base with them put in"),
    (
        PEER,
        "compressed-tensors",
        "compressed-tensors bitmask",
        KEPT,
        "chooses nothing: is given them alone, without a base to check",
    ),
    (PEER, "deltatensors-int4", "deltatensors int4", LOSSY, "four bits for every entry: nothing comes back exactly"),
)
"""Whose, its name in jobs, what is done, what comes back, what is not equal."""
