"""Files whose frames break SPEC 5 or whose streams break a codec's page; every checksum above the break is right."""

from collections.abc import Iterator
from typing import Any

import zstandard

from golden_writer.blocks import Block, Plan, whole
from golden_writer.case import Case, always, broken, flip, framed, put, raw
from golden_writer.codecs import exact_from
from golden_writer.content import Content, Tensor, bits, digest
from golden_writer.frames import frame, reframe
from golden_writer.writer import Change, seal


def cases() -> Iterator[Case]:
    """All of them."""
    for part in (_frames, _manifest_frame, _frame_lists, _swaps, _gaps, _shifted, _values, _corrections, _signs):
        yield from part()


def _other_frames() -> Iterator[tuple[str, str, str, Change]]:
    """Ways to break a frame: name, what it breaks, what the error must say, how."""
    yield "size_unknown", "no content size", "content size", _unsized
    yield "no_checksum", "no content checksum", "no content checksum", lambda data: reframe(data, checksum=False)[:-4]
    yield "dictionary", "dictionary 7", "dictionary 7", lambda data: reframe(data, dictionary=b"\7")
    yield "window", "a window of 2^28 bytes", "window", lambda data: reframe(data, window=28)
    yield "bomb_declared", "a declared size of 2^40 bytes", "1099511627776", lambda data: reframe(data, size=2**40)
    yield "bomb_largest", "a declared size of 2^64 - 3 bytes", "bytes", lambda data: reframe(data, size=2**64 - 3)
    yield "concatenated", "a second frame behind the first", "damaged zstd frame", lambda data: data + frame(b"\1")
    yield "trailing", "a byte behind the frame", "damaged zstd frame", lambda data: data + b"\0"
    skippable = b"\x50\x2a\x4d\x18\0\0\0\0"
    yield "skippable_before", "a skippable frame before the frame", "frame", lambda data: skippable + data
    yield "cut_off", "the frame's last byte is missing", "damaged zstd frame", lambda data: data[:-1]
    yield "content_flip", "one bit of the content", "damaged zstd frame", lambda data: flip(data, -5)


def _unsized(data: bytes) -> bytes:
    content = zstandard.ZstdDecompressor().decompress(data)
    return zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).compress(content)


def _frames() -> Iterator[Case]:
    for name, breaks, match, change in _other_frames():
        yield Case(f"frame_{name}.stv", "5.1", breaks, match, broken("frames", framed("positions", 0, change)))
    longer = broken("frames", framed("values", 1, always(frame(bytes(7)))))
    yield Case("frame_size.stv", "5.2", "7 bytes where 6 entries need 6", "declares 7 bytes, expected 6", longer)
    bomb = broken("frames", framed("values", 1, always(frame(bytes(1 << 27), level=1))))
    yield Case("frame_bomb.stv", "5.2", "2^27 bytes where 6 are expected", "expected 6", bomb)
    understated = broken("frames", framed("values", 1, always(reframe(frame(bytes(1 << 20)), size=6))))
    yield Case("frame_understated.stv", "5.2", "2^20 bytes declared as 6", "damaged zstd frame", understated)
    overstated = broken("frames", framed("values", 1, always(reframe(frame(bytes(5)), size=6))))
    yield Case("frame_overstated.stv", "5.2", "5 bytes declared as 6", "frame", overstated)


def _manifest_frame() -> Iterator[Case]:
    for name, breaks, match, change in _other_frames():
        if name in {"size_unknown", "no_checksum", "dictionary", "window", "trailing"}:
            yield Case(f"manifest_frame_{name}.stv", "5.1", breaks, match, broken("manifest_frame", change))
    bomb = broken("manifest_frame", lambda data: reframe(data, size=2**40))
    yield Case("manifest_bomb.stv", "3.1", "a manifest of 2^40 bytes", "1099511627776 bytes, limit 67108864", bomb)


