"""A second reader of task files, from SPEC.md alone: it shares no code with sparsetv, and trusts what it reads."""

import json
import sys
from io import BytesIO

import numpy as np
import safetensors
from zstandard import decompress


def _gaps(high, low, counts, shifts):  # codecs/gaps.md: positions of each piece, counted from its first entry
    highs = np.diff(np.cumsum(high, dtype=np.int64)[high != 255], prepend=0)
    bits, entry, bit = np.unpackbits(low, bitorder="little"), 0, 0
    for n, s in zip(counts, shifts, strict=True):
        lows = bits[bit : bit + n * s].reshape(n, s) @ (1 << np.arange(s))
        yield np.cumsum((highs[entry : entry + n] << s) + lows + 1) - 1
        entry, bit = entry + n, bit + (n * s + 7) // 8 * 8


def _values(stream, frames, counts):  # codecs/exact.md, codecs/sign.md: value and correction (0: none) of each entry
    amounts = np.zeros(sum(counts), np.uint32)
    if stream["codec"] == "sign":
        sizes = np.repeat(np.array(stream["magnitudes"], np.float32), counts)
    else:
        sizes = (np.stack(frames[1:5], axis=1).view(np.uint32).ravel() + np.uint32(stream["bias"])).view("f4")
        zigzag = np.stack(np.split(frames[6], 4), axis=1).view(np.uint32).ravel()
        amounts[next(_gaps(frames[5], frames[6][:0], [stream["corrections"]], [0]))] = (zigzag >> 1) ^ -(zigzag & 1)
    return np.where(np.unpackbits(frames[0], count=len(sizes), bitorder="little"), -sizes, sizes), amounts.view("i4")


def read(path):
    """(manifest, {tensor: (shape, positions int64, values float32, corrections {index, amount int32})}) of a file."""
    data = {name: bytes(t["data"]) for name, t in safetensors.deserialize(np.fromfile(path, np.uint8).tobytes())}
    manifest, tensors = json.loads(decompress(data["__sparsetv__"])), {}
    files = [(kind, BytesIO(data.get(f"sparsetv.{kind}", b""))) for kind in ("positions", "values")]
    base, scope = manifest["base"], [i for first, count in manifest["scope"] for i in range(first, first + count)]
    kept, row = [[] for _ in scope], [0 for _ in scope]
    for block in manifest["blocks"]:
        raw = [[np.frombuffer(decompress(f.read(n)) if n else b"", "u1") for n in block[k]["frames"]] for k, f in files]
        short = isinstance(block["pieces"][0], int)  # [first, [nnz, ...]]: whole tensors
        pieces = [(t, 0, n) for t, n in enumerate(block["pieces"][1], block["pieces"][0])] if short else block["pieces"]
        counts = [n for _, _, n in pieces]
        parts = [np.split(part, np.cumsum(counts)[:-1]) for part in _values(block["values"], raw[1], counts)]
        places = _gaps(*raw[0], counts, block["positions"]["shifts"])
        for (t, rows, _), place, *part in zip(pieces, places, *parts, strict=True):
            kept[t].append((place + row[t] * np.prod(base["shapes"][scope[t]][1:], dtype=int), *part))
            row[t] += rows
    for i, pieces in zip(scope, kept, strict=True):
        at, deltas, by = map(np.concatenate, zip(*pieces, strict=True))
        tensors[base["names"][i]] = base["shapes"][i], at, deltas, {"index": np.flatnonzero(by), "amount": by[by != 0]}
    return manifest, tensors


if __name__ == "__main__":
    manifest, tensors = read(sys.argv[1])
    entries = sum(np.prod(tensor[0], dtype=int) for tensor in tensors.values())
    print(manifest["name"], "density", sum(len(tensor[1]) for tensor in tensors.values()) / max(entries, 1))
    for name, (shape, at, _, corrections) in tensors.items():
        print(name, shape, len(at), "kept,", len(corrections["index"]), "corrected")
