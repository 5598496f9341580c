"""A second reader of mask files, from MASK.md alone: it shares no code with sparsetv, and trusts what it reads."""

import json
import sys
from pathlib import Path

import numpy as np


def read(path, scope=None):
    """{tensor: kept positions, int64} of the tensors of a scope, of all in the file where none is given."""
    data = Path(path).read_bytes()
    payload = 8 + int.from_bytes(data[:8], "little")
    entries = json.loads(data[8:payload])
    del entries["__metadata__"]
    found = dict.fromkeys(entries if scope is None else scope, np.zeros(0, np.int64))
    for name in found.keys() & entries.keys():
        start, stop = entries[name]["data_offsets"]
        stored = data[payload + start : payload + stop]
        is_boolean = entries[name]["dtype"] == "BOOL"
        found[name] = np.flatnonzero(np.frombuffer(stored, "u1")) if is_boolean else np.frombuffer(stored, "<i8")
    return found


if __name__ == "__main__":
    for name, kept in sorted(read(sys.argv[1]).items()):
        print(name, len(kept), "kept")
