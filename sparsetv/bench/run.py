"""Experiments by name."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from sparsetv.bench.lab import Lab
from sparsetv.bench.suite import Suite, read_suite
from sparsetv.durable import make_directory
from sparsetv.errors import OutputError, UsageError
from sparsetv.jobs.outputs import locked
from sparsetv.progress import Progress

EXPERIMENTS = {
    "storage": "storage",
    "recovery": "recovery",
    "merge": "merge",
    "groups": "merge",
    "density": "sweeps",
    "shots": "sweeps",
    "retention": "retention",
    "continual": "continual",
    "runtime": "runtime",
}
"""Module of each experiment."""

DIGITS = "digits"


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a suite is measured, and how.

    Attributes:
        tasks: Globs over the tasks; none for all.
        kinds: Kinds of task files, for `storage` and `recovery`; none for those by default.
        methods: Methods, for experiments that merge; none for those by default.
        limit: Most test examples per task; None for all.
        device: Where models run.
    """

    tasks: Sequence[str] = ()
    kinds: Sequence[str] = ()
    methods: Sequence[str] = ()
    limit: int | None = None
    device: str = "auto"


def bench(
    experiment: str,
    suite: Suite,
    output: str | Path,
    *,
    choice: Selection | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda _text: None,
) -> Path:
    """Run an experiment, or what is missing of it, and write its results.

    Args:
        experiment: A name of `EXPERIMENTS`.
        suite: What is measured.
        output: Folder; results go to `EXPERIMENT.jsonl`, task files to `files/`.
        choice: What of the suite, and how.
        progress: Reports work under way.
        say: Told each figure as it is known.

    Returns:
        The file of results.

    Raises:
        UsageError: No such experiment, kind or method, or the suite lacks what the experiment needs.
        OutputError: The file holds results of other weights, tasks, data or settings, or the folder cannot be made.
        BusyError: Another run is writing the same results.
    """
    chosen = choice or Selection()
    if experiment not in EXPERIMENTS:
        raise UsageError(f"unknown experiment {experiment!r}; known are {', '.join(EXPERIMENTS)}")
    job: Any = getattr(import_module(f"sparsetv.bench.{EXPERIMENTS[experiment]}"), experiment)
    taken = inspect.signature(job).parameters
    given: dict[str, Sequence[str]] = {"kinds": chosen.kinds, "methods": chosen.methods}
    for name, value in given.items():
        if value and name not in taken:
            raise UsageError(f"{experiment} has no choice of {name}")
    room = Path(output)
    lab = Lab(suite.only(chosen.tasks), room, chosen.limit, chosen.device, progress, say)
    try:
        make_directory(room)
    except OutputError as error:
        raise OutputError(f"{room}: cannot be a folder of results ({error}); give another -o") from None
    results = room / f"{experiment}.jsonl"
    with locked(results):
        job(lab, **{name: value for name, value in given.items() if name in taken})
    return results


def find_suite(source: str, room: Path, *, models: str | None = None, data: str | None = None,
               progress: Callable[[str], None] | None = None) -> Suite:  # fmt: skip
    """A suite by file or directory, or the embedded one, whose models are made in the room.

    Args:
        source: A suite's file, a directory, or `digits`.
        room: Folder of results.
        models, data: What paths are relative to; see `read_suite`.
        progress: Told of models that are made.
    """
    if source == DIGITS:
        from sparsetv.bench.digits import make_digits  # noqa: PLC0415  it needs extras

        return make_digits(room / DIGITS, progress=progress)
    return read_suite(source, models=models, data=data)
