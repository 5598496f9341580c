"""Changes to a safetensors file, the length of its header repaired."""

import json
import random

from hostile import framed

from fuzz.byte_changes import scramble
from fuzz.json_changes import change, parsed, respell


def change_tensors_file(source: random.Random, data: bytes) -> bytes:
    """The header's values, their spelling, or the payload changed."""
    kind = source.randrange(8)
    if kind == 0 or len(data) < 8:
        return scramble(source, data)
    size = 8 + int.from_bytes(data[:8], "little")
    header, payload = data[8:size], data[size:]
    if kind == 1:
        return framed(respell(source, header), payload)
    if kind in (2, 3):
        return framed(header, scramble(source, payload))
    value = parsed(header)
    if value is None:
        return framed(scramble(source, header), payload)
    for _ in range(source.choice([1, 1, 2, 3])):
        change(source, value)
    return framed(_text(value), payload)


def _text(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
