"""What is measured: a base, its fine-tunes, and data of their tasks."""

import fnmatch
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sparsetv.errors import FormatError, NotFoundError, UsageError

METRICS = ("accuracy", "f1")
KINDS = ("classify", "zero-shot", "choices")
PRECISIONS = ("fp32", "bf16")
_SETTINGS = ("columns", "template", "names", "measure")
_LONGEST_NAME = 100
"""Characters of a task's name, since files are named by it and a digest."""

_TOP = ("name", "about", "base", "max_length", "precision", "scope", "seed", "merged", "groups", "paper", "tasks")
_PER_TASK = ("name", "finetuned", "train", "test", "data", "metric", "kind", "note", "settings")


@dataclass(frozen=True, slots=True)
class Task:
    """One fine-tune and the data of its task.

    Attributes:
        name: Unique in the suite, usable as a file's name.
        finetuned: Checkpoint directory or hub id.
        train, test: JSON lines, or a data set of the hub (`NAME`, `NAME:SPLIT`, `NAME:CONFIG:SPLIT`); empty where there
            are none.
        metric: `accuracy`, or `f1` of class 1.
        kind: How a model is scored: `classify` by its own head, `zero-shot` by an image encoder and the names of
            classes, `choices` by the likelihood of each answer.
        note: What else tells it apart, such as how it was fine-tuned.
        settings: `columns`, where those of the data have other names (`read_examples`); of `zero-shot`, `template`, one
            or several, and `names` of the classes where the data set has none; of `choices`, `measure`.
    """

    name: str
    finetuned: str
    train: str = ""
    test: str = ""
    metric: str = "accuracy"
    kind: str = "classify"
    note: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> Mapping[str, str]:
        """Names of the data's columns by those of `read_examples`; empty where they are the same."""
        found: Mapping[str, str] = self.settings.get("columns", {})
        return found


@dataclass(frozen=True, slots=True)
class Suite:
    """A base and tasks.

    Attributes:
        name: Of the suite; results say it.
        base: Checkpoint directory or hub id.
        tasks: All tasks, in the order in which continual addition meets them.
        merged: Names of the tasks that are merged; others are measured alone.
        groups: Further sets of tasks to merge, by name, such as `similar` and `dissimilar`.
        max_length: Longer texts are cut to so many tokens.
        precision: `fp32`, or `bf16` for matrix products in bfloat16.
        scope: Where files keep entries, as on the command line: a preset and globs; the default one where empty.
        seed: Of everything drawn at random.
        about: A sentence for the reader of the results.
        paper: Published figures, to stand beside ours: by experiment (`merge`, `grafted`, `groups`), method, and task,
            group or `average`.
    """

    name: str
    base: str
    tasks: tuple[Task, ...]
    merged: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    max_length: int = 128
    precision: str = "fp32"
    scope: tuple[str, ...] = ()
    seed: int = 0
    about: str = ""
    paper: Mapping[str, Any] = field(default_factory=dict)

    def task(self, name: str) -> Task:
        """The task of a name."""
        return next(task for task in self.tasks if task.name == name)

    def only(self, patterns: Sequence[str]) -> "Suite":
        """The suite with the tasks that one of the globs names; all of them where there are no globs.

        Raises:
            NotFoundError: A glob names no task.
        """
        names = [task.name for task in self.tasks]
        for pattern in patterns:
            if not fnmatch.filter(names, pattern):
                raise NotFoundError(f"suite {self.name} has no task {pattern!r}; it has {', '.join(names)}")
        kept = {name for name in names if not patterns or any(fnmatch.fnmatchcase(name, p) for p in patterns)}
        return replace(
            self,
            tasks=tuple(task for task in self.tasks if task.name in kept),
            merged=tuple(name for name in self.merged if name in kept),
            groups={key: names for key, names in self.groups.items() if kept.issuperset(names)},
        )


def read_suite(source: str | Path, *, models: str | Path | None = None, data: str | Path | None = None) -> Suite:
    """Read a suite.

    Args:
        source: A TOML file (benchmarks/README.md says what stands in it), or a directory with `base/`, a directory per
            fine-tune, and `tasks/NAME/train.jsonl` and `test.jsonl` for each.
        models: What the paths of checkpoints are relative to; the directory of `source` if None.
        data: What the paths of data are relative to; likewise, `tasks` in it for a directory.

    Raises:
        NotFoundError: There is no such file, or no fine-tune in the directory.
        FormatError: The file is no suite.
    """
    path = Path(source)
    if path.is_dir():
        return _of_directory(Path(models or path), Path(data or path / "tasks"))
    if not path.is_file():
        raise NotFoundError(f"{path}: no such suite; give a TOML file or a directory with base/ and fine-tunes")
    try:
        value = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: no suite: {error}") from None
    try:
        return _parse(value, models=Path(models or path.parent), data=Path(data or path.parent))
    except UsageError as error:
        raise FormatError(f"{path}: {error}") from None


