"""Experiment: what every kind of file weighs, from the file system, and what making it costs."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sparsetv.bench.cost import cost, settle
from sparsetv.bench.kinds import LOSSLESS, options_of
from sparsetv.bench.lab import Lab, left_out
from sparsetv.bench.subject import checkpoint_files
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.jobs.archive import archive_to
from sparsetv.jobs.inspect import inspect
from sparsetv.jobs.pack import pack_to

KINDS = ("1% exact", "5% exact", "1% sign", "5% sign", "0.15% budget", "1% budget", LOSSLESS)


def storage(lab: Lab, *, kinds: Sequence[str] = ()) -> None:
    """Pack every fine-tune into every kind of file; rows `{task, kind}` in `storage.jsonl`.

    Every file is made anew, whole job, probe included, so that seconds and memory are those of `sparsetv pack`.
    """
    recorder = lab.recorder("storage")
    for task in lab.suite.tasks:
        for kind in kinds or KINDS:
            with left_out(lab, f"{task.name}, {kind}", never=bool(kinds)):
                row = recorder.measure({"task": task.name, "kind": kind}, partial(_made, lab, task.name, kind))
                share = row["file_bytes"] / row["fp32_bytes"]
                lab.say(f"{task.name}, {kind}: {row['file_bytes']:,} bytes, {share:.3%} of fp32")


def _made(lab: Lab, name: str, kind: str) -> dict[str, Any]:
    task, path = lab.suite.task(name), lab.file(name, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    settle()
    if kind == LOSSLESS:
        with cost() as spent:
            archive_to(path, lab.suite.base, task.finetuned, name=name, progress=lab.progress)
        return {**_sizes(path, task.finetuned), "scope_bytes": None, "kept": None, "bits": None, **vars(spent)}
    options = options_of(kind, lab.suite, task, device=lab.device)
    with cost() as spent:
        pack_to(path, lab.suite.base, task.finetuned, name=name, options=options, progress=lab.progress)
    told = inspect(path, decoded=False)
    return {
        **_sizes(path, task.finetuned),
        "scope_bytes": told.scope_bytes,
        "kept": told.kept_entries,
        "bits": {part: round(bits, 3) for part, bits in told.bits.items()},
        **vars(spent),
    }


def _sizes(path: Path, finetuned: str) -> dict[str, int]:
    """Bytes of the file and of the checkpoint's weight files on disk, and 4 per parameter of the fine-tune."""
    checkpoint = open_checkpoint(finetuned)
    return {
        "file_bytes": path.stat().st_size,
        "checkpoint_bytes": sum(file.stat().st_size for file in checkpoint_files(finetuned)),
        "fp32_bytes": 4 * sum(checkpoint.numel(name) for name in checkpoint.names),
    }
