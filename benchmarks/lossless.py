"""Lossless archives: bytes, speed and memory on generated and real pairs, against plain recipes and a peer.

    python -m benchmarks.lossless [MODELS] [--room DIR] [--rounds N] [--zipnn PYTHON]

Generated pairs have the tensors of a Llama of 27 million parameters, seeded. The base's weights are normal, standard
deviation 0.02. `SFT`: the fine-tune adds normal noise of 2.1e-4, which makes xor, byte planes and zstd reach the 34.7 %
(bf16) and 67.4 % (fp32) that are known of fine-tunes. `RL step`: noise of 3.85e-7 on float32 weights, both sides then
rounded to bf16: 1.5 % of the stored values differ, more of the small ones, as after a real step. MODELS holds real
pairs (the folder that `unpack.py --bf16` makes).

Speeds are megabytes of the checkpoint per second of processor time (user and system, all threads), page cache warm,
medians of interleaved rounds, so that others on the machine matter little; `wall` is by the clock. `codec`: chunks in
memory, one thread. `job`: the whole of `archive_to` and `restore` (hashes of base, files and archive, header, fsync).
Writes benchmarks/results/lossless.json.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from benchmarks.common import write_result
from benchmarks.peers_environment import PeersError, run
from sparsetv.archive.chunk import decode_chunk, encode_chunk
from sparsetv.archive.elements import kind_of
from sparsetv.archive.limits import CHUNK_ELEMENTS
from sparsetv.atomic import Part, write_new_file
from sparsetv.bench.cost import peak_memory
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.difference import TaskVector, task_vector
from sparsetv.dtypes import from_float32
from sparsetv.jobs.archive import archive_to, restore
from sparsetv.jobs.archived import verify_archive
from sparsetv.threads import keep_freed_memory
from sparsetv.wire.header import encode_header, place

GOALS = {"SFT bf16": 35.0, "SFT fp32": 65.0, "RL step bf16": 1.9}
GENERATED = {"SFT bf16": ("BF16", 2.1e-4), "SFT fp32": ("F32", 2.1e-4), "RL step bf16": ("BF16", 3.85e-7)}
REAL = [(name, suffix) for name in ("CR", "TREC", "TREC-sgd") for suffix in ("", "-bf16")]
RECIPES = ("xor + byte planes + zstd", "xor + zstd", "zstd alone")

Pair = tuple[np.ndarray, np.ndarray]
"""Bits of one tensor of base and fine-tune."""


def shapes() -> dict[str, tuple[int, ...]]:
    """A Llama of 6 layers, hidden size 512, 16,000 words, tied head: 27.2 M parameters."""
    hidden, inner = 512, 1376
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (16000, hidden), "model.norm.weight": (hidden,)}
    for layer in range(6):
        start = f"model.layers.{layer}."
        for part in "qkvo":
            found[f"{start}self_attn.{part}_proj.weight"] = (hidden, hidden)
        for part, shape in (("gate", (inner, hidden)), ("up", (inner, hidden)), ("down", (hidden, inner))):
            found[f"{start}mlp.{part}_proj.weight"] = shape
        for norm in ("input_layernorm", "post_attention_layernorm"):
            found[f"{start}{norm}.weight"] = (hidden,)
    return dict(sorted(found.items()))


def generate(room: Path, name: str) -> tuple[Path, Path]:
    """Write one generated pair; skipped where it exists."""
    dtype, step = GENERATED[name]
    sides = (room / name / "base", room / name / "finetuned")
    if not (sides[1] / "model.safetensors").exists():
        rng = np.random.default_rng(0)
        tensors: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] = ({}, {})
        for tensor, shape in shapes().items():
            weights = rng.standard_normal(int(np.prod(shape)), np.float32) * np.float32(0.02)
            if len(shape) == 1:
                weights += np.float32(1)
            noise = rng.standard_normal(len(weights), np.float32) * np.float32(step)
            tensors[0][tensor], tensors[1][tensor] = from_float32(weights, dtype), from_float32(weights + noise, dtype)
        for directory, found in zip(sides, tensors, strict=True):
            directory.mkdir(parents=True, exist_ok=True)
            stored = place((tensor, dtype, shapes()[tensor]) for tensor in found)
            parts: list[Part] = [encode_header(stored, {"format": "pt"})]
            parts += [bits.view(np.uint8) for bits in found.values()]
            write_new_file(directory / "model.safetensors", parts)
    return sides


def bits_of(vector: TaskVector) -> list[tuple[str, Pair]]:
    """Dtype and aligned copies of the bits of each tensor that both sides have."""
    return [
        (vector.base.dtype(name), (np.array(vector.base.bits(name)), np.array(vector.finetuned.bits(other))))
        for name, other in vector.pairing.shared.items()
    ]


def _cut(pairs: list[tuple[str, Pair]]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    for dtype, (base, tuned) in pairs:
        for start in range(0, len(tuned), CHUNK_ELEMENTS):
            yield dtype, base[start : start + CHUNK_ELEMENTS], tuned[start : start + CHUNK_ELEMENTS]


def encode_ours(pairs: list[tuple[str, Pair]]) -> list[bytes]:
    return [encode_chunk(base, tuned, kind_of(dtype)) for dtype, base, tuned in _cut(pairs)]


def decode_ours(coded: list[bytes], pairs: list[tuple[str, Pair]]) -> None:
    for data, (dtype, base, tuned) in zip(coded, _cut(pairs), strict=True):
        decode_chunk(memoryview(data), base, kind_of(dtype), count=len(tuned), what="chunk")


def _mix(recipe: str, base: np.ndarray, tuned: np.ndarray) -> np.ndarray:
    return tuned if recipe == "zstd alone" else base ^ tuned


def encode_recipe(recipe: str, pairs: list[tuple[str, Pair]]) -> list[list[bytes]]:
    """Each tensor at zstd level 1, planes apart where the recipe says so; raw where that is shorter."""
    compressor = zstandard.ZstdCompressor(level=1)
    found = []
    for _, (base, tuned) in pairs:
        mixed = _mix(recipe, base, tuned)
        planes = [mixed.view(np.uint8)]
        if "planes" in recipe:
            matrix = planes[0].reshape(len(mixed), mixed.itemsize)
            planes = [np.ascontiguousarray(matrix[:, column]) for column in range(mixed.itemsize)]
        found.append([min(compressor.compress(plane.data), plane.tobytes(), key=len) for plane in planes])
    return found


def decode_recipe(recipe: str, coded: list[list[bytes]], pairs: list[tuple[str, Pair]]) -> None:
    decompressor = zstandard.ZstdDecompressor()
    for stored, (_, (base, _)) in zip(coded, pairs, strict=True):
        width = base.itemsize if len(stored) > 1 else 1
        size = base.nbytes // width
        planes = [np.frombuffer(s if len(s) == size else decompressor.decompress(s), np.uint8) for s in stored]
        whole = np.empty(base.nbytes, np.uint8)
        for column, plane in enumerate(planes):
            whole[column::width] = plane
        _mix(recipe, base, whole.view(base.dtype))


def _copy(pairs: list[tuple[str, Pair]], target: np.ndarray) -> None:
    for _, (_, tuned) in pairs:
        target[: tuned.nbytes] = tuned.view(np.uint8)


@dataclass
class Times:
    """Seconds of a job's rounds, by the clock and of the processor."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)


