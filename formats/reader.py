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


def _cells(stream, frames, shapes, counts):  # codecs/cells.md: positions of each piece, unordered
    classes, kept, bits, low, *highs = frames
    nibbles, kept = np.stack([classes & 15, classes >> 4], 1).ravel(), _planes(kept, 4).astype(int)
    members = []  # (piece, rows of the cell, columns of the cell)
    counted = zip(stream["row_classes"], stream["column_classes"], strict=True)
    for piece, (sides, numbers) in enumerate(zip(shapes, counted, strict=True)):
        lines = []
        for size, count in zip(sides, numbers, strict=True):
            own, nibbles = (nibbles[:size], nibbles[size + size % 2 :]) if count > 1 else (np.zeros(size), nibbles)
            lines.append([np.flatnonzero(own == number) for number in range(count)])
        members += [(piece, rows, columns) for rows in lines[0] for columns in lines[1]]
    places, bands = [[np.zeros(0, int)] for _ in counts], [[] for _ in range(7)]
    for (piece, rows, columns), k in zip(members, kept.tolist(), strict=True):
        n, length = len(rows) * len(columns), (len(rows) * len(columns) // k).bit_length() if k else 0
        if length > 1:
            bands[min(length - 1, 6)].append((piece, rows, columns, k, max(0, length - 7)))
        elif k:
            flags = np.ones(n, bool) if k == n else np.unpackbits(bits[: (n + 7) // 8], bitorder="little")[:n]
            bits = bits if k == n else bits[(n + 7) // 8 :]
            places[piece].append((rows[:, None] * shapes[piece][1] + columns).ravel()[flags.astype(bool)])
    for band, high in zip(bands[1:], highs, strict=True):
        found = _gaps(high, low, [cell[3] for cell in band], [cell[4] for cell in band])
        for (piece, rows, columns, *_), at in zip(band, found, strict=True):
            places[piece].append(rows[at // len(columns)] * shapes[piece][1] + columns[at % len(columns)])
    return [np.sort(np.concatenate(parts)) for parts in places]


def _seeded(stream, first, shapes, counts):  # codecs/seeded.md: positions of each piece
    for start, (rows, columns), n in zip(first, shapes, counts, strict=True):
        drawn = np.random.Philox(key=stream["seed"]).random_raw(start + rows * columns)[start:] >> np.uint64(40)
        yield np.sort(np.argsort(-drawn.astype(int), kind="stable")[:n]) if n else np.zeros(0, int)


def _planes(data, width):  # byte 0 of all numbers, then byte 1, …
    return np.stack(np.split(data, width), axis=1).copy().view(f"<u{width}").ravel()


def _levels(stream, frames, counts):  # codecs/levels.md: magnitude of each entry
    units, steps, sizes = _planes(frames[1], 4).view("f4"), _planes(frames[2], 2).astype(int), []
    index = {w: iter(_unpack(frame, w)) for w, frame in zip((1, 2, 4, 8), frames[3:], strict=True)}
    for n, count in zip(counts, stream["counts"], strict=True):
        width = next(w for w in (0, 1, 2, 4, 8) if 2**w >= count)
        table, steps = np.cumsum(steps[:count]), steps[count:]
        unit, units = (units[0], units[1:]) if count else (0, units)
        own = np.array([next(index[width]) if width else 0 for _ in range(n)], int)
        sizes.append(table[own] * np.float64(unit) if n else np.zeros(0))
    return np.concatenate(sizes).astype("f4")


def _unpack(data, width):  # numbers of some bits, least significant first
    return np.stack([data >> s & (1 << width) - 1 for s in range(0, 8, width)], axis=1).ravel()


def _values(stream, frames, counts):  # codecs/exact.md, codecs/sign.md: value and correction (0: none) of each entry
    amounts = np.zeros(sum(counts), np.uint32)
    if stream["codec"] == "sign":
        sizes = np.repeat(np.array(stream["magnitudes"], np.float32), counts)
    elif stream["codec"] == "levels":
        sizes = _levels(stream, frames, counts)
    else:
        sizes = (_planes(np.concatenate(frames[1:5]), 4) + np.uint32(stream["bias"])).view("f4")
        zigzag = _planes(frames[6], 4)
        amounts[next(_gaps(frames[5], frames[6][:0], [stream["corrections"]], [0]))] = (zigzag >> 1) ^ -(zigzag & 1)
    return np.where(np.unpackbits(frames[0], count=len(sizes), bitorder="little"), -sizes, sizes), amounts.view("i4")


def read(path):
    """(manifest, {tensor: (shape, positions int64, values float32, corrections {index, amount int32})}) of a file."""
    data = {name: bytes(t["data"]) for name, t in safetensors.deserialize(np.fromfile(path, np.uint8).tobytes())}
    manifest, tensors = json.loads(decompress(data["__sparsetv__"])), {}
    files = [(kind, BytesIO(data.get(f"sparsetv.{kind}", b""))) for kind in ("positions", "values")]
    base, scope = manifest["base"], [i for first, count in manifest["scope"] for i in range(first, first + count)]
    kept, row = [[] for _ in scope], [0 for _ in scope]
    starts = np.cumsum([0, *(np.prod(base["shapes"][i], dtype=int) for i in scope)]).tolist()
    for block in manifest["blocks"]:
        raw = [[np.frombuffer(decompress(f.read(n)) if n else b"", "u1") for n in block[k]["frames"]] for k, f in files]
        short = isinstance(block["pieces"][0], int)  # [first, [nnz, ...]]: whole tensors
        pieces = [(t, 0, n) for t, n in enumerate(block["pieces"][1], block["pieces"][0])] if short else block["pieces"]
        counts = [n for _, _, n in pieces]
        parts = [np.split(part, np.cumsum(counts)[:-1]) for part in _values(block["values"], raw[1], counts)]
        sides = [base["shapes"][scope[t]] for t, _, _ in pieces]
        wide = [int(np.prod(side[1:] if len(side) > 1 else side, dtype=int)) for side in sides]
        tall = [rows or (side[0] if len(side) > 1 else 1) for (_, rows, _), side in zip(pieces, sides, strict=True)]
        shapes = list(zip(tall, wide, strict=True))
        first = [starts[t] + row[t] * c for (t, _, _), c in zip(pieces, wide, strict=True)]
        stream = block["positions"]
        places = {
            "gaps": lambda s=stream, f=raw[0], n=counts: _gaps(*f, n, s["shifts"]),
            "cells": lambda s=stream, f=raw[0], n=counts, a=shapes: _cells(s, f, a, n),
            "seeded": lambda s=stream, n=counts, a=shapes, i=first: _seeded(s, i, a, n),
        }[stream["codec"]]()
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
