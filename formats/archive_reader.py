"""A second reader of archives, from ARCHIVE.md alone: it shares no code with sparsetv, and trusts what it reads."""

import json
import sys
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
import safetensors
from zstandard import decompress

CHUNK_ELEMENTS = 262_144
SIZES = {
    **dict.fromkeys(["BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"], 1),
    **dict.fromkeys(["U16", "I16", "F16", "BF16"], 2),
    **dict.fromkeys(["U32", "I32", "F32", "C64"], 4),  # a complex number is two elements
    **dict.fromkeys(["U64", "I64", "F64"], 8),
}
EXPONENTS = {  # bits below the exponent field, and its largest value
    "F64": (52, 2047), "F32": (23, 255), "C64": (23, 255), "BF16": (7, 255), "F16": (10, 31), "F8_E4M3": (3, 15),
    "F8_E5M2": (2, 31),
}  # fmt: skip


def _number(file, size):
    return int.from_bytes(file.read(size), "little")


def _stream(file, length):  # 4.4
    stored = file.read(_number(file, 4)) if length else b""
    return np.frombuffer(stored if len(stored) == length else decompress(stored), "u1")


def _planes(file, count, width):  # 4.3
    return np.stack([_stream(file, count) for _ in range(width)], axis=1).view(f"<u{width}").ravel()


def _code(file, count, width):  # 6.1
    kind = np.dtype(f"<u{width}").type
    if not count:
        return np.zeros(0, kind)
    shift, rest = _number(file, 1), np.zeros(count, kind)
    numbers = _stream(file, count).astype(kind)
    if shift % 8:
        packed = _stream(file, (count + 1) // 2)
        rest |= np.stack([packed & 15, packed >> 4], axis=1).ravel()[:count].astype(kind) << kind(shift - 4)
    for plane in range(shift // 8):
        rest |= _stream(file, count).astype(kind) << kind(8 * plane)
    if shift < 8 * width - 8:
        escaped = np.flatnonzero(numbers == 255)
        numbers[escaped] += _planes(file, len(escaped), width)
    return numbers << kind(shift) | rest


def _rank(elements, dtype):  # 5.2; its own inverse
    signed = elements.view(f"<i{elements.itemsize}")
    if dtype not in EXPONENTS:
        return signed
    return np.where(signed < 0, signed ^ np.iinfo(signed.dtype).max, signed)


def _moved(base, numbers, dtype):  # 5.3
    signed = f"<i{base.itemsize}"
    ranks = _rank(base, dtype) + ((numbers >> 1).view(signed) ^ -(numbers & 1).view(signed))
    return _rank(ranks, dtype).view(base.dtype)


def _classes(base, dtype, top):  # 5.4: elements of each class, in order
    if top == 65_535:
        return [np.arange(len(base))]
    low, largest = EXPONENTS[dtype]
    fields = (base >> base.dtype.type(low) & base.dtype.type(largest)).astype(int)
    order = np.argsort(fields, kind="stable")
    number = np.clip(fields[order] - (top - 7), 0, 7)
    return [order[number == own] for own in range(8)]


def _sparse(file, classes):  # 4.3: the changed elements, class after class
    pieces = [(_number(file, 4), _number(file, 1)) for _ in classes]
    high = _stream(file, _number(file, 4))
    low = _stream(file, sum((nnz * shift + 7) // 8 for nnz, shift in pieces))
    gaps, changed = np.add.reduceat(high, _starts(high), dtype=int) if len(high) else high, []
    for (nnz, shift), own in zip(pieces, classes, strict=True):
        size = (nnz * shift + 7) // 8
        lows = np.unpackbits(low[:size], bitorder="little")[: nnz * shift].reshape(nnz, shift) @ (1 << np.arange(shift))
        changed.append(own[np.cumsum((gaps[:nnz].astype(int) << shift) + lows.astype(int) + 1) - 1])
        gaps, low = gaps[nnz:], low[size:]
    return np.concatenate(changed)


def _starts(high):  # codecs/gaps.md: where the bytes of each gap begin
    return np.append(0, np.flatnonzero(high != 255)[:-1] + 1)


def _chunk(data, base, count, dtype):  # 4.2
    if not data:
        return base
    file, width = BytesIO(data), SIZES[dtype]
    mode = _number(file, 1)
    if mode == 1:
        return np.frombuffer(file.read(), f"<u{width}")
    if mode < 4:
        planes = _planes(file, count, width)
        return planes if mode == 2 else planes ^ base
    classes = _classes(base, dtype, _number(file, 2))
    if mode == 4:
        places = np.concatenate(classes)
        numbers = np.concatenate([_code(file, len(own), width) for own in classes])
    else:
        places = _sparse(file, classes)
        numbers = _code(file, len(places), width)
    found = base.copy()
    found[places] = _moved(base[places], numbers, dtype)
    return found


def _tensors(header):  # SPEC 1.1: name, dtype and offsets of each tensor, by offset
    entries = [(name, entry) for name, entry in json.loads(header[8:]).items() if name != "__metadata__"]
    for name, entry in sorted(entries, key=lambda pair: pair[1]["data_offsets"]):
        yield name, entry["dtype"], entry["data_offsets"]


def _weights(file, data, base):  # 3.3 and 4.1
    parts = [decompress(data.read(file["header"][1]))]
    for (_, dtype, (start, stop)), tensor in zip(_tensors(parts[0]), file["tensors"], strict=True):
        total = (stop - start) // SIZES[dtype]
        known = np.frombuffer(b"" if tensor["base"] is None else base[tensor["base"]], f"<u{SIZES[dtype]}")[:total]
        cuts = [range(0, len(known), CHUNK_ELEMENTS), range(len(known), total, CHUNK_ELEMENTS)]
        ends = [first + min(CHUNK_ELEMENTS, own.stop - first) for own in cuts for first in own]
        for size, first, end in zip(tensor["chunks"], [*cuts[0], *cuts[1]], ends, strict=True):
            parts.append(_chunk(data.read(size), known[first:end], end - first, dtype).tobytes())
    return b"".join(parts)


def _base(directory):  # bytes of every tensor of the base by name
    for path in Path(directory).glob("*.safetensors"):
        content = path.read_bytes()
        payload = 8 + int.from_bytes(content[:8], "little")
        for name, _, (start, stop) in _tensors(content[:payload]):
            yield name, content[payload + start : payload + stop]


def read(path, base):
    """{file name: bytes} of an archive, from the directory of its base; sizes and hashes are compared (7.1)."""
    stored = {name: bytes(tensor["data"]) for name, tensor in safetensors.deserialize(Path(path).read_bytes())}
    manifest, data, found = json.loads(decompress(stored["__sparsetv__"])), BytesIO(stored["sparsetv.data"]), {}
    names, known = manifest["base"]["names"], dict(_base(base))
    for file in manifest["files"]:
        if file["kind"] == "weights":
            content = _weights(file, data, [known[name] for name in names])
        elif file["kind"] == "stored":
            content = decompress(data.read(file["stored"])) if file["size"] else b""
        else:
            content = Path(base, file["name"]).read_bytes()
        if (len(content), sha256(content).hexdigest()) != (file["size"], file["sha256"]):
            raise ValueError(f"{file['name']} is not the file that was archived")
        found[file["name"]] = content
    return found


if __name__ == "__main__":
    for name, content in read(sys.argv[1], sys.argv[2]).items():
        print(name, len(content), "bytes")
