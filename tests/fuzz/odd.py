"""Values at the edges of what a reader expects."""

from typing import Any

NUMBERS = (
    -1, 0, 1, 2, 7, 8, 61, 62, 63, 64, 127, 128, 254, 255, 256, 1000, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
    2**40, 2**48, 2**53, 2**61, 2**62 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**25, -(2**63), 0.0, -0.0, 0.5,
    1.0, -1.5, 1e-320, 1e300, 3.5e38,
)  # fmt: skip

WORDS = (
    "", "F32", "F16", "BF16", "F64", "I64", "U8", "BOOL", "F4", "C64", "gaps", "exact", "sign", "cells", "levels",
    "seeded", "tensor", "rows", "alias", "weights", "stored", "base", "sparsetv", "sparsetv-mask", "model.safetensors",
    "__sparsetv__", "__metadata__", "a/../b", "../x", "..", "/", "a/b", "nul", "\0", "\x1b[31m", "e\u0301", "\u202e",
    "\ud800", "x" * 600, "0" * 64, "x" * 300 + ".safetensors", "../x.safetensors", "2.0", "1.99999", "1.1",
)  # fmt: skip

JUNK: tuple[Any, ...] = (None, True, False, [], {}, [[]], {"": 0}, [0], [0, 0], [None], "0")

SPELLINGS = (
    b"1e999", b"-1e999", b"1.00", b"1e0", b"01", b"-0", b"NaN", b"Infinity", b"9" * 5000, b"0." + b"1" * 5000,
    b'"\\ud800"', b'"\\u0041"', b'"\\ud83d\\ude00"', b"[" * 3000 + b"]" * 3000, b'{"a":1,"a":1}', b" 1", b"tru",
)  # fmt: skip
"""JSON that no writer would write."""
