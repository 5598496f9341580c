"""One broken file, and the tools to break it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from golden_writer.codecs import Stream
from golden_writer.content import Content, Tensor, bits
from golden_writer.writer import Change, pad, seal


@dataclass(frozen=True)
class Case:
    """An invalid file: the clause of SPEC.md that it breaks, and what the error must say (a regular expression)."""

    file: str
    clause: str
    breaks: str
    match: str
    data: bytes
    error: str = "FormatError"


def sample() -> Content:
    """The file that most cases break: two tensors in one block, two corrections."""
    first = Tensor("a", "F32", [4, 5], {1: bits(0.5), 7: bits(-0.25), 12: bits(3.0), 19: bits(-1.5)}, {1: 2, 3: -1})
    return Content([first, Tensor("b", "BF16", [6], {0: bits(1.0), 5: bits(-2.0)})])


def broken(layer: str, change: Change, content: Content | None = None) -> bytes:
    """The sample, or another file, with one layer changed."""
    return seal(content or sample(), changes={layer: change})


def put(path: str, value: Any) -> Change:
    """Set one item of a nested object: keys and list indices with dots between."""
    *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]

    def change(tree: Any) -> None:
        for key in parents:
            tree = tree[key]
        tree[last] = value

    return change


def always(value: Any) -> Change:
    """Put a value in the place of any other."""
    return lambda _: value


def drop(key: str) -> Change:
    """Remove a key."""
    return lambda tree: {name: item for name, item in tree.items() if name != key}


def replace(old: bytes, new: bytes) -> Change:
    """Replace some bytes, which must be there, once."""

    def change(data: bytes) -> bytes:
        if old not in data:
            raise ValueError(f"{old!r} is not in {data!r}")
        return data.replace(old, new, 1)

    return change


def header_text(change: Callable[[bytes], bytes]) -> Change:
    """Change the header's text without its padding, which is renewed."""
    return lambda text: pad(change(text.rstrip(b" ")))


def raw(kind: str, number: int, change: Callable[[bytes], bytes], **parameters: Any) -> Change:
    """Change one raw stream of the first block, and parameters of its codec."""

    def apply(blocks: Any) -> None:
        stream: Stream = getattr(blocks[0], kind)
        stream.raw[number] = change(stream.raw[number])
        stream.parameters |= parameters

    return apply


def framed(kind: str, number: int, change: Callable[[bytes], bytes]) -> Change:
    """Change one frame of the first block."""

    def apply(blocks: Any) -> None:
        stream: Stream = getattr(blocks[0], kind)
        stream.frames[number] = change(stream.frames[number])

    return apply


def flip(data: bytes, at: int) -> bytes:
    """Flip the lowest bit of one byte; `at` may count from the end."""
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
