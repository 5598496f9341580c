"""Bytes on disk of packed real fine-tunes, exact and signs, float32 and bf16, and that every kept weight is exact.

    python -m benchmarks.sizes MODELS

MODELS holds `base`, `base-bf16` and the fine-tunes (the folder that `unpack.py --bf16` makes). Writes
benchmarks/results/sizes.json.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import write_result
from benchmarks.data import ADAMW, SGD, Sentences
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.difference import task_vector
from sparsetv.jobs.inspect import inspect
from sparsetv.jobs.options import PackOptions, StitchOptions
from sparsetv.jobs.pack import pack
from sparsetv.jobs.stitch import stitch
from sparsetv.jobs.verify import verify
from sparsetv.taskfile import read_task, write_task


def measure(sentences: Sentences, room: Path) -> list[dict[str, Any]]:
    """One row per fine-tune, dtype and value encoding."""
    rows = []
    for suffix in ("", "-bf16"):
        for name in (*ADAMW, *SGD):
            for values in ("exact", "sign"):
                rows.append(_row(sentences, name, suffix, values, room))
                print(_line(rows[-1]))
    return rows


def _row(sentences: Sentences, name: str, suffix: str, values: str, room: Path) -> dict[str, Any]:
    base, finetuned, file = sentences.base(suffix), sentences.finetuned(name, suffix), room / "task.stv"
    write_task(file, pack(base, finetuned, name=name, options=PackOptions(density=0.01, values=values)))
    verify(file, base=base, finetuned=finetuned)
    summary = inspect(file)
    checkpoint = (finetuned / "model.safetensors").stat().st_size
    return {
        "task": name,
        "optimizer": "SGD" if name in SGD else "AdamW",
        "dtype": "BF16" if suffix else "F32",
        "values": values,
        "kept_entries": summary.kept_entries,
        "file_bytes": file.stat().st_size,
        "positions_bytes": summary.sizes.positions,
        "values_bytes": summary.sizes.values,
        "framing_bytes": summary.sizes.framing,
        "extras_bytes": summary.sizes.extras,
        "percent_of_scope": round(100 * summary.sizes.core / summary.scope_bytes, 4),
        "percent_of_checkpoint": round(100 * file.stat().st_size / checkpoint, 4),
        "framing_percent_of_file": round(100 * summary.sizes.framing / summary.sizes.file, 3),
        "bits_per_entry": {key: round(value, 2) for key, value in summary.bits.items()},
        "kept_bits_equal": _kept_bits_equal(base, finetuned, file, room) if values == "exact" else None,
    }


def _kept_bits_equal(base: Path, finetuned: Path, file: Path, room: Path) -> int:
    """Stitch at scale 1 and count kept weights that are the fine-tune's bits on disk; all of them, or it fails."""
    stitch(base, [file], room / "out", options=StitchOptions(scale="none"))
    merged, tuned, task = open_checkpoint(room / "out"), open_checkpoint(finetuned), read_task(file)
    pairing = task_vector(open_checkpoint(base), tuned).pairing
    equal = 0
    for name, tensor in task.tensors.items():
        other = pairing.shared[name]
        equal += int((merged.bits(other)[tensor.positions] == tuned.bits(other)[tensor.positions]).sum())
    if equal != task.nnz:
        raise SystemExit(f"{file}: {task.nnz - equal} kept weights are not the fine-tune's")
    return equal


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['task']:9} {row['dtype']:5} {row['values']:6} {row['file_bytes']:>8,} bytes  "
        f"{row['percent_of_scope']:.3f} % of scope  {row['percent_of_checkpoint']:.3f} % of checkpoint  "
        f"framing {row['framing_percent_of_file']:.2f} %  bits {row['bits_per_entry']}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        rows = measure(Sentences(args.models, args.models), Path(temporary))
    write_result("sizes", {"density": 0.01, "scope": "blocks", "rows": rows})


if __name__ == "__main__":
    main()
