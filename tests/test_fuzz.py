"""Mutated task files with every hash repaired, so that the deep layers are reached.

From any bytes at all the reader raises FormatError or LimitError, or gives content of the digest that the file names.
`python tests/test_fuzz.py SECONDS` runs the same mutators for as long as one likes.
"""

import json
import random
import re
import sys
import time
import traceback
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import zstandard
from hostile import (
    DIGEST,
    WORDS,
    Parts,
    base_tensors,
    canonical,
    checkpoint,
    frame,
    outcome,
    put_together,
    take_apart,
    tuned_tensors,
    with_manifest,
)  # fmt: skip
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsetv
from sparsetv.container.limits import Limits
from sparsetv.container.reader import decode, open_bytes
from sparsetv.container.writer import encode
from sparsetv.errors import FormatError, LimitError
from sparsetv.jobs.options import PackOptions
from sparsetv.jobs.pack import pack
from sparsetv.localize.scope import Scope
from sparsetv.task_vector import Probe, SparseTaskVector

LIMITS = Limits(decoded_bytes=1 << 28)
NUMBERS = (
    -1, 0, 1, 2, 7, 8, 61, 62, 63, 64, 127, 128, 254, 255, 256, 1000, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
    2**40, 2**48, 2**53, 2**61, 2**62 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**25, -(2**63), 0.0, -0.0, 0.5,
    1.0, -1.5, 1e-320, 1e300, 3.5e38,
)  # fmt: skip
WORDS_OF_INTEREST = (
    "", "F32", "F16", "BF16", "F64", "I64", "U8", "BOOL", "F4", "gaps", "exact", "sign", "cells", "levels", "seeded",
    "tensor", "rows", "alias",
    "__sparsetv__", "a/../b", "../x", "nul", "\0", "\x1b[31m", "e\u0301", "\u202e", "\ud800", "x" * 600, "0" * 64,
)  # fmt: skip

GOLDEN = Path(__file__).parents[1] / "formats" / "golden" / "valid"
PACKAGE = str(Path(sparsetv.__file__).parent)


@cache
def seeds() -> tuple[bytes, ...]:
    """Small valid files that together have every codec, kind of extra, and a probe."""
    with TemporaryDirectory() as name:
        packed = tuple(encode(task).tobytes() for task in _seed_tasks(Path(name)))
    return (*packed, *((GOLDEN / f"{kind}.stv").read_bytes() for kind in ("sign", "cells")))


def _seed_tasks(room: Path) -> Iterator[SparseTaskVector]:
    base = base_tensors()
    base["encoder.layer.2.wide.weight"] = np.linspace(-3, 3, 3000, dtype=np.float32).reshape(10, 300)
    tuned = tuned_tensors(base)
    tuned[WORDS] = np.concatenate([tuned[WORDS], np.ones((2, 4), np.float32)])
    tuned |= {"head.weight": np.ones((2, 4), np.float32), "step": np.array([3], np.int64)}
    tuned["copy"] = tuned["pooler.dense.weight"].copy()
    first = checkpoint(room / "base", base), checkpoint(room / "tuned", tuned, {"model_type": "x"})
    task = pack(*first, options=PackOptions(0.05, Scope("all")))
    outputs = np.arange(6, dtype=np.float32).reshape(3, 2)
    yield replace(task, probe=Probe("tokens", 5, 3, {"vocabulary": 9, "x": 0.5}, "logits", outputs, 1.25, 0.5))
    yield pack(*first, options=PackOptions(0.001, Scope.parse(["all"]), values="sign"))
    half = {name: value.astype(np.float16) for name, value in base.items()}
    second = checkpoint(room / "half", half), checkpoint(room / "halftuned", tuned_tensors(half))
    yield pack(*second, options=PackOptions(0.3, Scope.parse(["blocks", "!*.gain"]), allocation="tensor"))
    yield pack(*first, options=PackOptions(0.05, Scope("all"), localizer="random", values="q4", seed=3))
    lines = {"w": np.zeros((60, 80), np.float32)}
    grown = np.random.default_rng(0).standard_normal((60, 80)) * 10.0 ** np.linspace(-4, 1, 60)[:, None]
    third = checkpoint(room / "lines", lines), checkpoint(room / "grown", {"w": grown.astype(np.float32)})
    yield pack(*third, options=PackOptions(scope=Scope("all"), budget="2500", allocation="global"))


