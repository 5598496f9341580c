"""Results of the benchmarks as one page that needs nothing else: no network, no scripts, no fonts."""

from collections.abc import Callable, Mapping
from pathlib import Path

from sparsetv import atomic
from sparsetv.report import numbers
from sparsetv.report.charts import check_matplotlib
from sparsetv.report.cost import runtime
from sparsetv.report.files import recovery, storage
from sparsetv.report.glance import glance
from sparsetv.report.html import Content, Markup, element, escape, join, paragraph
from sparsetv.report.lasting import continual, retention
from sparsetv.report.measured import measured, suites
from sparsetv.report.merging import density, groups, merge, shots
from sparsetv.report.style import STYLE
from sparsetv.results import Results, read_folder

SECTIONS: Mapping[str, tuple[str, Callable[[Results], Markup]]] = {
    "storage": ("weight", storage),
    "recovery": ("recovery", recovery),
    "merge": ("merging", merge),
    "groups": ("groups", groups),
    "density": ("density", density),
    "shots": ("examples", shots),
    "retention": ("retention", retention),
    "continual": ("task after task", continual),
    "runtime": ("time and memory", runtime),
}
"""By the name of the experiment: its word in the page's contents, and what makes its section."""


def write_report(folder: str | Path, output: str | Path, *, title: str = "") -> int:
    """Write a folder of results as one self-contained HTML page, atomically; returns its size in bytes.

    Args:
        folder: Holds `*.jsonl` as `sparsetv bench` writes them; a section appears for each that is known.
        output: File to write.
        title: Of the page; the suite's name if empty.

    Raises:
        NotFoundError: There are no results, or matplotlib (the extra `demo`) is not installed.
        FormatError: A file holds no results.
        OutputError: The page cannot be written.
    """
    check_matplotlib()
    atomic.check_writable(output)
    page = make_page(read_folder(Path(folder)), title=title)
    return atomic.write_file(Path(output), [page.encode()])


def make_page(results: Mapping[str, Results], *, title: str = "") -> str:
    """The page; same results, same text."""
    told = suites(results)
    name = title or ", ".join(dict.fromkeys(numbers.plain(suite.get("name")) for suite in told)) or "Results"
    shown = [key for key in SECTIONS if key in results]
    links = [(key, SECTIONS[key][0]) for key in shown] + [("measured", "definitions and machine")]
    contents = element("ul", *(element("li", element("a", word, href=f"#{key}")) for key, word in links))
    body = join([
        element("h1", name),
        *(_about(suite.get("about"), suite.get("base")) for suite in told),
        element("nav", contents, aria_label="Contents"),
        glance(results),
        *(SECTIONS[key][1](results[key]) for key in shown),
        measured(results),
        _others([key for key in results if key not in SECTIONS]),
    ])  # fmt: skip
    return _document(name, body)


def _about(about: object, base: object) -> Content:
    origin = base.get("name") if isinstance(base, dict) else base
    digest = base.get("sha256") if isinstance(base, dict) else None
    weights = f" (SHA-256 of its weights {numbers.plain(digest)[:16]}…)" if digest else ""
    words = [f"{numbers.plain(about)}." if about else "", f"Base: {numbers.plain(origin)}{weights}." if origin else ""]
    return paragraph(" ".join(word for word in words if word))


def _others(names: list[str]) -> Content:
    return paragraph(f"Also in the folder, and not shown here: {', '.join(names)}.") if names else Markup("")


def _document(title: str, body: Markup) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body.text}\n</body>\n</html>\n"
    )
