"""Bytes on disk of every encoding and of the peers on the same pairs, with speed, error and distance from the entropy.

    python -m benchmarks.storage MODELS [--room DIR] [--peers PYTHON]

MODELS holds `base`, `base-bf16` and the fine-tunes (the folder that `unpack.py --bf16` makes). Generated pairs are
those of `benchmarks/lossless.py`: a Llama of 27 million parameters. Peers get the entries that `exact` keeps, or the
whole pair (tensors that both sides have); those that must be installed have an environment of their own in the
room, unless `--peers` names the Python of one. A peer that cannot be installed or fails is a row that says why.

Speeds are megabytes of the checkpoint's weight file per second of processor time, with pools of one thread on one core,
page cache warm; the same by the clock is in the result. `pack` is the whole job from files to a file; `codec` goes from
kept entries in memory to bytes; `decode` reads and checks the file. Writes benchmarks/results/storage.json.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import write_result
from benchmarks.peers_environment import peers_python
from benchmarks.storage_goals import goals
from benchmarks.storage_ours import DENSITY, LOSSY, archive_row, jobs, row, same_bytes
from benchmarks.storage_pairs import Pair, kept_entries, one_thread, pairs, write_sides
from benchmarks.storage_peers import rows as peer_rows
from sparsetv.dtypes import SIZES
from sparsetv.jobs.pack import pack


def measure(models: Path, room: Path, python: Path) -> list[dict[str, Any]]:
    """All rows."""
    found = []
    for pair in pairs(models, room):
        with tempfile.TemporaryDirectory(dir=room) as work:
            for one in _rows(pair, Path(work), python):
                found.append({"pair": pair.title, "optimizer": pair.optimizer, "dtype": pair.dtype, **one})
                print(_line(found[-1]), flush=True)
    return found


def _rows(pair: Pair, room: Path, python: Path) -> Iterator[dict[str, Any]]:
    listed = jobs(pair)
    for job in listed:
        yield row(pair, job, room)
    if not pair.everything:
        return
    exact, vector = pack(pair.base, pair.finetuned, name=pair.name, options=listed[0].options), pair.vector()
    entries = kept_entries(vector, exact.tensors)
    write_sides(vector, entries, room)
    yield archive_row(pair, room)
    scope_bytes = sum(SIZES[tensor.dtype] * tensor.numel for tensor in exact.tensors.values())
    for found in peer_rows(pair, entries, scope_bytes, room, python):
        lossy = found["fidelity"] == LOSSY and "bytes" in found
        yield {**found, "ours_at_its_bytes": same_bytes(pair, found["bytes"])} if lossy else found


def _line(one: dict[str, Any]) -> str:
    share = one.get("percent_of_scope"), one.get("percent_of_checkpoint")
    shown = f"{one['pair']:15} {one['name']:30} {one.get('bytes', 0):>11,} bytes  {share[0]} % of scope  {share[1]} %"
    details = ("bits_per_entry", "error", "megabytes_per_second", "over_entropy", "ours_at_its_bytes", "failed")
    return "  ".join([shown, *(f"{key} {one[key]}" for key in details if key in one)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--room", type=Path, help="Where files and the peers' environment go; a temporary directory.")
    parser.add_argument("--peers", type=Path, metavar="PYTHON", help="Python of an environment that has the peers.")
    args = parser.parse_args()
    one_thread()
    with tempfile.TemporaryDirectory() as temporary:
        room = args.room or Path(temporary)
        rows = measure(args.models, room, peers_python(room, args.peers))
    checked = goals(rows)
    write_result("storage", {"density": DENSITY, "scope": "blocks", "goals": checked, "rows": rows})
    for one in checked:
        print(f"{'met   ' if one['met'] else 'MISSED'} {one['goal']}: {one['found']} ({one['asked']}), {one['where']}")


if __name__ == "__main__":
    main()
