"""Our encoder and the second writer give the same bytes where both make the same choices (SPEC 4, codecs).

The choices (cuts, codecs, shifts, classes, units, zstd levels) are read from our file and told to the second writer.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import safetensors
import zstandard
from evidence import GOLDEN, second_writer
from hypothesis import given
from hypothesis import strategies as st

from sparsetv.container.manifest_json import to_json
from sparsetv.container.reader import decode, open_bytes
from sparsetv.container.writer import encode
from sparsetv.task_vector import SparseTaskVector
from sparsetv.taskfile import read_task

VALID = sorted((GOLDEN / "valid").glob("*.stv"))
KINDS = ("positions", "values")
SMALL = 1 << 17  # our writer tries two zstd levels up to here

each_valid_file = pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def contents() -> dict[str, Any]:
    """What the second writer put into each golden file."""
    return {name: content for name, content, _ in second_writer("valid").files()}


def parts_of(data: bytes) -> dict[str, bytes]:
    stored = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
    return {name: bytes(tensor["data"]) for name, tensor in stored}


def manifest_of(data: bytes) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(zstandard.decompress(parts_of(data)["__sparsetv__"]))
    return manifest


# --- the second writer, told what ours chose


def smallest(raw: bytes) -> bytes:
    """The frame that our writer takes: of level 1 or, for small input, of level 19 where that is shorter."""
    frame = second_writer("frames").frame
    found: bytes = min((frame(raw, level=level) for level in ((1, 19) if len(raw) <= SMALL else (1,))), key=len)
    return found


def twin(content: Any, data: bytes) -> bytes:
    """The file that the second writer makes of some content, by the choices of our file."""
    manifest, parts = manifest_of(data), parts_of(data)
    streams = {kind: parts.get(f"sparsetv.{kind}", b"") for kind in KINDS}
    plans = []
    for block in manifest["blocks"]:
        frames: dict[str, list[bytes]] = {kind: [] for kind in KINDS}
        for kind in KINDS:
            for size in block[kind]["frames"]:
                frames[kind].append(zstandard.decompress(streams[kind][:size]) if size else b"")
                streams[kind] = streams[kind][size:]
        plans.append(plan(content, block, frames))

    def stored(tree: dict[str, Any]) -> None:
        if "sparsetv.files" in tree:
            frame = smallest(b"".join(content.files.values()))
            tree["sparsetv.files"] = ("U8", [len(frame)], frame)

    def frames_of(blocks: list[Any]) -> None:
        for stream in (stream for block in blocks for stream in (block.positions, block.values)):
            stream.frames = [smallest(raw) for raw in stream.raw]

    changes = {"frames": frames_of, "stored": stored, "manifest": lambda m: {**m, "writer": manifest["writer"]}}
    sealed: bytes = second_writer("writer").seal(content, plans=plans, changes=changes, version=manifest["version"])
    return sealed


def plan(content: Any, block: dict[str, Any], frames: dict[str, list[bytes]]) -> Any:
    """How one block was cut and coded."""
    module, codecs, newer = second_writer("blocks"), second_writer("codecs"), second_writer("newer")
    short = isinstance(block["pieces"][0], int)
    numbers = range(block["pieces"][0], block["pieces"][0] + len(block["pieces"][1])) if short else ()
    pieces = [(n, module.rows(content.scope[n])) for n in numbers] or [(n, rows) for n, rows, _ in block["pieces"]]
    at, values = block["positions"], block["values"]
    placed = {
        "gaps": lambda cuts: codecs.gap_stream(cuts, at["shifts"]),
        "cells": lambda cuts: newer.cell_stream(cuts, list(classes(newer, cuts, at, frames["positions"][0]))),
        "seeded": lambda cuts: newer.seeded_stream(cuts, at["seed"], at["least"]),
    }[at["codec"]]
    valued = {
        "exact": codecs.exact_stream,
        "sign": codecs.sign_stream,
        "levels": lambda cuts: newer.level_stream(cuts, units(frames["values"][1])),
    }[values["codec"]]
    return module.Plan(pieces, short=short, placed=placed, valued=valued)


def classes(newer: ModuleType, cuts: list[Any], parameters: dict[str, Any], raw: bytes) -> Iterator[Any]:
    """Class of each row and column of each piece (codecs/cells.md, clause 1)."""
    nibbles = [half for byte in raw for half in (byte & 15, byte >> 4)]
    for cut, *counts in zip(cuts, parameters["row_classes"], parameters["column_classes"], strict=True):
        own: list[list[int]] = []
        for size, count in zip((cut.rows, cut.entries // max(cut.rows, 1)), counts, strict=True):
            own.append(nibbles[:size] if count > 1 else [])
            nibbles = nibbles[size + size % 2 :] if count > 1 else nibbles
        yield newer.Classes(*own)


def units(raw: bytes) -> list[float]:
    """Units of a block (codecs/levels.md, clause 1)."""
    count = len(raw) // 4
    return [struct.unpack("<f", raw[i::count])[0] for i in range(count)]


@each_valid_file
def test_told_our_choices_the_second_writer_gives_our_bytes(path: Path, contents: dict[str, Any]) -> None:
    content = contents[path.stem]
    content.changes.pop("x-notes", None)  # what our reader ignores, our writer cannot write
    if path.stem == "optional_feature":
        del content.changes["features"]
    ours = encode(read_task(path)).tobytes()
    assert twin(content, ours) == ours


POSITIVE = [0x3F000000, 0x3F800000, 0x40000000, 0x40800000, 0x3F400000]


@st.composite
def random_content(draw: st.DrawFn) -> Any:
    """Tensors that keep rows, columns or anything; values that repeat, differ in sign alone, or neither."""
    module = second_writer("content")
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    few, most = draw(st.sampled_from([(1, 0), (2, 0), (5, 0), (0, 0), (0, 3)]))
    tensors = []
    for name in draw(st.lists(st.sampled_from(["a", "b.c", "é", "z"]), min_size=1, unique=True).map(sorted)):
        shape = draw(st.sampled_from([[], [5], [0, 3], [6, 8], [60, 50], [2, 3, 4], [3, 400]]))
        weight = np.ones(shape).reshape(shape[0] if len(shape) > 1 else 1, -1) if np.prod(shape) else np.ones((1, 0))
        if draw(st.booleans()):
            weight = weight * (rng.random((len(weight), 1)) < 0.2) * (rng.random(weight.shape[1]) < 0.7)
        kept = np.flatnonzero(rng.random(weight.size) < weight.ravel() * draw(st.sampled_from([0.02, 0.3, 1.5])))
        bits = rng.choice(POSITIVE[:few], len(kept)) if few else rng.integers(0, 0x7F800000, len(kept))
        values = (bits | rng.integers(0, 2, len(kept)) << 31).tolist()
        corrected = rng.choice(len(kept), draw(st.integers(0, min(most, len(kept)))), replace=False)
        corrections = {int(index): int(rng.choice([-7, 1, 300])) for index in sorted(corrected.tolist())}
        dtype = draw(st.sampled_from(["F32", "BF16", "F16"]))
        tensors.append(module.Tensor(name, dtype, shape, dict(zip(kept.tolist(), values, strict=True)), corrections))
    return module.Content(tensors)


@given(content=random_content())
def test_random_tasks_have_the_same_bytes_in_both(content: Any) -> None:
    """The second writer's file is read by us and written again; the second writer gives those bytes, too."""
    task = decode(open_bytes(second_writer("writer").seal(content)))
    ours = encode(task).tobytes()
    assert twin(content, ours) == ours


