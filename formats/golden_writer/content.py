"""What a golden file holds, as plain values, and its identity (SPEC 7); shares no code with sparsetv."""

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from typing import Any

SIZES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip


@dataclass
class Tensor:
    """A tensor of the base: value bits by position, amounts by index of the kept entry."""

    name: str
    dtype: str = "F32"
    shape: list[int] = field(default_factory=list)
    kept: dict[int, int] = field(default_factory=dict)
    corrections: dict[int, int] = field(default_factory=dict)
    scope: bool = True


@dataclass
class Extra:
    """A carried tensor; `data` is empty for an alias."""

    name: str
    kind: str
    dtype: str
    shape: list[int]
    data: bytes = b""
    source: str = ""


@dataclass
class Content:
    """A whole task; `changes` overrides keys of the manifest, such as `finetuned`."""

    tensors: list[Tensor]
    extras: list[Extra] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    probe: list[list[float]] | None = None
    prefix: tuple[str, str] = ("", "")
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def scope(self) -> list[Tensor]:
        """Tensors of the scope in order."""
        return [tensor for tensor in self.tensors if tensor.scope]


def bits(number: float) -> int:
    """The bits of a number as float32."""
    return int(struct.unpack("<I", struct.pack("<f", number))[0])


def number(value_bits: int) -> float:
    """The float32 number of some bits, exactly."""
    return float(struct.unpack("<f", struct.pack("<I", value_bits))[0])


def sha256(data: bytes) -> str:
    """SHA-256 as hex."""
    return hashlib.sha256(data).hexdigest()


def base_hash(tensor: Tensor) -> bytes:
    """Hash of a tensor of the base (SPEC 7.1). There is no base, so these 32 bytes are made up."""
    return hashlib.sha256(f"base {tensor.name}".encode()).digest()


def list_digest(tensors: Iterable[Tensor]) -> str:
    """Digest of a list of tensors (SPEC 7.1)."""
    parts = [
        f"{tensor.name}\0{tensor.dtype}\0{','.join(map(str, tensor.shape))}\0".encode() + base_hash(tensor)
        for tensor in tensors
    ]
    return sha256(b"".join(parts))


def touched(content: Content) -> str:
    """Digest of the base over the tensors that keep an entry (SPEC 3.4)."""
    return list_digest(tensor for tensor in content.scope if tensor.kept)


def digest(content: Content) -> str:
    """The task's identity (SPEC 7.2). Positions are taken mod 2^64, so that impossible ones have a digest, too."""
    parts = [_text("sparsetv task 1"), _text(touched(content)), *map(_text, content.prefix)]
    for tensor in content.scope:
        parts += [_text(tensor.name), _text(tensor.dtype), _numbers(len(tensor.shape), *tensor.shape, len(tensor.kept))]
        parts += [_numbers(*tensor.kept), struct.pack(f"<{len(tensor.kept)}I", *tensor.kept.values())]
        amounts = [amount % 2**32 for amount in tensor.corrections.values()]
        parts += [_numbers(len(amounts), *tensor.corrections), struct.pack(f"<{len(amounts)}I", *amounts)]
    parts.append(_numbers(len(content.extras)))
    for extra in content.extras:
        parts += [_text(text) for text in (extra.name, extra.kind, extra.source, extra.dtype)]
        parts.append(_numbers(len(extra.shape), *extra.shape))
        parts.append(bytes(32) if extra.kind == "alias" else hashlib.sha256(extra.data).digest())
    parts.append(_numbers(len(content.files)))
    for name, data in content.files.items():
        parts += [_text(name), hashlib.sha256(data).digest()]
    return sha256(b"".join(parts))


def _numbers(*numbers: int) -> bytes:
    return b"".join((number % 2**64).to_bytes(8, "little") for number in numbers)


def _text(text: str) -> bytes:
    data = text.encode()
    return _numbers(len(data)) + data


def expected(content: Content) -> dict[str, Any]:
    """The decoded content as JSON: what any reader must find in the file."""
    return {
        "digest": digest(content),
        "entries": sum(prod(tensor.shape) for tensor in content.scope),
        "tensors": {tensor.name: _expected_tensor(tensor) for tensor in content.scope},
        "extras": {extra.name: _expected_extra(extra) for extra in content.extras},
        "files": {name: data.hex() for name, data in content.files.items()},
        "probe": content.probe and [[f"{bits(output):08x}" for output in row] for row in content.probe],
    }


def _expected_tensor(tensor: Tensor) -> dict[str, Any]:
    return {
        "dtype": tensor.dtype,
        "shape": tensor.shape,
        "positions": list(tensor.kept),
        "values": [f"{value:08x}" for value in tensor.kept.values()],
        "corrections": [list(pair) for pair in tensor.corrections.items()],
    }


def _expected_extra(extra: Extra) -> dict[str, Any]:
    return {
        "kind": extra.kind,
        "dtype": extra.dtype,
        "shape": extra.shape,
        "source": extra.source,
        "data": extra.data.hex(),
    }
