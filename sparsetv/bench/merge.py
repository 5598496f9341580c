"""Experiment: several fine-tunes in one body, by every method, each task under its own head (Tables 2, 4 and 5)."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

from sparsetv.bench.lab import Lab, left_out
from sparsetv.bench.method import Merged, Method
from sparsetv.bench.methods import choose
from sparsetv.bench.suite import Suite
from sparsetv.errors import UsageError
from sparsetv.results import Recorder, Row

ALL = "all"
"""The set of all merged tasks."""

GROUPED = ("average", "arithmetic", "ties", "arithmetic-tuned", "ties-tuned", "stitch-5", "stitch-5-scaled",
           "stitch-5-joint", "stitch-learned")  # fmt: skip
"""Methods that groups are merged by, unless others are named."""

Of = Mapping[str, Any]


def merge(lab: Lab, *, methods: Sequence[str] = ()) -> None:
    """Merge the suite's tasks by every method; rows `{set, method, task}` in `merge.jsonl`."""
    names, _ = checked(lab), choose(methods)
    merge_set(lab, lab.recorder("merge"), {"set": ALL}, names, methods)


def groups(lab: Lab, *, methods: Sequence[str] = ()) -> None:
    """Merge the suite's groups, such as similar and dissimilar tasks (Table 6); rows as in `merge.jsonl`.

    Raises:
        UsageError: The suite has no groups.
    """
    if not lab.suite.groups:
        raise UsageError(f"suite {lab.suite.name} has no [groups] of tasks")
    choose(methods)
    recorder = lab.recorder("groups")
    for name, members in lab.suite.groups.items():
        merge_set(lab, recorder, {"set": name}, members, methods, GROUPED)


def checked(lab: Lab) -> tuple[str, ...]:
    """Names of the tasks that are merged.

    Raises:
        UsageError: There are fewer than two.
    """
    if len(lab.suite.merged) < 2:
        raise UsageError(f"suite {lab.suite.name} merges {len(lab.suite.merged)} tasks; two or more are needed")
    return lab.suite.merged


def merge_set(
    lab: Lab, recorder: Recorder, of: Of, names: Sequence[str], methods: Sequence[str], default: Sequence[str] = ()
) -> None:
    """Measure one set of tasks: base, fine-tunes, and each method; by default those that the suite allows."""
    references(lab, recorder, of, names)
    for key, method in choose(methods, default).items():
        merged = Once(partial(method.make, lab, names))
        told: dict[str, Any] = {"label": method.label, "data": method.data, "group": method.group}
        told |= {"published": published(lab.suite, str(of["set"]), method)}
        with left_out(lab, key, never=bool(methods)):
            measure(lab, recorder, {**of, "method": key}, names, merged, told)


def references(lab: Lab, recorder: Recorder, of: Of, names: Sequence[str]) -> None:
    """Rows of the base under each task's head, and of each fine-tune."""
    for name in names:
        for key, deltas in (("base", {}), ("finetuned", None)):
            recorder.measure({**of, "method": key, "task": name}, partial(lab.subject(name).row, deltas))


def published(suite: Suite, members: str, method: Method) -> float | None:
    """The paper's own average of a method over a set of tasks, where the suite quotes it."""
    table = suite.paper.get("merge" if members == ALL else "groups", {}).get(method.published, {})
    found: float | None = table.get("average" if members == ALL else members)
    return found


class Once:
    """A merge that is made when it is first needed."""

    def __init__(self, make: Callable[[], Merged]) -> None:
        self._make = make

    @cached_property
    def merged(self) -> Merged:
        """What the method gives."""
        return self._make()


def measure(
    lab: Lab, recorder: Recorder, of: Of, names: Sequence[str], merge: Once, told: Mapping[str, Any]
) -> list[Row]:
    """A row per task with its score, and one of the method itself (task ``) with its settings and stored bytes."""
    rows = [
        recorder.measure({**of, "task": name}, lambda n=name: lab.subject(n).row(merge.merged.deltas[n]))  # type: ignore[misc]
        for name in names
    ]
    recorder.measure(
        {**of, "task": ""},
        lambda: {**told, "settings": dict(merge.merged.settings), "stored_bytes": merge.merged.stored_bytes},
    )
    values = ", ".join(f"{row['of']['task']} {row['value']:.3f}" for row in rows)
    lab.say(f"{', '.join(str(value) for value in of.values() if value != 'all')}: {values}")
    return rows