# Mutators: each takes a source of randomness and a file in parts, and changes it in place.


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield from _paths(child, (*path, key))


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _other(source: random.Random, old: Any, manifest: Any) -> Any:  # noqa: PLR0911  one case per line
    kind = source.randrange(8)
    if kind < 3 and type(old) in (int, float):
        return source.choice([old + 1, old - 1, old * 2, -old, source.choice(NUMBERS), bool(old)])
    if kind < 3 and isinstance(old, str):
        at = source.randrange(len(old) + 1)
        return source.choice([old[:at] + source.choice("0af. /\n") + old[at + 1 :], old[:at], old + old])
    if kind < 3 and isinstance(old, list):
        return source.choice([old[1:], old[:-1], old + old, old[::-1], [old], source.sample(old, len(old))])
    if kind == 3:
        return source.choice([None, True, False, [], {}, [[]], {"": 0}])
    if kind == 4:
        return source.choice(WORDS_OF_INTEREST)
    if kind == 5:
        return json.loads(json.dumps(_at(manifest, source.choice(list(_paths(manifest))))))
    return source.choice(NUMBERS)


def change_value(source: random.Random, parts: Parts) -> None:
    """Another value somewhere in the manifest."""
    roots = [(), (), ("blocks",), ("blocks",), ("extras",), ("base",), ("scope",)]
    root = source.choice([root for root in roots if not root or root[0] in parts.manifest])
    inside = [(*root, *path) for path in _paths(_at(parts.manifest, root))]
    if not inside:
        return
    path = source.choice(inside)
    _at(parts.manifest, path[:-1])[path[-1]] = _other(source, _at(parts.manifest, path), parts.manifest)


def change_keys(source: random.Random, parts: Parts) -> None:
    """A key or an element too many or too few, or two that changed places."""
    holders = [path for path in [(), *_paths(parts.manifest)] if isinstance(_at(parts.manifest, path), dict | list)]
    holder = _at(parts.manifest, source.choice(holders))
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    kind = source.randrange(4)
    if kind == 0 and isinstance(holder, dict):
        holder[source.choice(["", "x", "shifts", "bias", "of", "base"])] = source.choice(NUMBERS)
    elif kind == 1 and isinstance(holder, list):
        holder.insert(source.randrange(len(holder) + 1), source.choice([0, "x", [], {}, *holder]))
    elif kind == 2 and len(keys) > 1:
        first, second = source.sample(keys, 2)
        holder[first], holder[second] = holder[second], holder[first]
    elif keys:
        del holder[source.choice(keys)]


def _scramble(source: random.Random, data: bytes) -> bytes:
    """Some bytes changed, cut, doubled or swapped."""
    kind, at = source.randrange(8), source.randrange(len(data) + 1)
    if kind == 0 or not data:
        return data + source.randbytes(source.randrange(1, 40))
    if kind == 1:
        return data[:at]
    if kind == 2:
        return data[:at] + data[source.randrange(len(data)) :]
    if kind == 3:
        return bytes(len(data)) if source.randrange(2) else b"\xff" * len(data)
    changed = bytearray(data)
    for _ in range(source.choice([1, 1, 1, 4])):
        changed[source.randrange(len(data))] = source.choice([0, 1, 0x7F, 0x80, 0xFE, 0xFF, source.randrange(256)])
    return bytes(changed)


def change_stored(source: random.Random, parts: Parts) -> None:
    """Bytes of a stored tensor as they stand in the file."""
    if not parts.stored:
        return
    name = source.choice(sorted(parts.stored))
    parts.stored[name] = _scramble(source, parts.stored[name])


def change_tensors(source: random.Random, parts: Parts) -> None:
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