def _frame_lists() -> Iterator[Case]:
    def lengths(name: str, breaks: str, match: str, change: Any, kind: str = "values") -> Case:
        def apply(manifest: Any) -> None:
            manifest["blocks"][0][kind]["frames"] = change(manifest["blocks"][0][kind]["frames"])

        return Case(f"frames_{name}.stv", "4.3", breaks, match, broken("manifest", apply))

    yield lengths("one_more", "a frame too many", "has 7 frames, found 8", lambda frames: [*frames, 0])
    yield lengths("one_less", "a frame too few", "has 7 frames, found 6", lambda frames: [sum(frames[:2]), *frames[2:]])
    yield lengths(
        "past_stream",
        "the last frame passes the stream",
        "header is not the canonical one",
        lambda frames: [*frames[:-1], frames[-1] + 1],
    )
    yield lengths(
        "shifted",
        "the first frame takes a byte of the second",
        "damaged zstd frame",
        lambda frames: [frames[0] + 1, frames[1] - 1, *frames[2:]],
    )
    yield lengths(
        "huge", "a frame of 2^48 bytes", "header is not the canonical one", lambda frames: [2**48, *frames[1:]]
    )
    none = broken("frames", framed("values", 0, always(b"")))
    yield Case("frames_missing.stv", "4.3", "no frame of a stream that is not empty", "not a zstd frame|frame", none)
    nothing = zstandard.ZstdCompressor(write_checksum=True, write_content_size=True).compress(b"")
    empty = broken("frames", framed("positions", 1, always(nothing)))
    yield Case("frames_of_empty_stream.stv", "4.3", "a frame of an empty stream", "expected no frame", empty)


def _swaps() -> Iterator[Case]:
    kept = [{1: bits(1.0), 3: bits(2.0)}, {0: bits(1.5), 5: bits(2.5)}]
    content = Content([Tensor("a", "F32", [6], kept[0]), Tensor("b", "F32", [6], kept[1])])
    plans = [Plan([(0, 1)]), Plan([(1, 1)])]

    def swap(kind: str) -> Change:
        def change(blocks: list[Block]) -> None:
            first, second = (getattr(block, kind) for block in blocks)
            first.frames, second.frames = second.frames, first.frames

        return change

    for kind in ("positions", "values"):
        data = seal(content, plans=plans, changes={"frames": swap(kind)})
        breaks = f"two blocks' frames of {kind} are exchanged, each valid where it is"
        yield Case(f"swapped_{kind}.stv", "7.2", breaks, "content digest", data)
    flipped = broken("streams", raw("values", 1, lambda plane: flip(plane, 0)))
    yield Case("value_bit_flip.stv", "7.2", "one bit of a value before it was compressed", "content digest", flipped)
    moved = broken("streams", raw("positions", 0, lambda high: bytes([high[0] - 1]) + high[1:]))
    yield Case("position_moved.stv", "7.2", "all positions of a tensor moved by one", "content digest", moved)


def _gaps() -> Iterator[Case]:
    def high(
        name: str, breaks: str, match: str, change: Change, content: Content | None = None, **parameters: Any
    ) -> Case:
        data = broken("streams", raw("positions", 0, change, **parameters), content)
        return Case(f"gaps_{name}.stv", "gaps 4", breaks, match, data)

    sparse = Content([Tensor("w", "F32", [2000], {700: bits(1.0), 1500: bits(2.0)})])  # high: ff ff be, ff ff ff 22
    outside = "leaves a piece|outside a piece"
    yield high("past_piece", "the last gap passes the piece", outside, lambda data: data[:-1] + b"\xc8")
    yield high("sum_past_piece", "each gap fits, their sum does not", outside, always(b"\x06\x06\x06\x06\x00\x04"))
    yield high("count_less", "a gap is missing", "holds 5 gaps, expected 6", lambda data: data[:-1], high_size=5)
    yield high(
        "ends_inside", "the last byte is 255", "ends inside a gap", lambda data: data + b"\xff", sparse, high_size=8
    )
    yield high("high_size_wrong", "high_size is not the frame's", "expected 5", lambda data: data, high_size=5)
    too_large = "high_size 1000 is more"
    yield high(
        "high_size_large", "high_size passes its limit", too_large, lambda data: b"\xff" * 994 + data, high_size=1000
    )
    no_entries = Content([Tensor("w", "F32", [2000])])
    yield high(
        "without_entries", "bytes of no gap", "ends inside a gap|holds", always(b"\xff" * 3), no_entries, high_size=3
    )

    def parameter(name: str, breaks: str, match: str, path: str, value: Any) -> Case:
        data = broken("manifest", put(f"blocks.0.positions.{path}", value))
        return Case(f"gaps_{name}.stv", "gaps", breaks, match, data)

    shifts = "integers in 0…62"
    yield parameter("shift_63", "a shift of 63", shifts, "shifts.0", 63)
    yield parameter("shift_negative", "a shift of -1", shifts, "shifts.0", -1)
    yield parameter("shifts_too_few", "one shift, two pieces", shifts, "shifts", [0])
    yield parameter("shift_wrong", "a shift of 1 without low bits", "frame", "shifts.0", 1)
    yield parameter("foreign_parameter", "a parameter of another codec", "parameters", "bias", 0)


