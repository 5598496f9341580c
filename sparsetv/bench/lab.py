"""What all experiments share: the suite's models and files, made once, and what results say of where they are from."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from sparsetv.bench.kinds import options_of
from sparsetv.bench.machine import machine
from sparsetv.bench.subject import Subject, checkpoint_files
from sparsetv.bench.suite import Suite, Task
from sparsetv.errors import LimitError, ProbeError, UsageError
from sparsetv.jobs.pack import pack_files
from sparsetv.merging.vectors import Tensors
from sparsetv.progress import Progress
from sparsetv.results import Recorder
from sparsetv.task_vector import SparseTaskVector
from sparsetv.taskfile import read_task, write_task

_HASHED = 1 << 22


@dataclass(slots=True)
class Lab:
    """A suite in a room.

    Attributes:
        suite: What is measured.
        room: Folder of results; task files in `files/`.
        limit: Most test examples per task; None for all.
        device: Where models run.
        progress: Reports work under way.
        say: Told what was measured.
    """

    suite: Suite
    room: Path
    limit: int | None = None
    device: str = "auto"
    progress: Progress | None = None
    say: Callable[[str], None] = lambda _text: None
    _subjects: dict[str, Subject] = field(default_factory=dict)
    _digests: dict[str, str] = field(default_factory=dict)

    def recorder(self, bench: str, *, timed: bool = False) -> Recorder:
        """The file of an experiment's results; of one that is about time, another machine does not go on."""
        known = machine()
        where = {key: known[key] for key in ("processor", "cores")} | {"device": self.device} if timed else {}
        header = {
            "bench": bench,
            "suite": self._told(),
            "settings": {"limit": self.limit, **where},
            "data": {task.name: self._data(task) for task in self.suite.tasks},
            "machine": known,
        }
        return Recorder(self.room / f"{bench}.jsonl", header)

    def subject(self, name: str) -> Subject:
        """A fine-tune's live model; kept."""
        if name not in self._subjects:
            self._subjects[name] = Subject(self.suite, self.suite.task(name), device=self.device, limit=self.limit)
        return self._subjects[name]

    def file(self, name: str, kind: str) -> Path:
        """Where the packed file of a kind lies."""
        return self.files(name) / f"{kind.replace('% ', '-').replace(' ', '-')}.stv"

    def files(self, name: str) -> Path:
        """Where the packed files of a fine-tune lie: a folder of its weights, data and settings alone."""
        told, task = self._told(), self.suite.task(name)
        packed = {key: told[key] for key in ("base", "max_length", "precision", "scope", "seed")}
        own = [asdict(task), self._sha256(task.finetuned), self._data(task).get("train"), packed]
        return self.room / "files" / f"{name}-{hashlib.sha256(json.dumps(own).encode()).hexdigest()[:12]}"

    def packed(self, name: str, kind: str) -> SparseTaskVector:
        """The task of a packed file, which is made where it is missing."""
        path = self.file(name, kind)
        if not path.exists():
            task = self.suite.task(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            options = options_of(kind, self.suite, task, device=self.device)
            made = pack_files(self.suite.base, task.finetuned, name=name, options=options, progress=self.progress)
            write_task(path, made)
        return read_task(path)

    def shared(self, names: Sequence[str]) -> tuple[str, ...]:
        """Base names of the tensors that all these fine-tunes have."""
        sets = [set(self.subject(name).names) for name in names]
        return tuple(sorted(set.intersection(*sets)))

    def vectors(self, names: Sequence[str]) -> list[dict[str, torch.Tensor]]:
        """Task vectors over the tensors that all have, float32."""
        shared = self.shared(names)
        return [self.subject(name).deltas(shared) for name in names]

    def validate(self, deltas: Mapping[str, Tensors]) -> float:
        """Mean score per task on validation examples, each task with its own deltas."""
        scores = [self.subject(name).score(own, part="validation") for name, own in deltas.items()]
        return sum(scores) / len(scores)

    def normalised(self, scores: Mapping[str, float]) -> float | None:
        """Mean over tasks of the score over the fine-tune's; None where a fine-tune has none right."""
        ceilings = [self.subject(name).ceiling for name in scores]
        if not all(ceilings):
            return None
        ratios = [value / ceiling for value, ceiling in zip(scores.values(), ceilings, strict=True)]
        return round(sum(ratios) / len(ratios), 6)

    def _told(self) -> dict[str, Any]:
        """The suite as results name it: no paths of this machine."""
        suite, tasks = self.suite, []
        for task in suite.tasks:
            told = asdict(task) | {"finetuned": _plain(task.finetuned, parts=1)}
            told |= {"train": _plain(task.train, parts=2), "test": _plain(task.test, parts=2)}
            tasks.append(
                {**{key: value for key, value in told.items() if value}, "sha256": self._sha256(task.finetuned)}
            )
        return {
            "name": suite.name,
            "about": suite.about,
            "base": {"name": _plain(suite.base, parts=1), "sha256": self._sha256(suite.base)},
            "tasks": tasks,
            "merged": list(suite.merged),
            "groups": {key: list(names) for key, names in suite.groups.items()},
            "max_length": suite.max_length,
            "precision": suite.precision,
            "scope": list(suite.scope),
            "seed": suite.seed,
            "paper": dict(suite.paper),
        }

    def _data(self, task: Task) -> dict[str, str]:
        """Hashes of a task's files of examples, by part; data sets of the hub are told by their names alone."""
        parts = {"train": task.train, "test": task.test}
        return {part: _sha256([Path(source)]) for part, source in parts.items() if source and Path(source).is_file()}

    def _sha256(self, source: str) -> str:
        """Hash of a checkpoint's weight files."""
        if source not in self._digests:
            self._digests[source] = _sha256(checkpoint_files(source))
        return self._digests[source]


@contextmanager
def left_out(lab: Lab, what: str, *, never: bool) -> Iterator[None]:
    """Go on where a measurement is impossible for this suite (no data, a budget below what heads take), and say so.

    Args:
        lab: Is told.
        what: Names the measurement.
        never: Raise after all: it was asked for by name.
    """
    try:
        yield
    except (UsageError, LimitError, ProbeError) as error:
        if never:
            raise
        lab.say(f"{what}: left out ({error})")


def _sha256(paths: Sequence[Path]) -> str:
    """Hash of the content of some files, one after the other."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(_HASHED):
                total.update(piece)
    return total.hexdigest()


def _plain(source: str, *, parts: int) -> str:
    """The last parts of a path, which is all that it says on another machine; a hub's name as it stands."""
    path = Path(source)
    return "/".join(path.parts[-parts:]) if source and path.exists() else source