def change_frame(source: random.Random, parts: Parts) -> None:
    """The content of a frame, or how it is framed, with lengths that fit again."""
    key = source.choice(["positions", "values"])
    try:
        block = source.choice(parts.manifest["blocks"])
        lengths = [item[key]["frames"] for item in parts.manifest["blocks"]]
        number = source.randrange(len(block[key]["frames"]))
        start = sum(map(sum, lengths[: parts.manifest["blocks"].index(block)])) + sum(block[key]["frames"][:number])
        stop = start + block[key]["frames"][number]
        data = parts.stored[f"sparsetv.{key}"]
        new = _reframe(source, data[start:stop])
        block[key]["frames"][number] = len(new)
    except (KeyError, TypeError, IndexError, ValueError, zstandard.ZstdError):  # an earlier mutation left no such frame
        return
    parts.stored[f"sparsetv.{key}"] = data[:start] + new + data[stop:]


def _reframe(source: random.Random, old: bytes) -> bytes:
    kind = source.randrange(10)
    content = zstandard.ZstdDecompressor().decompress(old) if old else b""
    if kind < 6:
        return frame(_scramble(source, content))
    options: list[dict[str, Any]] = [
        {"write_checksum": False}, {"write_content_size": False},
        {"compression_params": zstandard.ZstdCompressionParameters.from_level(1, window_log=28)},
    ]  # fmt: skip
    if kind == 6:
        chosen = source.choice(options)
        if "compression_params" in chosen:
            return zstandard.ZstdCompressor(**chosen).compress(content)
        return zstandard.ZstdCompressor(**{"write_checksum": True, **chosen}).compress(content)
    skippable = b"\x50\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content
    return source.choice([b"", old + b"\0", old + old, skippable, skippable + old, old[:-1]])


MUTATORS: tuple[Callable[[random.Random, Parts], None], ...] = (
    change_value, change_value, change_value, change_keys, change_stored, change_tensors, change_frame, change_frame,
)  # fmt: skip


SPELLINGS = (
    b"1e999", b"-1e999", b"1.00", b"1e0", b"01", b"-0", b"NaN", b"Infinity", b"9" * 5000, b"0." + b"1" * 5000,
    b'"\\ud800"', b'"\\u0041"', b'"\\ud83d\\ude00"', b"[" * 3000 + b"]" * 3000, b'{"a":1,"a":1}', b" 1", b"tru",
)  # fmt: skip
"""JSON that no writer would write."""


def _respell(source: random.Random, text: bytes) -> bytes:
    """The manifest's JSON scrambled, or one value of it spelled in an odd way."""
    values = list(re.finditer(rb'(?<=[:,\[])("[^"]*"|[0-9.e+-]+|null)(?=[,\]}])', text))
    if source.randrange(2):
        return _scramble(source, text)
    chosen = source.choice(values)
    return text[: chosen.start()] + source.choice(SPELLINGS) + text[chosen.end() :]


def mutate(source: random.Random) -> bytes:
    """A file that was valid, with one to three changes and every hash repaired but the digest of its content."""
    data = source.choice(seeds())
    kind = source.randrange(12)
    if kind == 0:
        return _scramble(source, data)
    parts = take_apart(data)
    if kind == 1:
        return put_together(parts, text=_respell(source, canonical(parts.manifest)))
    for _ in range(source.choice([1, 1, 2, 3])):
        source.choice(MUTATORS)(source, parts)
    blob = put_together(parts)
    if kind == 2:
        size = 8 + int.from_bytes(blob[:8], "little")
        header = _scramble(source, blob[8:size])
        return len(header).to_bytes(8, "little") + header + blob[size:]
    return blob


def examine(data: bytes) -> str:
    """Read a file as the package does; what happened. Anything but a known error or sound content raises."""
    try:
        task = decode(open_bytes(data, limits=LIMITS))
    except LimitError:
        return "limit"
    except FormatError as error:
        again = DIGEST.search(str(error))
        if again is None:
            return "format" if len(str(error)) < 4000 else _fail("a message without end")
        repaired = with_manifest(data, ["digest"], again[1])
        second = outcome(lambda: check_content(decode(open_bytes(repaired, limits=LIMITS))))
        if second is None:
            return "other content"
        # What put_together cannot reproduce, such as JSON that is not canonical.
        return "format" if "content digest" not in str(second) else _fail(str(second))
    check_content(task)
    assert task.digest() in {take_apart(seed).manifest["digest"] for seed in seeds()}
    return "same content"


