"""Results as a page: nothing from outside, everything escaped, gaps and all, at any width."""

import json
import re
import shutil
import subprocess
from collections import Counter
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click
import pytest
from helpers import hide
from hostile import run
from made_results import METHODS, TASKS, Maker, Row, header, write_results

from sparsetv import write_report
from sparsetv.errors import FormatError, NotFoundError, OutputError
from sparsetv.report.page import SECTIONS, make_page
from sparsetv.results import Results, read_folder

pytestmark = pytest.mark.usefixtures("no_sync")

FEW = TASKS[:3]


def results(rows: dict[str, list[Row]]) -> dict[str, Results]:
    return {name: Results(header(name), tuple(own)) for name, own in rows.items()}


@pytest.fixture(scope="module")
def everything() -> dict[str, Results]:
    return results(Maker(FEW).all())


@pytest.fixture(scope="module")
def page(everything: dict[str, Results]) -> str:
    return make_page(everything)


class Reader(HTMLParser):
    """Checks that tags close in order, and collects what the page is made of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_page_needs_nothing_else(page: str) -> None:
    found = Reader(page)
    names = {name for _, name, _ in found.attributes}
    assert not {"src", "srcset", "action", "data"} & names
    assert not any(name.startswith("on") for name in names)
    assert "<script" not in page
    assert "@import" not in page
    assert "http" not in "".join(value for _, name, value in found.attributes if "href" in name)
    assert all(value.startswith("#") for _, name, value in found.attributes if "href" in name)
    assert all(match.startswith("#") for match in re.findall(r"url\(([^)]*)\)", page))


def test_ids_are_unique_and_every_reference_has_its_target(page: str) -> None:
    found = Reader(page)
    ids = [value for _, name, value in found.attributes if name == "id"]
    assert [value for value, count in Counter(ids).items() if count > 1] == []
    wanted = {value[1:] for _, name, value in found.attributes if "href" in name}
    wanted |= set(re.findall(r"url\(#([^)]*)\)", page))
    assert wanted <= set(ids)


def test_every_experiment_has_its_section_and_says_what_was_used(page: str) -> None:
    found = Reader(page)
    for key in (*SECTIONS, "measured"):
        assert f'<h2 id="{key}">' in page
    for _, label, data, _, _ in METHODS:
        assert label.replace("`", "") in found.text
        assert data in found.text
    for words in ("normalised", "gap closed", "A processor @ 2.0 GHz", "torch", "2.13.0", "roberta-base", "0.734"):
        assert words in found.text
    assert page.count("<figure>") >= 9
    assert "currentColor" in page


def test_figures_of_the_page_are_those_of_the_rows() -> None:
    rows: list[Row] = [
        {"of": {"set": "all", "method": "base", "task": "a"}, "value": 0.2, "metric": "accuracy"},
        {"of": {"set": "all", "method": "finetuned", "task": "a"}, "value": 0.8, "metric": "accuracy"},
        {"of": {"set": "all", "method": "m", "task": "a"}, "value": 0.61234, "metric": "accuracy", "new": {"key": 1}},
    ]
    text = Reader(make_page(results({"merge": rows}))).text
    assert "m 0.612 0.765 0.687 0.612" in text
    assert "m 0.765 / 0.69 0.765 / 0.69" in text


def test_same_results_same_page(everything: dict[str, Results], page: str, tmp_path: Path) -> None:
    assert make_page(everything) == page
    folder = write_results(tmp_path / "out", Maker(FEW).all())
    for name in ("one.html", "two.html"):
        write_report(folder, tmp_path / name)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert not re.search(str(tmp_path), (tmp_path / "one.html").read_text())


HOSTILE = '<script>alert(1)</script>"\'&$x^2$`code`\x00\x1b\ud800 #010203 id="a" url(#b) 漢字'


def renamed(value: Any, words: dict[str, str]) -> Any:
    """Every text that is one of some words, replaced, as key and as value."""
    if isinstance(value, dict):
        return {words.get(key, key): renamed(item, words) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [renamed(item, words) for item in value]
    return words.get(value, value) if isinstance(value, str) else value


def test_nothing_in_results_becomes_markup() -> None:
    words = [*FEW, *(word for method in METHODS for word in method[:3]), "1% exact", "lossless", "l2", "all",
             "accuracy", "read all checkpoints once", "A processor @ 2.0 GHz", "cores", "roberta-base", "processor",
             "A made-up suite of twelve tasks", "glue-like", "similar", "coefficient"]  # fmt: skip
    bad = {word: HOSTILE + str(place) for place, word in enumerate(words)}
    rows = renamed(Maker(FEW).all(), bad)
    hostile = {name: Results(renamed(header(name), bad), tuple(own)) for name, own in rows.items()}
    page = make_page(hostile, title=HOSTILE)
    page.encode()
    found = Reader(page)
    assert "<script" not in page
    assert not {"\x00", "\x1b"} & set(page)
    assert "<script>alert(1)</script>" in found.text
    assert {tag for tag, _, _ in found.attributes}.isdisjoint({"script", "img", "iframe"})
    assert escape("<script>") in page


@pytest.mark.parametrize("kept", [[], ["storage"], ["recovery"], ["merge", "runtime"], ["density", "continual"]])
def test_sections_appear_where_their_file_exists(kept: list[str]) -> None:
    rows = {name: own for name, own in Maker(FEW).all().items() if name in kept}
    page = make_page(results({**rows, "strange": [{"of": {"x": 1}}]}))
    assert re.findall(r'<h2 id="(\w+)">', page) == [*(name for name in SECTIONS if name in kept), "measured"]
    assert "not shown here: strange" in page


def test_gaps_in_results_are_empty_cells() -> None:
    rows = Maker(FEW).all()
    for own in rows.values():
        for row in own[::2]:
            for key in [key for key in row if key != "of"]:
                row[key] = None
        own += [{}, {"of": None}, {"of": []}, {"of": {}}, {"of": {"task": "x"}}]
        del own[1:4]
    Reader(make_page(results(rows)))
    Reader(make_page({name: Results({}, ({"of": {}}, {})) for name in SECTIONS}))
    Reader(make_page({name: Results({"suite": [], "machine": 3}, ()) for name in SECTIONS}))


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "out", {"merge": list(Maker(FEW).merge())})
    done = run("report", folder, "-o", tmp_path / "page.html", "--title", "A <title>")
    assert done.exit_code == 0
    assert done.stdout.startswith(f"{tmp_path / 'page.html'}: ")
    page = (tmp_path / "page.html").read_text()
    assert "<h1>A &lt;title&gt;</h1>" in page
    assert page == make_page(read_folder(folder), title="A <title>")
    with pytest.raises(click.MissingParameter):
        run("report", folder)


def test_what_cannot_be_reported_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_results(tmp_path / "out", {"merge": list(Maker(FEW).merge())})
    (tmp_path / "old.html").write_text("old")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "merge.jsonl").write_text(json.dumps(header("merge")) + "\nnothing\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match=r"merge\.jsonl:2: not JSON"):
        write_report(tmp_path / "broken", tmp_path / "old.html")
    with pytest.raises(NotFoundError, match="no results"):
        write_report(tmp_path / "empty", tmp_path / "old.html")
    with pytest.raises(OutputError, match="does not exist"):
        write_report(folder, tmp_path / "nowhere" / "page.html")
    hide("matplotlib", monkeypatch)
    with pytest.raises(NotFoundError, match=r"sparsetv\[demo\]"):
        write_report(folder, tmp_path / "old.html")
    assert (tmp_path / "old.html").read_text() == "old"


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

WRAPPER = """<!DOCTYPE html><body>
<iframe id="f" style="width:{width}px;height:3000px;border:0" srcdoc="{page}"></iframe>
<script>document.getElementById("f").onload = event => {{
  const inner = event.target.contentDocument, root = inner.documentElement;
  const boxes = [...inner.querySelectorAll(".scroll")];
  const wide = boxes.filter(box => box.scrollWidth > box.clientWidth).length;
  const text = inner.querySelector("figure svg text").getBoundingClientRect().height;
  document.title = [root.scrollWidth, root.clientWidth, wide, Math.round(text)].join(" ");
}}</script></body>"""


def measure(room: Path, page: str, width: int) -> tuple[int, int, int, int]:
    """Width that a page needs and has in a frame, boxes that scroll, and height of a picture's text, in pixels."""
    wrapper = room / "wrapper.html"
    wrapper.write_text(WRAPPER.format(width=width, page=escape(page, quote=True)))
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom",
             f"--user-data-dir={room / 'profile'}", "--virtual-time-budget=10000", wrapper.as_uri()]  # fmt: skip
    shown = subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True, timeout=120)
    title = re.search(r"<title>(\d+) (\d+) (\d+) (\d+)</title>", shown.stdout)
    assert title is not None
    needed, there, wide, text = map(int, title.groups())
    return needed, there, wide, text


@pytest.mark.skipif(CHROMIUM is None, reason="needs a chromium on the PATH")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_scrolls_tables_but_never_the_page(tmp_path: Path, page: str, width: int) -> None:
    needed, there, wide, text = measure(tmp_path, page, width)
    assert needed <= there <= width
    assert wide or width > 390
    assert text >= 9


@pytest.mark.skipif(CHROMIUM is None, reason="needs a chromium on the PATH")
def test_the_browser_would_notice_a_page_that_is_too_wide(tmp_path: Path, page: str) -> None:
    needed, there, *_ = measure(tmp_path, page.replace("<h1>", '<div style="width:500px">wide</div><h1>'), 390)
    assert needed > there
