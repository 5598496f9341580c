"""Rows of the peers: the same kept entries in their layouts, or the same pair whole."""

import json
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from safetensors.numpy import load_file, save_file

from benchmarks.lossless import bits_of, decode_recipe, encode_recipe, timed, zipnn
from benchmarks.peers_environment import PeersError, run
from benchmarks.storage_ours import EXACT, LOSSY, MASK, WHOLE, percent
from benchmarks.storage_pairs import Kept, Pair
from sparsetv.arrays import Bytes
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.csr import rows_and_columns
from sparsetv.difference import task_vector

Entries = Mapping[str, Kept]
SCRIPT = Path(__file__).parent / "peers_storage.py"
RECIPES = ("xor + zstd", "xor + byte planes + zstd")


@dataclass(frozen=True, slots=True)
class Layout:
    """A peer's layout of kept entries, written here: what it is called, what comes back, and both ways."""

    name: str
    fidelity: str
    save: Callable[[Entries, Path], None]
    load: Callable[[Path], object]


@dataclass(frozen=True, slots=True)
class Apart:
    """A peer that runs in an environment of its own: its name there and here, what comes back, of what."""

    key: str
    name: str
    fidelity: str


APART = (
    Apart("weightscope", "weightscope", EXACT),
    Apart("compressed-tensors", "compressed-tensors bitmask", EXACT),
    Apart("weightscope-whole", "weightscope, all changed weights", WHOLE),
    Apart("deltatensors-int4", "deltatensors int4", LOSSY),
)


def save_scipy(entries: Entries, out: Path, *, compressed: bool) -> None:
    """One CSR array of the weights' bits per tensor, int32 indices."""
    for number, kept in enumerate(entries.values()):
        rows, columns = rows_and_columns(kept.shape)
        starts = np.searchsorted(kept.positions, np.arange(rows + 1, dtype=np.int64) * columns).astype(np.int32)
        index = (kept.positions % columns).astype(np.int32)
        values = kept.bits.view(np.float32) if kept.bits.itemsize == 4 else kept.bits
        matrix = scipy.sparse.csr_array((values, index, starts), shape=(rows, columns))
        scipy.sparse.save_npz(out / f"{number}.npz", matrix, compressed=compressed)


def load_scipy(out: Path) -> object:
    return [scipy.sparse.load_npz(path) for path in sorted(out.iterdir())]


def save_flat(entries: Entries, out: Path) -> None:
    """A flat int32 index and the weights."""
    parts: dict[str, Any] = {}
    for name, kept in entries.items():
        parts |= {f"{name}.index": kept.positions.astype(np.int32), f"{name}.values": kept.bits}
    save_file(parts, out / "flat.safetensors")


def save_shira(entries: Entries, out: Path) -> None:
    """As PEFT saves a SHiRA adapter: int32 rows and columns, float32 deltas."""
    parts: dict[str, Any] = {}
    for name, kept in entries.items():
        pairs = np.stack(np.divmod(kept.positions, rows_and_columns(kept.shape)[1])).astype(np.int32)
        parts |= {f"{name}.shira_indices": pairs, f"{name}.shira_weight": kept.deltas}
    save_file(parts, out / "adapter_model.safetensors")


def save_tall(entries: Entries, out: Path, *, values: bool) -> None:
    """One bit per entry of the scope, and the kept weights where they are asked for."""
    masks = []
    for kept in entries.values():
        flags = np.zeros(int(np.prod(kept.shape)), bool)
        flags[kept.positions] = True
        masks.append(flags)
    parts: dict[str, Any] = {"mask": np.packbits(np.concatenate(masks))}
    if values:
        parts["values"] = np.concatenate([kept.bits for kept in entries.values()])
    save_file(parts, out / "tall.safetensors")


def load_safetensors(out: Path) -> object:
    return {path.name: load_file(path) for path in out.iterdir()}


def load_tall(out: Path) -> Bytes:
    return np.unpackbits(load_file(out / "tall.safetensors")["mask"])


LAYOUTS = (
    Layout("scipy npz", EXACT, lambda e, out: save_scipy(e, out, compressed=False), load_scipy),
    Layout("scipy npz, compressed", EXACT, lambda e, out: save_scipy(e, out, compressed=True), load_scipy),
    Layout("safetensors, int32 index", EXACT, save_flat, load_safetensors),
    Layout("SHiRA, as PEFT saves it", EXACT, save_shira, load_safetensors),
    Layout("TALL packed mask, with values", EXACT, lambda e, out: save_tall(e, out, values=True), load_tall),
    Layout("TALL packed mask", MASK, lambda e, out: save_tall(e, out, values=False), load_tall),
)


