"""The codecs that came with version 1.1, one number at a time; shares no code with sparsetv."""

from dataclasses import dataclass

from golden_writer.codecs import Cut, Stream, escaped, gaps_of, signs
from golden_writer.content import bits, number

_WORD = 2**64 - 1


@dataclass
class Classes:
    """Class of each row and of each column of a piece; empty where all have class 0."""

    rows: list[int]
    columns: list[int]


def cell_stream(cuts: list[Cut], classes: list[Classes]) -> Stream:
    """Codec `cells`."""
    nibbles, counts, flags, low, high = b"", [], b"", b"", [b""] * 6
    for cut, own in zip(cuts, classes, strict=True):
        nibbles += _nibbles(own.rows) + _nibbles(own.columns)
        for size, addresses in _cells(cut, own):
            counts.append(len(addresses))
            if not addresses:
                continue
            length = (size // len(addresses)).bit_length()
            if length == 1:
                if len(addresses) < size:
                    flags += sum(1 << address for address in addresses).to_bytes((size + 7) // 8, "little")
                continue
            band, shift = min(length - 1, 6), max(0, length - 7)
            gaps = gaps_of(addresses)
            high[band - 1] += b"".join(escaped(gap >> shift) for gap in gaps)
            packed = sum((gap & ((1 << shift) - 1)) << (shift * i) for i, gap in enumerate(gaps))
            low += packed.to_bytes((shift * len(gaps) + 7) // 8, "little")
    parameters = {
        "row_classes": [max(own.rows, default=0) + 1 for own in classes],
        "column_classes": [max(own.columns, default=0) + 1 for own in classes],
        "high_sizes": [len(part) for part in high],
    }
    return Stream("cells", [nibbles, _planes(counts, 4), flags, low, *high], parameters)


def _cells(cut: Cut, own: Classes) -> list[tuple[int, list[int]]]:
    """(entries, addresses of kept entries) per cell of a piece."""
    columns = cut.entries // max(cut.rows, 1)
    row_class = own.rows or [0] * cut.rows
    column_class = own.columns or [0] * columns
    kept = set(cut.positions)
    found = []
    for a in range(max(row_class, default=0) + 1):
        for b in range(max(column_class, default=0) + 1):
            entries = [
                i * columns + j
                for i in range(cut.rows) if row_class[i] == a
                for j in range(columns) if column_class[j] == b
            ]  # fmt: skip
            found.append((len(entries), [n for n, entry in enumerate(entries) if entry in kept]))
    return found


def _nibbles(classes: list[int]) -> bytes:
    return sum(number << 4 * i for i, number in enumerate(classes)).to_bytes((len(classes) + 1) // 2, "little")


def _planes(numbers: list[int], width: int) -> bytes:
    return b"".join(bytes(n >> 8 * j & 255 for n in numbers) for j in range(width))


def level_stream(cuts: list[Cut], units: list[float]) -> Stream:
    """Codec `levels`, with a given unit per piece that keeps entries."""
    counts, unit_bits, steps = [], [], []
    index: dict[int, list[int]] = {1: [], 2: [], 4: [], 8: []}
    given = iter(units)
    for cut in cuts:
        magnitudes = sorted({number(value & 0x7FFFFFFF) for value in cut.values})
        counts.append(len(magnitudes))
        if not magnitudes:
            continue
        unit = next(given)
        unit_bits.append(bits(unit))
        multiples = [int(magnitude / unit) for magnitude in magnitudes]
        assert [unit * multiple for multiple in multiples] == magnitudes
        steps += [multiple - before for before, multiple in zip([0, *multiples], multiples, strict=False)]
        width = next(width for width in (0, 1, 2, 4, 8) if 2**width >= len(magnitudes))
        if width:
            index[width] += [magnitudes.index(number(value & 0x7FFFFFFF)) for value in cut.values]
    packed = [
        sum(at << width * i for i, at in enumerate(own)).to_bytes((width * len(own) + 7) // 8, "little")
        for width, own in index.items()
    ]
    all_signs = signs([value for cut in cuts for value in cut.values])
    return Stream("levels", [all_signs, _planes(unit_bits, 4), _planes(steps, 2), *packed], {"counts": counts})


def seeded_stream(cuts: list[Cut], seed: int, least: list[int]) -> Stream:
    """Codec `seeded`; `draw` tells which positions that keeps."""
    return Stream("seeded", [], {"seed": seed, "least": least if len(least) == len(cuts) else least * len(cuts)})


def draw(seed: int, count: int) -> list[int]:
    """Random numbers of the first `count` entries of the scope (codecs/seeded.md, clause 1)."""
    words = [word for block in range(1, count // 4 + 2) for word in philox([block, 0, 0, 0], [seed, 0])]
    return [word >> 40 for word in words[:count]]


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox-4x64 with 10 rounds."""
    for _ in range(10):
        first, second = counter[0] * 0xD2E7470EE14C6C93, counter[2] * 0xCA5A826395121157
        counter = [
            (second >> 64) ^ counter[1] ^ key[0], second & _WORD,
            (first >> 64) ^ counter[3] ^ key[1], first & _WORD,
        ]  # fmt: skip
        key = [(key[0] + 0x9E3779B97F4A7C15) & _WORD, (key[1] + 0xBB67AE8584CAA73B) & _WORD]
    return counter