def _shifted() -> Iterator[Case]:
    content = Content([Tensor("w", "F32", [16], {0: bits(1.0), 1: bits(2.0)})])

    def shifted(name: str, breaks: str, match: str, shift: int, high: bytes, low: bytes, kept: list[int]) -> Case:
        def streams(blocks: Any) -> None:
            blocks[0].positions.raw = [high, low]

        values = content.tensors[0].kept.values()
        found = Content([Tensor("w", "F32", [16], dict(zip(kept, values, strict=True)))])
        changes = {"streams": streams, "manifest": put("digest", digest(found))}
        data = seal(content, plans=[whole(content, shifts=[shift])], changes=changes)
        return Case(f"gaps_{name}.stv", "gaps 4", breaks, match, data)

    outside = "leaves a piece|outside a piece|overflow"
    padding = "padding bits are not zero"
    yield shifted("padding", "a padding bit of the low bits is 1", padding, 3, b"\0\0", b"\x40", [0, 1])
    yield shifted("low_past_piece", "the low bits pass the piece", outside, 5, b"\0\0", b"\x1f\0", [31, 32])
    zero = bytes(16)
    # Whoever shifts 64-bit integers without a check finds the positions of `kept`, whose digest these files hold.
    yield shifted("shift_overflow", "4 << 62 wraps to 0", outside, 62, b"\4\0", zero, [0, 1])
    negative = "2 << 62 wraps to -2^63: two of them make a negative position, then 1"
    yield shifted("negative_position", negative, outside, 62, b"\2\2", zero, [-(2**63), 1])
    yield Case("gaps_sum_wraps.stv", "gaps 4", "five gaps of 2^62 - 2 wrap to 2^62 - 6", outside, _sum_that_wraps())
    far = "positions 2^57 and more in a piece of 16 entries"
    yield shifted("shift_far", far, outside, 57, b"\1\0", bytes(15), [2**57, 2**57 + 1])


def _sum_that_wraps() -> bytes:
    gap, entries = 2**62 - 2, 2**62 - 1
    kept = {(i + 1) * (gap + 1) - 1: bits(1.0) for i in range(5)}
    assert max(kept) % 2**64 == 2**62 - 6 < entries
    true = Content([Tensor("w", "F32", [entries], dict(zip(range(5), kept.values(), strict=True)))])
    wrapped = Content([Tensor("w", "F32", [entries], kept)])
    low = sum((gap & (2**60 - 1)) << (60 * i) for i in range(5)).to_bytes(38, "little")

    def streams(blocks: Any) -> None:
        blocks[0].positions.raw = [bytes([gap >> 60]) * 5, low]

    changes = {"streams": streams, "manifest": put("digest", digest(wrapped))}
    return seal(true, plans=[whole(true, shifts=[60])], changes=changes)


