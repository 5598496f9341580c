"""What the figures are of: definitions, tasks, settings, published figures, machine and versions."""

from collections.abc import Iterator, Mapping
from typing import Any

from sparsetv.report import numbers
from sparsetv.report.html import Content, Markup, element, join, section, table
from sparsetv.results import Results

DEFINITIONS = (
    ("score", "Accuracy, or F1 where it says so, on the task's test set; 1 is perfect."),
    ("base", "The base's body under the fine-tune's own head: what there is before any of the task vector is put on."),
    ("fine-tuned", "The fine-tune itself, whole."),
    ("normalised", "Score over the fine-tune's; its average is the mean over tasks."),
    (
        "gap closed",
        "(score - base) / (fine-tuned - base); its average leaves out tasks whose fine-tune does not beat the base.",
    ),
    ("average", "Mean over all tasks of the set; empty where one was not measured."),
    (
        "data it uses",
        "What a method sees beside checkpoints or task files: nothing, inputs, or labelled examples. What is tuned is "
        "chosen among settings on such examples.",
    ),
    ("peak memory", "Anonymous resident memory above what was there at the start; mapped files do not count."),
    ("bold", "The best of a column, base and fine-tunes aside; it does not say that differences matter."),
)


def measured(results: Mapping[str, Results]) -> Markup:
    """Definitions, then whatever the headers tell."""
    terms = join(part for term, meaning in DEFINITIONS for part in (element("dt", term), element("dd", meaning)))
    parts: list[Content] = [element("dl", terms), _tasks(results), _published(results), _machines(results)]
    return section("measured", "What the figures mean and where they are from", *parts)


def suites(results: Mapping[str, Results]) -> list[Mapping[str, Any]]:
    """The suites that results are of, without repetition."""
    found: dict[str, Mapping[str, Any]] = {}
    for each in results.values():
        suite = each.header.get("suite")
        if isinstance(suite, dict):
            found.setdefault(repr((suite.get("name"), suite.get("base"))), suite)
    return list(found.values())


def _tasks(results: Mapping[str, Results]) -> Markup:
    rows = []
    for suite in suites(results):
        told = suite.get("tasks")
        for task in told if isinstance(told, list) else ():
            known = task if isinstance(task, dict) else {"name": task}
            cells = (numbers.plain(known.get(key)) for key in ("metric", "kind", "note", "finetuned", "test"))
            rows.append((numbers.plain(known.get("name")), *cells, numbers.plain(known.get("sha256"))[:16]))
    head = ("task", "metric", "scored by", "note", "fine-tune", "test data", "SHA-256 of its weights")
    return table(head, rows, caption="Tasks", words=7) if rows else Markup("")


def _published(results: Mapping[str, Results]) -> Markup:
    rows = [row for suite in suites(results) for row in _leaves(suite.get("paper"), ())]
    return (
        table(("published", "figure"), rows, caption="Published figures that the suite quotes") if rows else Markup("")
    )


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    elif value not in (None, ""):
        yield ", ".join(path) or "paper", numbers.plain(value)


def _machines(results: Mapping[str, Results]) -> Markup:
    """A column per machine and versions; experiments that ran on the same share one."""
    columns: dict[str, tuple[dict[str, str], list[str]]] = {}
    for name, each in results.items():
        told = _told(each.header)
        columns.setdefault(repr(told), (told, []))[1].append(name)
    keys = list(dict.fromkeys(key for told, _ in columns.values() for key in told))
    head = ("", *(", ".join(names) for _, names in columns.values()))
    rows = [(key, *(told.get(key, "") for told, _ in columns.values())) for key in keys]
    return table(head, rows, caption="Machine, versions and settings", words=len(head))


def _told(header: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    suite = header.get("suite")
    for key in ("seed", "precision", "max_length"):
        if isinstance(suite, dict) and key in suite:
            found[key.replace("_", " ")] = numbers.plain(suite[key])
    for part in ("settings", "machine", "versions"):
        told = header.get(part)
        for key, value in told.items() if isinstance(told, dict) else ():
            if numbers.plain(value):
                found[str(key).replace("_", " ")] = numbers.plain(value)
    return found