def timed(jobs: dict[str, Callable[[], Any]], *, rounds: int) -> dict[str, Times]:
    """Run jobs in turn, `rounds` times each, after one round that is not counted."""
    found = {name: Times() for name in jobs}
    for number in range(rounds + 1):
        for name, job in jobs.items():
            start, processor = time.perf_counter(), time.process_time()
            job()
            if number:
                found[name].wall.append(time.perf_counter() - start)
                found[name].processor.append(time.process_time() - processor)
    return found


def read_file(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(1 << 22)
        while file.readinto(buffer):
            pass


def jobs_of(base: Path, finetuned: Path, room: Path) -> dict[str, Callable[[], Any]]:
    """The two jobs and the floor of reading, each from and to files."""
    weights = next(iter(open_checkpoint(finetuned).shards.values())).path
    return {
        "archive": lambda: archive_to(room / "again.stv", base, finetuned),
        "restore": lambda: restore(base, room / "kept.stv", Path(tempfile.mkdtemp(dir=room))),
        "read": lambda: read_file(weights),
    }


def measure(name: str, base: Path, finetuned: Path, room: Path, rounds: int) -> dict[str, Any]:
    """One row: sizes, speeds, memory of a pair."""
    room.mkdir(exist_ok=True)
    summary = archive_to(room / "kept.stv", base, finetuned)
    verify_archive(room / "kept.stv", base=base, finetuned=finetuned)
    vector = task_vector(open_checkpoint(base), open_checkpoint(finetuned))
    pairs = bits_of(vector)
    size = sum(tuned.nbytes for _, (_, tuned) in pairs)
    changed = sum(int(np.count_nonzero(base != tuned)) for _, (base, tuned) in pairs)
    coded = encode_ours(pairs)
    recipes = {recipe: encode_recipe(recipe, pairs) for recipe in RECIPES}
    target = np.zeros(max(tuned.nbytes for _, (_, tuned) in pairs), np.uint8)
    work: dict[str, Callable[[], Any]] = {
        "encode ours": lambda: encode_ours(pairs),
        "decode ours": lambda: decode_ours(coded, pairs),
        "copy": lambda: _copy(pairs, target),
    }
    for recipe, stored in recipes.items():
        work[f"encode {recipe}"] = lambda recipe=recipe: encode_recipe(recipe, pairs)  # type: ignore[misc]
        work[f"decode {recipe}"] = lambda recipe=recipe, stored=stored: decode_recipe(recipe, stored, pairs)  # type: ignore[misc]
    keep_freed_memory()
    times = timed(work, rounds=rounds)
    jobs = timed(jobs_of(base, finetuned, room), rounds=rounds)
    files = summary.checkpoint_bytes
    row = {
        "pair": name,
        "checkpoint_bytes": files,
        "archive_bytes": summary.file_bytes,
        "percent": _percent(summary.file_bytes, files),
        "goal_percent": GOALS.get(name),
        "changed_percent": _percent(changed, sum(len(tuned) for _, (_, tuned) in pairs)),
        "modes": summary.modes,
        "other_bytes": summary.other_bytes,
        "codec": {way: _speed(size, times[f"{way} ours"].processor) for way in ("encode", "decode")},
        "job": {way: _speed(files, jobs[way].processor) for way in ("archive", "restore")},
        "job_wall": {way: _speed(files, jobs[way].wall) for way in ("archive", "restore")},
        "floors": {"copy": _speed(size, times["copy"].processor), "read": _speed(files, jobs["read"].processor)},
        "recipes": {
            recipe: {
                "percent": _percent(sum(len(part) for parts in stored for part in parts), size),
                "encode": _speed(size, times[f"encode {recipe}"].processor),
                "decode": _speed(size, times[f"decode {recipe}"].processor),
            }
            for recipe, stored in recipes.items()
        },
        "peak_bytes": {way: peak_of(way, base, finetuned, room) for way in ("archive", "restore")},
    }
    print(row, flush=True)
    return row


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 3)


