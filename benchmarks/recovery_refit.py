"""Real fine-tunes from files whose values were refitted, beside the same files at their `match` scale.

    python -m benchmarks.recovery_refit MODELS TASKS [--room DIR]

Whole test sets, matrix products in bfloat16; refitting runs in bfloat16, too. Files and scores are kept in the room, so
a run that was stopped goes on. Writes benchmarks/results/recovery_refit.json.
"""

from pathlib import Path
from typing import Any

from benchmarks.common import Cache, write_result
from benchmarks.data import ADAMW, SGD, Sentences
from benchmarks.sentences import arguments, dense, packed, room_of, subject, summarise
from sparsetv.scales import resolve_scale

KINDS = (
    "1% exact",
    "1% refit",
    "1% tensor-refit",
    "0.3% refit",
    "1% sign-refit",
    "1% refit-data",
    "5% exact",
    "5% refit",
)


def measure(data: Sentences, room: Path) -> list[dict[str, Any]]:
    """One row per kind of file and fine-tune."""
    cache = Cache(room / "refit.json")
    rows = []
    for kind in KINDS:
        for name in (*ADAMW, *SGD):
            task = packed(data, room, name, kind)
            density, values = kind.split("% ")
            size = (room / f"{name}-{density}-{values}.stv").stat().st_size
            live = subject(data, name)
            scale = resolve_scale(task, "auto", company=1)[1]
            score = cache.get(f"{kind} {name}", lambda s=live, t=task, c=scale: s.score(dense(t, c)))  # type: ignore[misc]
            rows.append({
                "kind": kind, "task": name, "optimizer": "SGD" if name in SGD else "AdamW", "accuracy": score,
                "base": cache.get(f"base {name}", lambda s=live: s.floor),  # type: ignore[misc]
                "finetuned": cache.get(f"fine-tuned {name}", lambda s=live: s.ceiling),  # type: ignore[misc]
                "file_bytes": size, "kept": task.nnz, "scale": scale,
            })  # fmt: skip
    return rows


def main() -> None:
    args = arguments(__doc__).parse_args()
    with room_of(args) as room:
        rows = measure(Sentences(args.models, args.tasks), room)
    summary = {
        kind: {
            optimizer: summarise(
                (row["accuracy"], row["base"], row["finetuned"])
                for row in rows
                if (row["kind"], row["optimizer"]) == (kind, optimizer)
            )
            for optimizer in ("AdamW", "SGD")
        }
        for kind in KINDS
    }
    write_result("recovery_refit", {"precision": "bf16", "rows": rows, "summary": summary})


if __name__ == "__main__":
    main()
