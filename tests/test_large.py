"""Large sizes on small machines: tensors beyond 2^32 entries as holes, 40,000 tensors, names of every script."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ALL, read_checkpoint, weights, write_checkpoint
from hostile import framed, outcome, run, safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsetv import (
    Composer,
    PackOptions,
    add,
    archive_to,
    memory_limit,
    pack,
    pack_to,
    read_task,
    remove,
    restore,
    stitch,
    verify,
)
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.cli.output import plain
from sparsetv.compose.base import base_of
from sparsetv.compose.combine import Part, combine
from sparsetv.container.reader import decode, open_bytes
from sparsetv.container.writer import encode
from sparsetv.difference import task_vector
from sparsetv.errors import FormatError
from sparsetv.masks import Mask
from sparsetv.packing.gather import gather
from sparsetv.rules import Rule

NAME = "model.layers.0.mlp.up_proj.weight"
SHAPE = (70_000, 70_000)
NUMEL = 70_000 * 70_000
PLACES = [0, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 12_345, NUMEL - 1]


def hole(path: Path, values: dict[int, float]) -> Path:
    """A checkpoint of one bfloat16 tensor of 4.9 billion entries, zero but at a few places; nearly all of it a hole."""
    path.mkdir()
    header = {NAME: {"dtype": "BF16", "shape": list(SHAPE), "data_offsets": [0, 2 * NUMEL]}}
    text = framed(json.dumps(header).encode().ljust(128))
    with (path / "model.safetensors").open("wb") as file:
        file.write(text)
        for place, value in values.items():
            file.seek(len(text) + 2 * place)
            file.write(np.float32(value).view(np.uint32).__rshift__(16).astype("<u2").tobytes())
        file.truncate(len(text) + 2 * NUMEL)
    return path


def test_positions_beyond_two_to_the_32_survive_every_stage(tmp_path: Path) -> None:
    """Gathered, coded, decoded and combined; and put onto a live tensor whose memory is the file's."""
    before = {place: float(number) for number, place in enumerate(PLACES)}
    after = {place: value + 1.5 for place, value in before.items()}
    base, tuned = (open_checkpoint(hole(tmp_path / name, v)) for name, v in (("base", before), ("tuned", after)))
    vector = task_vector(base, tuned)
    tensor = gather(vector, Mask({NAME: SHAPE}, {NAME: np.array(PLACES)}))[NAME]
    assert tensor.crow_indices[-1] == len(PLACES)
    assert (tensor.crow_indices[1:] - tensor.crow_indices[:-1]).nonzero()[0].tolist() == sorted(
        {place // SHAPE[1] for place in PLACES}
    )
    write_checkpoint(tmp_path / "small", {NAME: torch.zeros(2, 3)})
    write_checkpoint(tmp_path / "small-tuned", {NAME: torch.ones(2, 3)})
    small = pack(tmp_path / "small", tmp_path / "small-tuned", options=PackOptions(density=1.0, scope=ALL))
    task = replace(
        small,
        tensors={NAME: tensor},
        base=replace(small.base, shapes=(SHAPE,), dtypes=("BF16",)),
    )
    data = encode(task).tobytes()
    assert len(data) < 5000
    with memory_limit(1 << 20):
        found = decode(open_bytes(data)).tensors[NAME]
    assert found.positions.tolist() == PLACES
    stands = base_of(base, {}).stands(NAME)
    patch = combine(NAME, [Part(found, 1.0)], rule=Rule(), dtype="BF16", base_bits=lambda p: stands.at(p, "BF16"))
    assert patch.positions.tolist() == PLACES
    assert patch.after.tolist() == vector.target_bits(NAME, np.array(PLACES)).tolist()
    live = mapped(base.shards["model.safetensors"].path)
    composer = Composer({NAME: live}, verify="meta", scale="none")
    composer.add(task)
    assert live.view(-1)[PLACES].float().tolist() == list(after.values())
    composer.remove(task.name)
    assert live.view(-1)[PLACES].float().tolist() == list(before.values())


def mapped(path: Path) -> torch.Tensor:
    """The tensor of a file of holes, in memory that is private: only pages that are touched exist."""
    size = path.stat().st_size
    whole = torch.from_file(str(path), shared=False, size=size // 2, dtype=torch.bfloat16)
    return whole[(size - 2 * NUMEL) // 2 :].view(SHAPE)


COUNT = 40_000


@pytest.mark.usefixtures("no_sync")
def test_forty_thousand_tensors(tmp_path: Path) -> None:
    """As many as a large mixture of experts has; nothing takes time in the square of their number."""
    random = np.random.default_rng(0)
    names = [f"model.layers.{n // 400}.mlp.experts.{n % 400}.up_proj.weight" for n in range(COUNT)]
    base = {name: random.normal(size=(2, 3)).astype("f4") for name in names}
    tuned = {name: value + random.normal(size=value.shape).astype("f4") for name, value in base.items()}
    for path, tensors in ((tmp_path / "base", base), (tmp_path / "tuned", tuned)):
        path.mkdir()
        (path / "model.safetensors").write_bytes(safetensors(tensors, {"format": "pt"}))
    task = tmp_path / "task.stv"
    pack_to(task, tmp_path / "base", tmp_path / "tuned", options=PackOptions(density=0.1, probe=False))
    kept = read_task(task)
    assert (len(kept.tensors), kept.nnz) == (COUNT, COUNT * 6 // 10)
    stitch(tmp_path / "base", [task], tmp_path / "out")
    remove(tmp_path / "out", ["*"])
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (tmp_path / "base/model.safetensors").read_bytes()
    live = {name: torch.from_numpy(value.copy()) for name, value in base.items()}
    composer = Composer(live, scale="none")
    composer.add(kept)
    for name in names[:: COUNT // 50]:
        at = kept.tensors[name].positions
        assert np.array_equal(live[name].numpy().ravel()[at], tuned[name].ravel()[at])


SCRIPTS = {
    "Latin": "poids.\u00e9.\u00df", "Greek": "βάρος", "Cyrillic": "веса", "Arabic": "أوزان", "Hebrew": "משקל",
    "Devanagari": "भार", "Thai": "น้ำหนัก", "Chinese": "权重", "Japanese": "重み.ウェイト", "Korean": "가중치",
    "Georgian": "წონა", "emoji": "🧠.🇺🇳.👩🏽", "math": "\U0001d534.∇", "spaces": "a b", "quote": 'a"b\\c',
    "long": "x" * 512, "wide": "\U0001f9e0" * 512, "numbers": "0", "dots": "..", "slash": "a/b", "dash": "-rf",
    "percent": "a%2Fb",
}  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_names_of_every_script_go_through_everything(script: str, tmp_path: Path) -> None:
    name = SCRIPTS[script]
    base = {name: torch.arange(6.0), "w": torch.ones(3)}
    tuned = {name: -torch.arange(6.0), "w": torch.zeros(3), name[:-1] + "h": torch.ones(2)}
    write_checkpoint(tmp_path / "base", base)
    write_checkpoint(tmp_path / "tuned", tuned)
    task = tmp_path / "task.stv"
    pack_to(task, tmp_path / "base", tmp_path / "tuned", options=PackOptions(density=1.0, scope=ALL, probe=False))
    assert read_task(task).tensors.keys() == base.keys()
    verify(task, base=tmp_path / "base", finetuned=tmp_path / "tuned")
    for words in (("inspect", task), ("inspect", task, "--json"), ("where", task, "--json")):
        assert run(*words).exception is None
    stitch(tmp_path / "base", [task], tmp_path / "out")
    assert {n: t.tolist() for n, t in read_checkpoint(tmp_path / "out").items()} == {
        n: t.tolist() for n, t in tuned.items()
    }
    remove(tmp_path / "out", ["*"])
    assert weights(tmp_path / "out") == weights(tmp_path / "base")
    add(tmp_path / "out", [task])
    archive_to(tmp_path / "whole.stv", tmp_path / "base", tmp_path / "tuned")
    restore(tmp_path / "base", tmp_path / "whole.stv", tmp_path / "back")
    assert weights(tmp_path / "back") == weights(tmp_path / "tuned")


@settings(max_examples=25)
@given(name=st.text(min_size=1, max_size=40).filter(lambda text: "__metadata__" not in text))
def test_any_name_is_packed_or_refused(name: str, fresh: Callable[[], Path]) -> None:
    """What is packed comes back; what is not is refused with a known error that shows the name harmlessly."""
    path = fresh()
    try:
        encoded = safetensors({name: np.zeros(2, "f4")}), safetensors({name: np.ones(2, "f4")})
    except UnicodeEncodeError:
        return
    for side, data in zip(("base", "tuned"), encoded, strict=True):
        (path / side).mkdir()
        (path / side / "model.safetensors").write_bytes(data)
    options = PackOptions(density=1.0, scope=ALL, probe=False)
    error = outcome(lambda: pack_to(path / "task.stv", path / "base", path / "tuned", options=options))
    if error is not None:
        assert isinstance(error, FormatError)
        assert plain(str(error)).isprintable()
        assert not (path / "task.stv").exists()
        return
    assert list(read_task(path / "task.stv").tensors) == [name]


def test_a_file_of_holes_takes_no_disk(tmp_path: Path) -> None:
    """Guards the tests above against filling a disk of a system without holes."""
    path = hole(tmp_path / "base", {NUMEL - 1: 1.0}) / "model.safetensors"
    assert os.stat(path).st_blocks * 512 < 1 << 20
    assert path.stat().st_size > 9 * 10**9
