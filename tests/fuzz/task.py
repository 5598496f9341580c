"""Task files with one to three changes and every hash repaired, so that the deep layers are reached (SPEC)."""

import random
from collections.abc import Callable
from functools import partial

import zstandard
from hostile import DIGEST, Parts, canonical, least_budget, put_together, take_apart, with_manifest

from fuzz import seeds
from fuzz.byte_changes import reframe, scramble, scramble_header
from fuzz.json_changes import change_keys, change_value, respell
from fuzz.sound import LIMITS, check_content, check_encodes
from fuzz.target import SLACK, Outcome, Target, refused, require
from sparsetv.container.reader import decode, open_bytes
from sparsetv.errors import FormatError, LimitError

_FACTORS = (2, 3, 100, 1 << 10, 1 << 16, 1 << 20, 1 << 40)
_ROOTS = ((), (), ("blocks",), ("blocks",), ("extras",), ("base",), ("scope",))


def _change_manifest_value(source: random.Random, parts: Parts) -> None:
    roots = [root for root in _ROOTS if not root or root[0] in parts.manifest]
    change_value(source, parts.manifest, roots)


def _change_manifest_keys(source: random.Random, parts: Parts) -> None:
    change_keys(source, parts.manifest)


def _change_stored(source: random.Random, parts: Parts) -> None:
    """Bytes of a stored tensor as they stand in the file."""
    if parts.stored:
        name = source.choice(sorted(parts.stored))
        parts.stored[name] = scramble(source, parts.stored[name])


def _change_tensors(source: random.Random, parts: Parts) -> None:
    """Stored tensors lost, doubled or swapped."""
    names = sorted(parts.stored)
    if not names:
        return
    kind, name = source.randrange(3), source.choice(names)
    if kind == 0:
        del parts.stored[name]
    elif kind == 1:
        parts.stored[source.choice(["x", "extra.x", "sparsetv.files", "sparsetv.probe"])] = parts.stored[name]
    else:
        other = source.choice(names)
        parts.stored[name], parts.stored[other] = parts.stored[other], parts.stored[name]


def _change_frame(source: random.Random, parts: Parts) -> None:
    """The content of a frame, or how it is framed, with lengths that fit again."""
    key = source.choice(["positions", "values"])
    try:
        blocks = parts.manifest["blocks"]
        if not blocks:
            return
        which = source.randrange(len(blocks))
        lengths = blocks[which][key]["frames"]
        if not lengths:
            return
        number = source.randrange(len(lengths))
        start = sum(sum(block[key]["frames"]) for block in blocks[:which]) + sum(lengths[:number])
        stop = start + lengths[number]
        data = parts.stored[f"sparsetv.{key}"]
        new = reframe(source, data[start:stop])
        lengths[number] = len(new)
    except (KeyError, TypeError, IndexError, ValueError):  # an earlier change left no such frame
        return
    parts.stored[f"sparsetv.{key}"] = data[:start] + new + data[stop:]


def _grow(source: random.Random, parts: Parts) -> None:
    """A tensor of the scope far larger, with as many kept entries."""
    try:
        runs = parts.manifest["scope"]
        indices = [first + number for first, count in runs for number in range(min(count, 100))]
        shape = parts.manifest["base"]["shapes"][source.choice(indices)] if indices else []
        axes = [axis for axis, size in enumerate(shape) if type(size) is int]
        if axes:
            shape[source.choice(axes)] *= source.choice(_FACTORS)
    except (KeyError, TypeError, IndexError, ValueError):  # an earlier change left no such tensor
        return


_CHANGES: tuple[Callable[[random.Random, Parts], None], ...] = (
    *[_change_manifest_value] * 3, _change_manifest_keys, _change_stored, _change_tensors, *[_change_frame] * 2, _grow,
)  # fmt: skip


def make(source: random.Random) -> bytes:
    """A file that was valid, changed, with every hash repaired but the digest of its content."""
    seed = seeds.draw(source)
    return _changed(source, seed.data, seed.parts)


def mutate(source: random.Random, data: bytes) -> bytes:
    """The same of any file, valid or not; what cannot be taken apart is only scrambled."""
    try:
        parts = take_apart(data)
        return _changed(source, data, lambda: parts)
    except (
        LookupError,
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        RecursionError,
        MemoryError,
        zstandard.ZstdError,
    ):
        return scramble(source, data)


def _changed(source: random.Random, data: bytes, take: Callable[[], Parts]) -> bytes:
    kind = source.randrange(12)
    if kind == 0:
        return scramble(source, data)
    parts = take()
    if kind == 1:
        return put_together(parts, text=respell(source, canonical(parts.manifest)))
    for _ in range(source.choice([1, 1, 2, 3])):
        source.choice(_CHANGES)(source, parts)
    blob = put_together(parts)
    return scramble_header(source, blob) if kind == 2 else blob


def examine(data: bytes) -> Outcome:
    """A known error, the same content, or other content whose digest was repaired and that is sound."""
    try:
        task = decode(open_bytes(data, limits=LIMITS))
    except LimitError as error:
        return refused(error)
    except FormatError as error:
        again = DIGEST.search(str(error))
        return refused(error) if again is None else _repaired(with_manifest(data, ["digest"], again[1]), error)
    check_content(task)
    require(task.digest() in seeds.digests(), "content that no seed has under the digest of one")
    return Outcome("same content")


def _repaired(data: bytes, first: FormatError) -> Outcome:
    try:
        task = decode(open_bytes(data, limits=LIMITS))
    except (FormatError, LimitError) as error:
        # What `put_together` cannot reproduce, such as JSON that is not canonical.
        require("content digest" not in str(error), str(error))
        return refused(first)
    check_content(task)
    return Outcome("other content", written=partial(check_encodes, task))


def bound(data: bytes) -> int:
    """What the reader says that decoding takes, before it decodes."""
    try:
        return SLACK + least_budget(data)
    except FormatError:
        return SLACK


TARGET = Target("task", make, examine, bound)
