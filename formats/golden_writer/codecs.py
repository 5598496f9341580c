"""The codecs of formats/codecs, one number at a time; shares no code with sparsetv."""

from dataclasses import dataclass, field
from typing import Any

from golden_writer.content import number


@dataclass
class Stream:
    """One stream of one block: raw bytes, then frames made of them."""

    codec: str
    raw: list[bytes]
    parameters: dict[str, Any]
    frames: list[bytes] = field(default_factory=list)


@dataclass
class Cut:
    """The kept entries of one piece."""

    tensor: int
    rows: int
    entries: int
    positions: list[int]
    values: list[int]
    corrections: dict[int, int]


def gap_stream(cuts: list[Cut], shifts: list[int]) -> Stream:
    """Codec `gaps`."""
    high, low = b"", b""
    for cut, shift in zip(cuts, shifts, strict=True):
        gaps = gaps_of(cut.positions)
        high += b"".join(escaped(gap >> shift) for gap in gaps)
        packed = sum((gap & ((1 << shift) - 1)) << (shift * i) for i, gap in enumerate(gaps))
        low += packed.to_bytes((shift * len(gaps) + 7) // 8, "little")
    return Stream("gaps", [high, low], {"shifts": shifts, "high_size": len(high)})


def gaps_of(positions: list[int]) -> list[int]:
    """Gap before each position."""
    return [position - previous - 1 for previous, position in zip([-1, *positions], positions, strict=False)]


def escaped(high: int) -> bytes:
    """A number as bytes of 255 and one byte below."""
    return b"\xff" * (high // 255) + bytes([high % 255])


def exact_stream(cuts: list[Cut]) -> Stream:
    """Codec `exact`."""
    values = [value for cut in cuts for value in cut.values]
    magnitudes = [value & 0x7FFFFFFF for value in values]
    bias = min(magnitudes, default=0)
    planes = [bytes((magnitude - bias) >> 8 * j & 255 for magnitude in magnitudes) for j in range(4)]
    starts = [sum(len(cut.values) for cut in cuts[:i]) for i in range(len(cuts))]
    corrections = {s + i: a for s, cut in zip(starts, cuts, strict=True) for i, a in cut.corrections.items()}
    return exact_from(values, planes, bias, list(corrections), list(corrections.values()))


def exact_from(values: list[int], planes: list[bytes], bias: int, index: list[int], amounts: list[int]) -> Stream:
    """Codec `exact` from its parts."""
    gap_bytes = b"".join(escaped(gap) for gap in gaps_of(index))
    zigzag = [((amount << 1) ^ (amount >> 31)) & 0xFFFFFFFF for amount in amounts]
    amount_planes = b"".join(bytes(z >> 8 * j & 255 for z in zigzag) for j in range(4))
    parameters = {"bias": bias, "corrections": len(index), "gap_size": len(gap_bytes)}
    return Stream("exact", [signs(values), *planes, gap_bytes, amount_planes], parameters)


def sign_stream(cuts: list[Cut]) -> Stream:
    """Codec `sign`; all values of a piece have one magnitude."""
    magnitudes = [number(cut.values[0] & 0x7FFFFFFF) if cut.values else 0.0 for cut in cuts]
    return Stream("sign", [signs([value for cut in cuts for value in cut.values])], {"magnitudes": magnitudes})


def signs(values: list[int]) -> bytes:
    """Top bits, least significant bit first."""
    return sum((value >> 31) << i for i, value in enumerate(values)).to_bytes((len(values) + 7) // 8, "little")
