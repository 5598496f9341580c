"""Pieces of a page: everything that is not markup is escaped, so that no result can become markup."""

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Markup:
    """Text that is HTML."""

    text: str


Content = Markup | str

_CODE = re.compile(r"`([^`\n]+)`")


def escape(content: Content) -> str:
    """HTML of some content."""
    if isinstance(content, Markup):
        return content.text
    return html.escape(visible(content))


def inline(content: Content) -> str:
    """HTML of content inside an element, where words in backticks are code."""
    return content.text if isinstance(content, Markup) else _CODE.sub(r"<code>\1</code>", escape(content))


def visible(text: str) -> str:
    """Text with a replacement character for each that a page may not hold or no one can see."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)


def element(tag: str, *content: Content, **attributes: str) -> Markup:
    """An element; an attribute's `_` at its end is left out, inner ones become `-`."""
    names = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    told = "".join(f' {name}="{escape(value)}"' for name, value in names.items())
    return Markup(f"<{tag}{told}>{''.join(map(inline, content))}</{tag}>")


def join(parts: Iterable[Content]) -> Markup:
    """Content after content, a line each."""
    return Markup("\n".join(map(inline, parts)))


def section(key: str, title: str, *parts: Content) -> Markup:
    """A section with a heading that can be linked to."""
    return element("section", element("h2", title, id=key), *parts)


def paragraph(*content: Content) -> Markup:
    """A paragraph."""
    return element("p", *content)


def figure(svg: str, caption: Content) -> Markup:
    """A picture with its caption, in a box that scrolls where the picture is wider than the page."""
    return element("figure", element("div", Markup(svg), class_="scroll"), element("figcaption", caption))


def table(
    head: Sequence[str], rows: Sequence[Sequence[Content]], *, caption: str, words: int = 1, tail: int = 0
) -> Markup:
    """A table under its caption, in a box that scrolls where it is wider than the page.

    Columns without any content are left out.

    Args:
        head: A word per column.
        rows: Cells, as many as in `head`.
        caption: What the table shows.
        words: So many first columns are words, to the left; the first is the row's heading.
        tail: So many last columns are words, too. The others are numbers.
    """
    kept = [number for number in range(len(head)) if number < 1 or any(row[number] != "" for row in rows)]
    kinds = {number: "word" if number < words or number >= len(head) - tail else "number" for number in kept}
    top = element("tr", *(element("th", head[n], scope="col", class_=kinds[n]) for n in kept))
    lines = [
        element("tr", element("th", row[0], scope="row", class_="word"),
                *(element("td", row[n], class_=kinds[n]) for n in kept[1:]))
        for row in rows
    ]  # fmt: skip
    inner = element("table", element("thead", top), element("tbody", join(lines)))
    box = element("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)
    return element("div", element("p", caption, class_="caption"), box, class_="table")


def best(values: Sequence[float | None], shown: Sequence[str], among: Sequence[bool]) -> list[Content]:
    """Cells with the largest value in bold, and what is shown alike with it.

    Args:
        values: Numbers; None where there is none.
        shown: How they are shown.
        among: Which of them compete.
    """
    known = [
        (value, text) for value, text, each in zip(values, shown, among, strict=True) if each and value is not None
    ]
    top = max(known, default=(0.0, None))[1]
    return [
        element("strong", text) if each and value is not None and text == top and len(known) > 1 else text
        for value, text, each in zip(values, shown, among, strict=True)
    ]
