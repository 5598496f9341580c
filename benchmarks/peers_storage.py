"""What peers make of one pair; runs in the peers' environment and prints JSON.

    PYTHON benchmarks/peers_storage.py PEER ROOM

ROOM holds the directories `base` and `finetuned` (tensors that both sides have), `graft` (the base with the kept
entries as the fine-tune has them) and `kept` (nothing but the kept entries, zeros elsewhere). Seconds are of the
processor; `error` is the squared error over the squared norm of what the peer was given to store.
"""

import importlib.metadata
import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any


def weightscope(room: Path, tuned: str, out: Path) -> dict[str, Any]:
    """A patch of every changed weight; threshold 0, since the default drops changes below 1e-6."""
    from weightscope import apply_patch, export_patch  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

    patch, again = out / "patch.wsp", out / "again.safetensors"
    return {
        "encode": _seconds(lambda: export_patch(str(room / "base"), str(room / tuned), out_path=patch, threshold=0.0)),
        "decode": _seconds(lambda: apply_patch(patch_path=patch, base=str(room / "base"), out_path=again)),
        "bytes": patch.stat().st_size,
        "error": _error(room, tuned, _load(again)),
    }


def deltatensors(room: Path, strategy: str, out: Path) -> dict[str, Any]:
    """A delta file; `int4` of the whole fine-tune."""
    import deltatensors as dt  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

    path, found = out / "task.wdelta", {}
    base, tuned = str(room / "base"), str(room / "finetuned")

    def save() -> None:
        dt.save_delta_from_paths(path, tuned, base, strategy=strategy, use_gpu=False)

    def load() -> None:
        found.update(dt.load_delta_from_paths(path, base))

    seconds = {"encode": _seconds(save), "decode": _seconds(load)}
    return {**seconds, "bytes": path.stat().st_size, "error": _error(room, "finetuned", found)}


def bitmask(room: Path, _: str, out: Path) -> dict[str, Any]:
    """A bit per entry, row offsets and the kept weights, in a safetensors file."""
    from compressed_tensors.compressors.sparse_compressors.sparse_bitmask import (  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415
        BitmaskTensor,
    )
    from safetensors.torch import save_file  # noqa: PLC0415

    path, found = out / "bitmask.safetensors", {}

    def save() -> None:
        parts: dict[str, Any] = {}
        for name, tensor in _load(room / "kept" / "model.safetensors").items():
            parts |= BitmaskTensor.from_dense(tensor).dict(name_prefix=name)
        save_file(parts, path)

    def load() -> None:
        parts = _load(path)
        for name in {key.rpartition(".")[0] for key in parts}:
            fields = {key: parts[f"{name}.{key}"] for key in ("shape", "compressed", "bitmask", "row_offsets")}
            found[name] = BitmaskTensor(**{**fields, "shape": fields["shape"].tolist()}).decompress()

    seconds = {"encode": _seconds(save), "decode": _seconds(load)}
    kept = _load(room / "kept" / "model.safetensors")
    wrong = sum(int((found[name] != tensor).sum()) for name, tensor in kept.items())
    return {**seconds, "bytes": path.stat().st_size, "error": float(wrong)}


def _load(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file  # noqa: PLC0415

    loaded: dict[str, Any] = load_file(path)
    return loaded


def _error(room: Path, tuned: str, found: dict[str, Any]) -> float:
    """Squared error over squared norm of the task vector."""
    import torch  # noqa: PLC0415

    base, wanted = (_load(room / side / "model.safetensors") for side in ("base", tuned))
    error = norm = 0.0
    for name, tensor in wanted.items():
        error += float((torch.as_tensor(found[name]).double() - tensor.double()).square().sum())
        norm += float((tensor.double() - base[name].double()).square().sum())
    return error / norm


def _seconds(job: Callable[[], object]) -> float:
    start = process_time()
    job()
    return process_time() - start


PEERS: dict[str, tuple[Callable[[Path, str, Path], dict[str, Any]], str, str]] = {
    "weightscope": (weightscope, "graft", "weightscope"),
    "weightscope-whole": (weightscope, "finetuned", "weightscope"),
    "deltatensors-int4": (deltatensors, "int4", "deltatensors"),
    "compressed-tensors": (bitmask, "", "compressed-tensors"),
}


def main() -> None:
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)
    job, what, package = PEERS[sys.argv[1]]
    room = Path(sys.argv[2])
    out = room / "peer"
    out.mkdir(exist_ok=True)
    print(json.dumps({"version": importlib.metadata.version(package), **job(room, what, out)}))


if __name__ == "__main__":
    main()