def _fail(why: str) -> str:
    raise AssertionError(why)


def check_content(task: SparseTaskVector) -> None:
    """What every decoded task promises, whatever its file said."""
    for name, tensor in task.tensors.items():
        positions, corrections = tensor.positions, tensor.corrections
        assert positions.dtype == np.int64
        assert tensor.values.dtype == np.float32
        assert len(positions) == len(tensor.values) == tensor.nnz
        assert (np.diff(positions) > 0).all(), f"{name}: positions do not increase"
        assert tensor.nnz == 0 or 0 <= positions[0] <= positions[-1] < tensor.numel, f"{name}: positions lie outside"
        assert np.isfinite(tensor.values).all()
        assert (np.diff(corrections.index) > 0).all()
        assert not len(corrections.index) or 0 <= corrections.index[0] <= corrections.index[-1] < tensor.nnz
        assert corrections.amount.all()
    for extra in task.extras.values():
        assert extra.kind in {"tensor", "rows", "alias"}


def test_the_builders_give_back_what_they_took_apart() -> None:
    for data in seeds():
        assert put_together(take_apart(data)) == data
        assert examine(data) == "same content"


def test_the_seeds_have_every_codec_and_kind() -> None:
    manifests = [take_apart(data).manifest for data in seeds()]
    blocks = [block for manifest in manifests for block in manifest["blocks"]]
    assert {block["values"]["codec"] for block in blocks} == {"exact", "levels", "sign"}
    assert {block["positions"]["codec"] for block in blocks} == {"gaps", "cells", "seeded"}
    assert any("budget" in manifest for manifest in manifests)
    assert {extra["kind"] for manifest in manifests for extra in manifest["extras"]} == {"tensor", "rows", "alias"}
    assert any(max(block["positions"].get("shifts", [0])) > 0 for block in blocks)
    assert any(block["values"].get("corrections") for manifest in manifests for block in manifest["blocks"])
    assert any(manifest["probe"] for manifest in manifests)


@settings(max_examples=1500)
@given(st.integers(0, 2**64 - 1))
def test_mutated_files_are_refused_or_sound(seed: int) -> None:
    examine(mutate(random.Random(seed)))


@settings(max_examples=300)
@given(st.randoms(use_true_random=False))
def test_mutated_files_are_refused_or_sound_shrinking(source: random.Random) -> None:
    examine(mutate(source))


@pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda text: str(text[:20]))
@pytest.mark.parametrize("key", [b'"density":', b'"localizer":', b'"scale":', b'"bias":', b'"count":'])
def test_odd_spellings_are_refused(spelling: bytes, key: bytes) -> None:
    """Valid or not as JSON, none is canonical; floats that overflow and lone surrogates included (SPEC 3.1)."""
    parts = take_apart(seeds()[0])
    text = re.sub(key + rb'("[^"]*"|[0-9.e+-]+)', lambda _: key + spelling, canonical(parts.manifest), count=1)
    if text == canonical(parts.manifest):
        pytest.skip("this is how it is spelled")
    with pytest.raises(FormatError, match=r"\S+"):
        decode(open_bytes(put_together(parts, text=text)))


@pytest.mark.parametrize("version", ["1.1", "1.27"])
def test_a_greater_minor_version_is_read(version: str) -> None:
    """SPEC 9.1."""
    parts = take_apart(seeds()[0])
    data = put_together(Parts({**parts.manifest, "version": version}, parts.stored, version))
    assert decode(open_bytes(data)).digest() == parts.manifest["digest"]