def _values() -> Iterator[Case]:
    for name, value in {"nan": 0x7FC00000, "infinity": 0x7F800000, "minus_infinity": 0xFF800000}.items():
        norms = {"tensors": {"l1": [1.0], "l2": [1.0]}}
        content = Content([Tensor("w", "F32", [4], {1: bits(1.0), 2: value})], changes=norms)
        yield Case(f"value_{name}.stv", "7.3", f"a value of {name}", "not finite", seal(content))

    def wraps(blocks: Any) -> None:
        parts = [b"\xff" * 6, b"\xff" * 6, b"\xff" * 6, b"\xff" * 6]
        blocks[0].values = exact_from([0] * 6, parts, 2, [], [])

    yield Case("value_offset_wraps.stv", "exact 1", "bias + offset passes 2^32", "not finite", broken("streams", wraps))

    def parameter(name: str, breaks: str, match: str, path: str, value: Any) -> Case:
        data = broken("manifest", put(f"blocks.0.values.{path}", value))
        return Case(f"exact_{name}.stv", "exact", breaks, match, data)

    yield parameter("bias_large", "a bias of 2^31", "bias 2147483648", "bias", 2**31)
    yield parameter("bias_negative", "a bias of -1", "parameters", "bias", -1)
    yield parameter("bias_null", "no bias", "parameters", "bias", None)
    yield parameter("foreign_parameter", "a parameter of another codec", "parameters", "shifts", [0])
    padding = broken("streams", raw("values", 0, lambda data: bytes([data[0] | 0x80])))
    yield Case("exact_padding.stv", "exact 1", "a padding bit of the signs is 1", "padding bits", padding)


def _corrections() -> Iterator[Case]:
    def corrected(name: str, breaks: str, match: str, index: list[int], amounts: list[int]) -> Case:
        def apply(blocks: Any) -> None:
            stream = exact_from([0] * 6, [], 0, index, amounts)
            blocks[0].values.raw[5:] = stream.raw[1:]
            blocks[0].values.parameters |= {key: stream.parameters[key] for key in ("corrections", "gap_size")}

        return Case(f"corrections_{name}.stv", "exact 2", breaks, match, broken("streams", apply))

    yield corrected("out_of_range", "entry 6 of 6", "leaves a piece|outside", [6], [1])
    yield corrected("last_out_of_range", "entries 1 and 6 of 6", "leaves a piece|outside", [1, 6], [1, 1])
    yield corrected("zero", "an amount of 0", "correction of 0", [1, 3], [2, 0])
    yield corrected("too_many", "7 corrections of 6 entries", "7 corrections", list(range(7)), [1] * 7)
    yield corrected("other_amount", "another amount", "content digest", [1, 3], [2, 1])
    cut = broken("streams", raw("values", 5, lambda data: b"\xff" + data[:1], gap_size=2))
    yield Case("corrections_gap_less.stv", "exact 2", "a gap is missing", "holds 1 gaps, expected 2", cut)
    none = broken("manifest", put("blocks.0.values.corrections", 0))
    yield Case("corrections_not_announced.stv", "exact 2", "two corrections, none announced", "frame|gaps", none)


def _signs() -> Iterator[Case]:
    kept = [{0: bits(0.5), 3: bits(-0.5)}, {1: bits(2.0)}]
    content = Content([Tensor("a", "F32", [9], kept[0]), Tensor("b", "F32", [4], kept[1])])

    def sign(name: str, breaks: str, match: str, layer: str, change: Change) -> Case:
        data = seal(content, plans=[whole(content, codec="sign")], changes={layer: change})
        return Case(f"sign_{name}.stv", "sign", breaks, match, data)

    def magnitudes(name: str, breaks: str, match: str, value: Any) -> Case:
        return sign(name, breaks, match, "manifest", put("blocks.0.values.magnitudes", value))

    yield magnitudes("negative", "a negative magnitude", "finite number >= 0", [-0.5, 2.0])
    yield magnitudes("not_float32", "0.1 is no float32", "not a float32 number", [0.1, 2.0])
    yield magnitudes("too_large", "1e39 is no float32", "not a float32 number", [1e39, 2.0])
    yield magnitudes("too_few", "one magnitude, two pieces", "1 magnitudes for 2 pieces", [0.5])
    yield magnitudes("other", "another magnitude", "content digest", [1.0, 2.0])
    padding = raw("values", 0, lambda data: bytes([data[0] | 0x80]))
    yield sign("padding", "a padding bit is 1", "padding bits", "streams", padding)
    foreign = put("blocks.0.values.bias", 0)
    yield sign("foreign_parameter", "a parameter of another codec", "parameter", "manifest", foreign)