def rows(pair: Pair, entries: Entries, scope_bytes: int, room: Path, python: Path) -> Iterator[dict[str, Any]]:
    """A row per peer; one that fails says why."""
    kept = sum(len(one.positions) for one in entries.values())
    for layout in LAYOUTS:
        found = _layout(pair, layout, entries, room)
        yield _of_scope(layout.name, layout.fidelity, found, scope_bytes, kept)
    for apart in APART:
        found = _apart(pair, apart, room, python)
        if apart.fidelity == EXACT:
            yield _of_scope(apart.name, apart.fidelity, found, scope_bytes, kept)
        else:
            yield _of_whole(apart.name, apart.fidelity, found, room)
    yield _of_whole("ZipNN, delta mode", WHOLE, _zipnn(pair, room, python), room)
    for recipe in RECIPES:
        yield _of_whole(recipe, WHOLE, _recipe(recipe, room), room)


def _layout(pair: Pair, layout: Layout, entries: Entries, room: Path) -> dict[str, Any]:
    out = room / "layout"
    out.mkdir(exist_ok=True)
    for path in out.iterdir():
        path.unlink()
    times = timed({"codec": lambda: layout.save(entries, out), "decode": lambda: layout.load(out)}, rounds=3)
    size = sum(path.stat().st_size for path in out.iterdir())
    speeds = {way: _speed(pair.checkpoint_bytes, statistics.median(found.processor)) for way, found in times.items()}
    return {"bytes": size, "error": 0.0, "megabytes_per_second": speeds}


def _apart(pair: Pair, apart: Apart, room: Path, python: Path) -> dict[str, Any]:
    try:
        printed = run([str(python), str(SCRIPT), apart.key, str(room)], timeout=300)
    except PeersError as error:
        return {"failed": str(error)}
    found: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    encode = "codec" if apart.key == "compressed-tensors" else "pack"
    speeds = {encode: found.pop("encode"), "decode": found.pop("decode")}
    size = pair.checkpoint_bytes
    return {**found, "megabytes_per_second": {way: _speed(size, seconds) for way, seconds in speeds.items()}}


def _zipnn(pair: Pair, room: Path, python: Path) -> dict[str, Any]:
    try:
        found = zipnn(python, room / "base", room / "finetuned", pair.dtype)
    except PeersError as error:
        return {"failed": str(error)}
    size = round(found["percent"] / 100 * (room / "finetuned" / "model.safetensors").stat().st_size)
    speeds = {"pack": found["encode"], "decode": found["decode"]}
    return {"bytes": size, "version": found["version"], "error": 0.0, "megabytes_per_second": speeds}


def _recipe(recipe: str, room: Path) -> dict[str, Any]:
    bits = bits_of(task_vector(*(open_checkpoint(room / side) for side in ("base", "finetuned"))))
    coded = encode_recipe(recipe, bits)
    work: dict[str, Callable[[], Any]] = {
        "codec": lambda: encode_recipe(recipe, bits),
        "decode": lambda: decode_recipe(recipe, coded, bits),
    }
    size = sum(tuned.nbytes for _, (_, tuned) in bits)
    speeds = {way: _speed(size, found.processor[0]) for way, found in timed(work, rounds=1).items()}
    whole = sum(len(part) for parts in coded for part in parts)
    return {"bytes": whole, "error": 0.0, "megabytes_per_second": speeds}


def _of_scope(name: str, fidelity: str, found: dict[str, Any], scope_bytes: int, kept: int) -> dict[str, Any]:
    row = {"by": "peer", "name": name, "fidelity": fidelity, "kept_entries": kept, **found}
    if "bytes" in found:
        row["percent_of_scope"] = percent(found["bytes"], scope_bytes)
        row["bits_per_entry"] = {"all": round(8 * found["bytes"] / kept, 2)}
    return row


def _of_whole(name: str, fidelity: str, found: dict[str, Any], room: Path) -> dict[str, Any]:
    row = {"by": "peer", "name": name, "fidelity": fidelity, **found}
    if "bytes" in found:
        row["percent_of_checkpoint"] = percent(found["bytes"], (room / "finetuned/model.safetensors").stat().st_size)
    return row


def _speed(size: int, seconds: float) -> int:
    return round(size / max(seconds, 1e-6) / 1e6)
