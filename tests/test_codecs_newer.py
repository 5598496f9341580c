"""The codecs of version 1.1: every mask and every table comes back, and the writer takes what is smallest."""

import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from helpers import patterns
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sparsetv.container import cells, levels, positions, values
from sparsetv.container.grid import Axis, Grid, Place, choose_grid
from sparsetv.container.manifest import Block, Piece
from sparsetv.container.streams import Frames, make_stream
from sparsetv.csr import Corrections
from sparsetv.draws import drawn_positions, numbers, smallest_number
from sparsetv.errors import FormatError


@st.composite
def masks(draw: st.DrawFn) -> tuple[int, int, NDArray[np.int64]]:
    """(rows, columns, positions) of a mask that favours some rows and columns, or none."""
    rows, columns = draw(st.integers(1, 40)), draw(st.integers(1, 60))
    generator = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    style = draw(st.sampled_from(["even", "lines", "full", "empty"]))
    chance = {
        "even": np.full((rows, columns), draw(st.sampled_from([0.01, 0.2, 0.6, 0.95]))),
        "lines": np.minimum(np.outer(generator.exponential(size=rows), generator.exponential(size=columns)) * 0.3, 1),
        "full": np.ones((rows, columns)),
        "empty": np.zeros((rows, columns)),
    }[style]
    return rows, columns, np.flatnonzero(generator.random((rows, columns)).reshape(-1) < chance.reshape(-1))


def read_block(block: Block, places: list[Place], data: bytes) -> list[NDArray[np.int64]]:
    return positions.decode(block, places, memoryview(data))


def as_block(pieces: list[Piece], places: tuple[object, bytes], valued: tuple[object, bytes]) -> Block:
    return Block(tuple(pieces), places[0], valued[0])  # type: ignore[arg-type]


@given(st.lists(masks(), min_size=1, max_size=4))
def test_cells_round_trip_and_stay_within_their_bound(found: list[tuple[int, int, NDArray[np.int64]]]) -> None:
    places = [Place(0, rows, columns, len(kept)) for rows, columns, kept in found]
    pieces = [kept for _, _, kept in found]
    header, frames = cells.encode(pieces, cells.choose(pieces, places)[0])
    stream, data = make_stream("cells", frames, {})
    opened = Frames(stream, memoryview(data), count=10, what="positions")
    back = cells.decode(header, opened, places, what="positions")
    assert [piece.tolist() for piece in back] == [kept.tolist() for _, _, kept in found]


@given(masks(), st.data())
def test_any_grid_splits_and_joins(mask: tuple[int, int, NDArray[np.int64]], data: st.DataObject) -> None:
    """Addresses against a walk through the matrix (cells.md, clause 2)."""
    rows, columns, kept = mask
    axes = []
    for size in (rows, columns):
        count = data.draw(st.integers(1, 5))
        classes = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=size, max_size=size)), np.int64)
        axes.append(Axis(size, count, classes) if count > 1 else Axis(size))
    grid = Grid(*axes)
    split = grid.split(kept)
    row_class = [0] * rows if axes[0].classes is None else axes[0].classes.tolist()
    column_class = [0] * columns if axes[1].classes is None else axes[1].classes.tolist()
    expected: dict[tuple[int, int], list[int]] = {}
    wanted, sizes = set(kept.tolist()), []
    for a in range(axes[0].count):
        for b in range(axes[1].count):
            cell = [
                i * columns + j
                for i in range(rows)
                for j in range(columns)
                if (row_class[i], column_class[j]) == (a, b)
            ]
            expected[a, b] = [address for address, place in enumerate(cell) if place in wanted]
            sizes.append(len(cell))
    assert [piece.tolist() for piece in split] == list(expected.values())
    assert grid.sizes() == sizes
    assert grid.join(split).tolist() == kept.tolist()


def test_the_writer_sees_structure_and_takes_the_smaller_codec() -> None:
    generator = np.random.default_rng(0)
    lines = np.outer(generator.exponential(size=300) ** 3, generator.exponential(size=400) ** 3)
    structured = np.flatnonzero(generator.random(120_000) < np.minimum(lines.reshape(-1) * 0.004, 0.9))
    even = np.sort(generator.choice(120_000, len(structured), replace=False))
    sizes = {}
    for name, kept in (("structured", structured), ("even", even)):
        stream, data = positions.encode([kept], [Place(0, 300, 400, len(kept))], seed=None)
        sizes[name] = len(data)
        assert stream.codec == {"structured": "cells", "even": "gaps"}[name]
        assert read_block(Block((Piece(0, 0, 300, len(kept)),), stream, stream), [Place(0, 300, 400, len(kept))], data)[
            0
        ].tolist() == kept.tolist()  # fmt: skip
    assert sizes["structured"] < 0.8 * sizes["even"]


def test_positions_come_near_their_entropy() -> None:
    """Within 6 % of what the stated model says (cells.md, clause 7), with all that describes the cells."""
    generator = np.random.default_rng(1)
    pieces, places, model = [], [], 0.0
    for number in range(6):
        lines = np.outer(generator.exponential(size=768) ** 2, generator.exponential(size=768) ** 2)
        kept = np.flatnonzero(generator.random(768 * 768) < np.minimum(lines.reshape(-1) * 0.03, 0.95))
        grid = choose_grid(kept, rows=768, columns=768).grid
        model += sum(_choices(size, len(cell)) for size, cell in zip(grid.sizes(), grid.split(kept), strict=True))
        model += sum(_entropy(axis.sizes()) for axis in (grid.rows, grid.columns))
        pieces.append(kept)
        places.append(Place(number * 768**2, 768, 768, len(kept)))
    _, data = positions.encode(pieces, places, seed=None)
    assert 8 * len(data) < 1.06 * model