def _of_directory(models: Path, data: Path) -> Suite:
    if not models.is_dir():
        raise NotFoundError(f"{models}: no such directory; it must hold base/ and a directory per fine-tune")
    found = sorted(folder.name for folder in models.iterdir() if _is_checkpoint(folder))
    names = [name for name in found if name != "base" and not name.startswith("base-")]
    if "base" not in found or not names:
        raise NotFoundError(f"{models}: needs base/ and a directory per fine-tune, each with config.json and weights")
    tasks = tuple(Task(name, str(models / name), *_files(data, name)) for name in names)
    return Suite(models.resolve().name, str(models / "base"), tasks, tuple(names))


def _is_checkpoint(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _files(data: Path, name: str) -> tuple[str, str]:
    """Training and test file of a fine-tune: under its name, or that less what follows its last hyphens."""
    parts = name.split("-")
    for count in range(len(parts), 0, -1):
        folder = data / "-".join(parts[:count])
        if (folder / "test.jsonl").is_file():
            return str(folder / "train.jsonl") if (folder / "train.jsonl").is_file() else "", str(folder / "test.jsonl")
    return "", ""


def _parse(value: dict[str, Any], *, models: Path, data: Path) -> Suite:
    _known(value, _TOP, "the suite")
    rows = value.get("tasks")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise UsageError("a suite needs [[tasks]]")
    tasks = tuple(_task(row, models=models, data=data) for row in rows)
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        raise UsageError("two tasks have one name")
    groups = {key: _members(members, f"groups.{key}", names) for key, members in _table(value, "groups").items()}
    merged = _members(value.get("merged", names), "merged", names)
    precision = _text(value, "precision") or "fp32"
    if precision not in PRECISIONS:
        raise UsageError(f"precision is {precision!r}; it must be one of {', '.join(PRECISIONS)}")
    return Suite(
        name=_text(value, "name", needed=True),
        base=_place(models, _text(value, "base", needed=True)),
        tasks=tasks,
        merged=merged,
        groups=groups,
        max_length=_number(value, "max_length", default=128, least=1),
        precision=precision,
        scope=_texts(value.get("scope", []), "scope"),
        seed=_number(value, "seed", default=0, least=0),
        about=_text(value, "about"),
        paper=_table(value, "paper"),
    )


def _task(row: dict[str, Any], *, models: Path, data: Path) -> Task:
    _known(row, _PER_TASK, "a task")
    name = _text(row, "name", needed=True)
    if "/" in name or name.startswith(".") or not name.isprintable() or len(name) > _LONGEST_NAME:
        raise UsageError(f"{name!r} cannot be a task's name: it names files")
    folder = _text(row, "data")
    train, test = (f"{folder}/train.jsonl", f"{folder}/test.jsonl") if folder else ("", "")
    metric, kind = _text(row, "metric") or "accuracy", _text(row, "kind") or "classify"
    if metric not in METRICS or kind not in KINDS:
        raise UsageError(f"task {name}: metric is one of {', '.join(METRICS)}, kind one of {', '.join(KINDS)}")
    settings = _table(row, "settings")
    _known(settings, _SETTINGS, f"task {name}: settings")
    _table(settings, "columns")
    return Task(
        name=name,
        finetuned=_place(models, _text(row, "finetuned") or name),
        train=_place(data, _text(row, "train") or train),
        test=_place(data, _text(row, "test") or test),
        metric=metric,
        kind=kind,
        note=_text(row, "note"),
        settings=settings,
    )


def _known(value: Mapping[str, Any], keys: Sequence[str], what: str) -> None:
    odd = sorted(value.keys() - set(keys))
    if odd:
        raise UsageError(f"{what} has {odd[0]!r}, which is none of {', '.join(keys)}")


def _text(value: Mapping[str, Any], key: str, *, needed: bool = False) -> str:
    found = value.get(key, "")
    if not isinstance(found, str) or (needed and not found):
        raise UsageError(f"{key!r} must be a text")
    return found


def _texts(value: object, key: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(own, str) for own in value):
        raise UsageError(f"{key!r} must be a list of texts")
    return tuple(value)


def _members(value: object, key: str, names: Sequence[str]) -> tuple[str, ...]:
    """Names of tasks, each once: a task that is merged twice would count twice."""
    found = _texts(value, key)
    for name in found:
        if name not in names:
            raise UsageError(f"{key!r}: {name!r} is none of the tasks {', '.join(names)}")
        if found.count(name) > 1:
            raise UsageError(f"{key!r} names {name!r} twice")
    return found


def _table(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key, {})
    if not isinstance(found, dict):
        raise UsageError(f"{key!r} must be a table")
    return found


def _number(value: Mapping[str, Any], key: str, *, default: int, least: int) -> int:
    found = value.get(key, default)
    if type(found) is not int or found < least:
        raise UsageError(f"{key!r} must be a whole number, {least} or more")
    return found


def _place(root: Path, name: str) -> str:
    """A path under a root where something lies there, else the name as it stands: a hub's."""
    return str(root / name) if name and (root / name).exists() else name