def _speed(size: int, seconds: list[float]) -> int:
    """Megabytes per second at the median."""
    return round(size / statistics.median(seconds) / 1e6)


def peak_of(way: str, base: Path, finetuned: Path, room: Path) -> int:
    """Peak anonymous memory of a job above that of a fresh process with everything imported, in bytes."""
    command = [sys.executable, "-m", "benchmarks.lossless", "--peak", way, str(base), str(finetuned), str(room)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(way: str, base: Path, finetuned: Path, room: Path) -> None:
    """Run a job once in this process and print the anonymous memory that it took."""
    jobs = jobs_of(base, finetuned, room)
    with peak_memory() as peak:
        jobs[way]()
    print(peak.grown)


_ZIPNN = """
import sys, importlib.metadata, zipnn
from time import process_time
base, tuned = (bytearray(open(path, 'rb').read()) for path in sys.argv[1:3])
def coder():
    return zipnn.ZipNN(bytearray_dtype=sys.argv[3], input_format='byte', delta_compressed_type='byte', threads=1)
start = process_time(); packed = coder().compress(bytes(tuned), delta_second_data=bytes(base))
middle = process_time(); again = coder().decompress(packed, delta_second_data=bytes(base))
assert bytes(again) == bytes(tuned)
print(importlib.metadata.version('zipnn'), len(packed), middle - start, process_time() - middle)
"""


def zipnn(python: Path, base: Path, finetuned: Path, dtype: str) -> dict[str, Any]:
    """ZipNN's delta mode on the two weight files; needs files of one size."""
    paths = [str(directory / "model.safetensors") for directory in (base, finetuned)]
    size = Path(paths[1]).stat().st_size
    kind = {"BF16": "bfloat16", "F32": "float32"}[dtype]
    version, packed, encode, decode = run([str(python), "-c", _ZIPNN, *paths, kind]).split()[-4:]
    speeds = {"encode": round(size / float(encode) / 1e6), "decode": round(size / float(decode) / 1e6)}
    return {"version": version, "percent": _percent(int(packed), size), **speeds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="?")
    parser.add_argument("--room", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--zipnn", type=Path, metavar="PYTHON", help="Python of an environment that has zipnn.")
    parser.add_argument("--peak", nargs=3, metavar=("WAY", "BASE", "FINETUNED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        print_peak(args.peak[0], Path(args.peak[1]), Path(args.peak[2]), args.models)
        return
    rows = []
    with tempfile.TemporaryDirectory(dir=args.room) as temporary:
        room = Path(temporary)
        for name, (dtype, _) in GENERATED.items():
            base, finetuned = generate(room, name)
            rows.append(measure(name, base, finetuned, room / "work", args.rounds))
            if args.zipnn is not None:
                try:
                    rows[-1]["zipnn"] = zipnn(args.zipnn, base, finetuned, dtype)
                except PeersError as error:
                    rows[-1]["zipnn"] = {"failed": str(error)}
                print(rows[-1]["zipnn"], flush=True)
        for task, suffix in REAL if args.models is not None else []:
            base, finetuned = args.models / f"base{suffix}", args.models / f"{task}{suffix}"
            name = f"{task} {'bf16' if suffix else 'fp32'}"
            rows.append(measure(name, base, finetuned, room / "work", args.rounds))
    write_result("lossless", {"rounds": args.rounds, "rows": rows})


if __name__ == "__main__":
    main()