def _choices(size: int, kept: int) -> float:
    return (math.lgamma(size + 1) - math.lgamma(kept + 1) - math.lgamma(size - kept + 1)) / math.log(2)


def _entropy(counts: list[int]) -> float:
    return -sum(count * math.log2(count / sum(counts)) for count in counts if count)


@given(st.integers(0, 1 << 63), st.integers(0, 5000), st.integers(1, 3000))
def test_random_numbers_depend_on_nothing_but_seed_and_place(seed: int, start: int, count: int) -> None:
    whole = np.random.Philox(key=seed).random_raw(start + count) >> np.uint64(40)
    assert np.concatenate(list(numbers(seed, start, count))).tolist() == whole[start:].tolist()


@given(st.integers(0, 1000), st.integers(0, 500), st.integers(1, 400), st.data())
def test_seeded_positions_round_trip(seed: int, start: int, entries: int, data: st.DataObject) -> None:
    drawn = np.concatenate(list(numbers(seed, start, entries)))
    nnz = data.draw(st.integers(1, entries))
    kept = np.sort(np.argsort(-drawn.astype(np.int64), kind="stable")[:nnz])
    place = Place(start, 1, entries, nnz)
    stream, raw = positions.encode([kept], [place], seed=seed)
    assert (stream.codec, len(raw)) == ("seeded", 0)
    assert read_block(Block((Piece(0, 0, 1, nnz),), stream, stream), [place], raw)[0].tolist() == kept.tolist()
    least = smallest_number(seed, kept, start=start, entries=entries)
    assert least == drawn[kept].min()
    with pytest.raises(FormatError, match=f"seed {seed} keeps"):
        drawn_positions(seed, least=least + 1, start=start, entries=entries, nnz=nnz, what="positions")


def test_a_threshold_that_keeps_too_much_costs_no_memory_for_it() -> None:
    tracemalloc.start()
    with pytest.raises(FormatError, match="seed 1 keeps"):
        drawn_positions(1, least=0, start=0, entries=1 << 32, nnz=10, what="positions")
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()


def test_a_mask_that_the_seed_does_not_give_is_stored() -> None:
    kept = np.arange(0, 100, 7)
    stream, _ = positions.encode([kept], [Place(0, 10, 10, len(kept))], seed=3)
    assert stream.codec != "seeded"


@st.composite
def leveled(draw: st.DrawFn) -> list[list[float]]:
    """Pieces of few magnitudes that share a unit, with signs."""
    pieces = []
    for _ in range(draw(st.integers(1, 4))):
        unit = float(np.uint32(draw(patterns(largest=120)) & 0x7FFF_0000).view(np.float32))
        table = draw(st.lists(st.integers(0, 255), min_size=1, max_size=20))
        signs = st.sampled_from([1.0, -1.0])
        pieces.append(
            draw(st.lists(st.builds(lambda m, s, u=unit: s * m * u, st.sampled_from(table), signs), max_size=40))
        )
    return pieces


@given(leveled())
def test_levels_round_trip(pieces: list[list[float]]) -> None:
    arrays = [np.array(piece, np.float32) for piece in pieces]
    tables = [levels.table_of(piece) for piece in arrays]
    known = [table for table in tables if table is not None]
    assert len(known) == len(tables)
    counts, frames = levels.encode(arrays, known)
    stream, data = make_stream("levels", frames, {})
    opened = Frames(stream, memoryview(data), count=7, what="values")
    back = levels.decode(counts, [len(piece) for piece in arrays], opened, what="values")
    assert back.view(np.uint32).tolist() == np.concatenate(arrays).view(np.uint32).tolist()
    for piece, table in zip(arrays, known, strict=True):
        used = {Fraction(float(v)) for v in np.abs(piece).tolist() if v}
        assert [Fraction(float(table.unit)) * int(m) for m in table.multiples if m] == sorted(used)


@given(st.lists(patterns(), min_size=1, max_size=300))
def test_any_values_come_back_whatever_the_codec(found: list[int]) -> None:
    piece = np.array(found, np.uint32).view(np.float32)
    stream, data = values.encode([piece], [Corrections.none()])
    block = Block((Piece(0, 0, 1, len(piece)),), stream, stream)
    back, corrections = values.decode(block, memoryview(data))
    assert back.view(np.uint32).tolist() == found
    assert not len(corrections.index)


def test_values_take_the_smallest_codec() -> None:
    generator = np.random.default_rng(0)
    few = generator.choice(np.array([-3, -1, 1, 2], np.float32), 5000)
    many = generator.standard_normal(5000).astype(np.float32)
    found = [values.encode([piece], [Corrections.none()])[0].codec for piece in (few, many)]
    assert found == ["levels", "exact"]
    corrected = Corrections(np.array([3]), np.array([1], np.uint32))
    assert values.encode([few], [corrected])[0].codec == "exact"


@pytest.mark.parametrize("count", [257, 1000])
def test_too_many_magnitudes_have_no_table(count: int) -> None:
    assert levels.table_of(np.arange(count, dtype=np.float32)) is None
    assert levels.table_of(np.arange(256, dtype=np.float32)) is not None


def test_magnitudes_too_far_apart_have_no_table() -> None:
    assert levels.table_of(np.array([1e-20, 1.0], np.float32)) is None
    assert levels.table_of(np.array([65_535.0, 1.0], np.float32)) is not None
    assert levels.table_of(np.array([65_537.0, 1.0], np.float32)) is None