# --- ours, without being told


SAME = {"budget", "corrections", "no_entries", "no_scope", "sign", "special_values", "values_q2", "values_q4"}
"""Golden files in which the second writer happened to choose what ours chooses."""


def choices(manifest: dict[str, Any]) -> dict[str, Any]:
    """What an encoder is free to choose, and what a reader may drop."""
    blocks = [
        (
            block["pieces"],
            *({k: v for k, v in block[kind].items() if k not in {"frames", "high_size"}} for kind in KINDS),
        )
        for block in manifest["blocks"]
    ]
    return {"blocks": blocks, "features": manifest["features"], "version": manifest["version"]}


@each_valid_file
def test_golden_files_are_written_again_to_the_byte_or_by_other_choices(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the second writer's zstd level and under its name; the files that differ do so in a choice."""
    compress_hard = second_writer("frames").frame
    monkeypatch.setattr(
        "sparsetv.container.writer.to_json", lambda manifest: {**to_json(manifest), "writer": "golden/1"}
    )
    for module in ("streams", "writer"):
        monkeypatch.setattr(f"sparsetv.container.{module}.compress", lambda raw: compress_hard(bytes(raw)))
    task: SparseTaskVector = read_task(path)
    golden, ours = path.read_bytes(), encode(task).tobytes()
    same = choices(manifest_of(golden)) == choices(manifest_of(ours))
    assert (golden == ours) == same == (path.stem in SAME)
