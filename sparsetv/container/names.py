"""Which names a file may carry (SPEC 6)."""

import re
import unicodedata

from sparsetv.container.limits import NAME_BYTES, NAME_CHARS, TENSOR_NAME_CHARS
from sparsetv.errors import FormatError

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_FORBIDDEN = re.compile(r'[/\\:*?"<>|]')
_NOT_CARRIED = (
    ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", ".ot", ".pkl", ".npz", ".stv",
    ".py",
)  # fmt: skip
_RESERVED = re.compile(r"(?i)^(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?$")


def check_tensor_name(name: str) -> str:
    """Return `name`, or raise FormatError where SPEC 6.1 forbids it."""
    if not 1 <= len(name) <= TENSOR_NAME_CHARS:
        raise FormatError(f"tensor name of {len(name)} characters; allowed are 1 to {TENSOR_NAME_CHARS}")
    if _CONTROL.search(name):
        raise FormatError(f"tensor name {name!r} holds control characters")
    if not unicodedata.is_normalized("NFC", name):
        raise FormatError(f"tensor name {name!r} is not in Unicode normal form C")
    return name


def check_component(name: str, *, what: str) -> str:
    """Return `name`, or raise FormatError where it is no portable path component (SPEC 6.2)."""
    if not 1 <= len(name) <= NAME_CHARS:
        raise FormatError(f"{what} of {len(name)} characters; allowed are 1 to {NAME_CHARS}")
    check_tensor_name(name)
    if len(name.encode()) > NAME_BYTES:
        raise FormatError(f"{what} of {len(name.encode())} bytes; allowed are {NAME_BYTES}")
    stem_dot = what == "task name" and name.startswith(".")
    if _FORBIDDEN.search(name) or name in {".", ".."} or stem_dot or name[-1] in " ." or name[0] == " ":
        raise FormatError(f"{what} {name!r} is not a portable path component")
    if _RESERVED.match(name):
        raise FormatError(f"{what} {name!r} is reserved on Windows; choose another")
    return name


def check_file_name(name: str) -> str:
    """Return the name of a carried file, or raise FormatError where it could be taken for weights, code or a record."""
    check_component(name, what="file name")
    folded = name.casefold()
    if folded in {"sparsetv", "sparsetv.json"} or folded.endswith((".index.json", *_NOT_CARRIED)):
        raise FormatError(f"file name {name!r} is one that no task may carry")
    return name
