"""What the scenes begin with: a sharded base, fine-tunes, task files, a stitched directory, a store, an archive."""

import json
from pathlib import Path

import numpy as np
from hostile import Array, pack_to, sharded

from sparsetv.archive.file import is_archive
from sparsetv.demo.folder import ensure
from sparsetv.jobs.archive import archive_to
from sparsetv.jobs.exchange import export_task
from sparsetv.jobs.localize import find_mask
from sparsetv.jobs.options import PackOptions, StitchOptions
from sparsetv.jobs.pack import pack_to as pack
from sparsetv.jobs.stitch import stitch
from sparsetv.jobs.store import Store
from sparsetv.localize.scope import Scope
from sparsetv.results import Recorder

OPTIONS = PackOptions(density=0.3, scope=Scope("all"), probe=False)
PLAIN = StitchOptions(scale="none")
HEADER = {"bench": "x", "suite": {"name": "s"}, "settings": {}, "data": {}, "machine": {}}


def tensors(seed: int) -> dict[str, Array]:
    """Two layers; seed 0 is the base, and what is not the base's differs everywhere."""
    random = np.random.default_rng(seed)
    return {f"h.{layer}.w": random.normal(size=(6, 5)).astype(np.float32) for layer in range(2)}


def checkpoint(path: Path, held: dict[str, Array]) -> None:
    """Two weight files, a configuration and a tokenizer."""
    sharded(path, {f"model-{n + 1:05}-of-00002.safetensors": {f"h.{n}.w": held[f"h.{n}.w"]} for n in range(2)})
    (path / "config.json").write_text(json.dumps({"kind": path.name}))
    (path / "tokenizer.json").write_text("{}\n")


def save_model(path: Path) -> None:
    """Files as a library writes them that knows nothing of syncing."""
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "config.json").write_bytes(b"{}")


def save_weights(source: Path, target: Path, before: object) -> list[str]:
    """A weight file as a library writes it that knows nothing of syncing; the names of its tensors."""
    target.write_bytes(source.read_bytes())
    return ["w"]


def record(path: Path, count: int) -> None:
    """Results with so many rows."""
    recorder = Recorder(path, HEADER)
    for number in range(count):
        recorder.measure({"number": number}, lambda number=number: {"value": number})  # type: ignore[misc]


def build(room: Path) -> None:
    """Put everything on the stage."""
    base = tensors(0)
    checkpoint(room / "base", base)
    for name, seed in {"one": 1, "two": 2, "three": 3}.items():
        checkpoint(room / f"tuned-{name}", tensors(seed))
        pack_to(room / f"{name}.stv", room / "base", room / f"tuned-{name}", name=name)
    checkpoint(room / "tuned-local", {**base, "h.1.w": tensors(4)["h.1.w"]})
    pack_to(room / "local.stv", room / "base", room / "tuned-local", name="local")
    stitch(room / "base", [room / "one.stv", room / "two.stv"], room / "out", options=PLAIN)
    pack(room / "old.stv", room / "base", room / "tuned-two", options=OPTIONS)
    archive_to(room / "old.archive", room / "base", room / "tuned-two")
    archive_to(room / "one.archive", room / "base", room / "tuned-one")
    assert is_archive(room / "one.archive")
    find_mask(room / "base", room / "tuned-two", output=room / "old.mask", options=OPTIONS)
    export_task(room / "two.stv", room / "old.deltas", form="dense")
    ensure(room / "model", {"seed": 0}, make=save_model)
    (room / "pickled").mkdir()
    (room / "pickled" / "pytorch_model.bin").write_bytes(b"weights")
    (room / "pickled" / "config.json").write_bytes(b"{}")
    (room / "old.svg").write_bytes(b"<svg/>")
    (room / "old.html").write_bytes(b"<html/>")
    (room / "results").mkdir()
    record(room / "results" / "old.jsonl", 2)
    _build_stores(room)


def _build_stores(room: Path) -> None:
    """An empty store, and one in which `one` was replaced, so that an object dangles."""
    Store.init(room / "empty")
    store = Store.init(room / "lib")
    store.add(room / "one.stv")
    store.add(room / "two.stv")
    store.add(room / "three.stv", "one", replace=True)