@pytest.mark.parametrize("version", ["2.0", "10.1", "1", "1.", "1.x", "x", "", "1.0.0", "-1.0", "\u0661.0"])
def test_other_versions_are_refused(version: str) -> None:
    parts = take_apart(seeds()[0])
    with pytest.raises(FormatError, match=r"version|header"):
        open_bytes(put_together(Parts({**parts.manifest, "version": version}, parts.stored, version)))


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"task file: "):
        decode(open_bytes(data))


def test_the_mutators_reach_every_layer() -> None:
    """Guards the fuzzing itself: all outcomes occur, and messages come from many places."""
    outcomes, messages = Counter[str](), set[str]()
    for seed in range(400):
        data = mutate(random.Random(seed))
        try:
            decode(open_bytes(data, limits=LIMITS))
            outcomes["read"] += 1
        except (FormatError, LimitError) as error:
            outcomes[type(error).__name__] += 1
            messages.add(re.sub(r"'[^']*'|[0-9a-f]{16,}|\d+", "#", str(error))[:60])
        except Exception:
            outcomes["crash"] += 1
    assert outcomes["read"] >= 5
    assert outcomes["FormatError"] >= 200
    assert len(messages) >= 60


@pytest.mark.parametrize("shift", [0, 8, 40, 62])
def test_decoding_stays_within_the_memory_that_the_manifest_implies(shift: int) -> None:
    """A frame of zeros costs nothing to send; what it decodes to must fit the limit that was checked before."""
    entries, kept = 2**61, 200_000
    parts = take_apart(seeds()[2])
    low = bytes((kept * shift + 7) // 8)
    streams = [frame(bytes(kept)), frame(low) if low else b""]
    signs, planes = frame(bytes((kept + 7) // 8)), frame(bytes(kept))
    values = [signs, planes, planes, planes, planes, b"", b""]
    parts.manifest["base"] |= {"names": ["a"], "dtypes": ["F32"], "shapes": [[entries]], "tags": "0" * 8}
    parts.manifest.update({"scope": [[0, 1]], "tensors": {"l1": [1.0], "l2": [1.0]}, "extras": [], "files": []})
    parts.manifest["finetuned"] |= {"missing": [], "outside": []}
    positions = {"codec": "gaps", "frames": [len(item) for item in streams], "high_size": kept, "shifts": [shift]}
    exact = {"codec": "exact", "frames": [len(item) for item in values], "bias": 0, "corrections": 0, "gap_size": 0}
    parts.manifest["blocks"] = [{"pieces": [0, [kept]], "positions": positions, "values": exact}]
    stored = {"sparsetv.positions": b"".join(streams), "sparsetv.values": b"".join(values)}
    data = put_together(Parts(parts.manifest, stored))
    allowed = _least_limit(data)
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="content digest"):
            decode(open_bytes(data, limits=Limits(allowed)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= allowed + (1 << 20)


def _least_limit(data: bytes) -> int:
    with pytest.raises(LimitError, match=r"decoding needs up to \d+ bytes, limit 1; raise the limit") as caught:
        open_bytes(data, limits=Limits(1))
    needed = re.search(r"up to (\d+) bytes", str(caught.value))
    assert needed is not None
    return int(needed[1])


def main(seconds: float, first: int) -> None:
    """Fuzz for a while; print outcomes, and each kind of failure with the seed that gave it."""
    warnings.simplefilter("error")
    outcomes, failures, slowest = Counter[str](), dict[str, tuple[int, str]](), (0.0, 0)
    end, seed = time.monotonic() + seconds, first
    while time.monotonic() < end:
        start = time.monotonic()
        try:
            outcomes[examine(mutate(random.Random(seed)))] += 1
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            own = next(f for f in reversed(traceback.extract_tb(error.__traceback__)) if PACKAGE in f.filename)
            where = f"{type(error).__name__} {Path(own.filename).name}:{own.lineno} {last.name}"
            outcomes["FAILURE"] += 1
            failures.setdefault(where, (seed, str(error)[:160]))
        slowest = max(slowest, (time.monotonic() - start, seed))
        seed += 1
    print(dict(outcomes), "slowest", slowest)
    for where, (number, text) in failures.items():
        print(f"seed {number}: {where}: {text}")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
