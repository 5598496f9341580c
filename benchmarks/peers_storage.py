"""What peers make of one pair; runs in the peers' environment and prints JSON.

    PYTHON benchmarks/peers_storage.py PEER ROOM [compress|restore]

ROOM holds the directories `base` and `finetuned` (tensors that both sides have), `graft` (the base with the kept
entries as the fine-tune has them) and `kept` (nothing but the kept entries, zeros elsewhere). Seconds are of the
processor; `error` is the squared error over the squared norm of what the peer was given to store. With `compress` or
`restore` only that is done, from files to a file, for the whole process to be measured from outside.
"""

import importlib.metadata
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

Weights = dict[str, Any]
KINDS = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
AGAIN = "again.safetensors"
"""What `restore` writes: a whole checkpoint."""


@dataclass(frozen=True)
class Peer:
    """A peer.

    Attributes:
        package: Its name in the registry.
        tuned: What it is given to store: a directory of the room.
        file: What it writes, in a folder of its own.
        save: Stores the directory against the base.
        load: Gives the weights back; where it writes them itself, into `AGAIN`, gives None.
    """

    package: str
    tuned: str
    file: str
    save: Callable[[Path, Path, Path], None]
    load: Callable[[Path, Path], Weights | None]


def _weightscope(tuned: str) -> Peer:
    """A patch of every changed weight; threshold 0, since the default drops changes below 1e-6."""

    def save(room: Path, given: Path, file: Path) -> None:
        from weightscope import export_patch  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

        export_patch(str(room / "base"), str(given), out_path=file, threshold=0.0)

    def load(room: Path, file: Path) -> None:
        from weightscope import apply_patch  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

        apply_patch(patch_path=file, base=str(room / "base"), out_path=file.with_name(AGAIN))

    return Peer("weightscope", tuned, "patch.wsp", save, load)


def _deltatensors(strategy: str) -> Peer:
    """A delta file of the whole fine-tune."""

    def save(room: Path, given: Path, file: Path) -> None:
        import deltatensors as dt  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

        dt.save_delta_from_paths(file, str(given), str(room / "base"), strategy=strategy, use_gpu=False)

    def load(room: Path, file: Path) -> Weights:
        import deltatensors as dt  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

        found: Weights = dt.load_delta_from_paths(file, str(room / "base"))
        return found

    return Peer("deltatensors", "finetuned", "task.wdelta", save, load)


def _bitmask() -> Peer:
    """A bit per entry, row offsets and the kept weights, in a safetensors file."""

    def save(_room: Path, given: Path, file: Path) -> None:
        from safetensors.torch import save_file  # noqa: PLC0415

        parts: Weights = {}
        for name, tensor in _load(given / "model.safetensors").items():
            parts |= _bitmask_tensor().from_dense(tensor).dict(name_prefix=name)
        save_file(parts, file)

    def load(_room: Path, file: Path) -> Weights:
        parts, found = _load(file), {}
        for name in {key.rpartition(".")[0] for key in parts}:
            fields = {key: parts[f"{name}.{key}"] for key in ("shape", "compressed", "bitmask", "row_offsets")}
            found[name] = _bitmask_tensor()(**{**fields, "shape": fields["shape"].tolist()}).decompress()
        return found

    return Peer("compressed-tensors", "kept", "bitmask.safetensors", save, load)


def _bitmask_tensor() -> Any:
    from compressed_tensors.compressors.sparse_compressors.sparse_bitmask import (  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415
        BitmaskTensor,
    )

    return BitmaskTensor


def _zipnn() -> Peer:
    """The whole file against the base's, in delta mode; the files have one size."""

    def coder(room: Path) -> Any:
        import zipnn  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415
        from safetensors import safe_open  # noqa: PLC0415

        with safe_open(room / "base" / "model.safetensors", "pt") as file:
            kind = KINDS[file.get_slice(next(iter(file.keys()))).get_dtype()]
        return zipnn.ZipNN(bytearray_dtype=kind, input_format="byte", delta_compressed_type="byte", threads=1)

    def save(room: Path, given: Path, file: Path) -> None:
        base, tuned = ((folder / "model.safetensors").read_bytes() for folder in (room / "base", given))
        file.write_bytes(coder(room).compress(tuned, delta_second_data=base))

    def load(room: Path, file: Path) -> None:
        base = (room / "base" / "model.safetensors").read_bytes()
        file.with_name(AGAIN).write_bytes(coder(room).decompress(file.read_bytes(), delta_second_data=base))

    return Peer("zipnn", "finetuned", "task.znn", save, load)


PEERS = {
    "weightscope": _weightscope("graft"),
    "weightscope-whole": _weightscope("finetuned"),
    "deltatensors-int4": _deltatensors("int4"),
    "compressed-tensors": _bitmask(),
    "zipnn": _zipnn(),
}


def both(peer: Peer, room: Path, file: Path) -> dict[str, Any]:
    """Store and give back, each timed, and compare."""
    given, found = room / peer.tuned, {}

    def load() -> None:
        found["weights"] = peer.load(room, file)

    seconds = {"encode": _seconds(lambda: peer.save(room, given, file)), "decode": _seconds(load)}
    weights = found["weights"] or _load(file.with_name(AGAIN))
    return {**seconds, "bytes": file.stat().st_size, "error": _error(room, given, weights)}


def one_way(way: str, peer: Peer, room: Path, file: Path) -> dict[str, Any]:
    """Only store, or only give back and write the whole checkpoint."""
    if way == "compress":
        peer.save(room, room / peer.tuned, file)
        return {"bytes": file.stat().st_size}
    weights = peer.load(room, file)
    if weights is not None:
        _write(room, peer, weights, file.with_name(AGAIN))
    return {}


def _write(room: Path, peer: Peer, weights: Weights, path: Path) -> None:
    """Weights as a whole checkpoint; where only kept entries came back, the base's are around them."""
    import torch  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    whole = {name: torch.as_tensor(weight) for name, weight in weights.items()}
    if peer.tuned == "kept":
        base = _load(room / "base" / "model.safetensors")
        whole = {name: kept.where(kept != 0, base[name]) for name, kept in whole.items()}
    save_file(whole, path, metadata={"format": "pt"})


def _load(path: Path) -> Weights:
    from safetensors.torch import load_file  # noqa: PLC0415

    loaded: Weights = load_file(path)
    return loaded


def _error(room: Path, tuned: Path, found: Weights) -> float:
    """Squared error over squared norm of the task vector."""
    import torch  # noqa: PLC0415

    base, wanted = (_load(side / "model.safetensors") for side in (room / "base", tuned))
    error = norm = 0.0
    for name, tensor in wanted.items():
        error += float((torch.as_tensor(found[name]).double() - tensor.double()).square().sum())
        norm += float((tensor.double() - base[name].double()).square().sum())
    return error / norm


def _seconds(job: Callable[[], object]) -> float:
    start = process_time()
    job()
    return process_time() - start


def main() -> None:
    import torch  # noqa: PLC0415

    peer, room = PEERS[sys.argv[1]], Path(sys.argv[2])
    out = room / "peer"
    out.mkdir(exist_ok=True)
    version = importlib.metadata.version(peer.package)
    if len(sys.argv) > 3:
        print(json.dumps({"version": version, **one_way(sys.argv[3], peer, room, out / peer.file)}))
        return
    torch.set_num_threads(1)
    print(json.dumps({"version": version, **both(peer, room, out / peer.file)}))


if __name__ == "__main__":
    main()
