"""Conversions between dtypes against torch, over every 16-bit pattern and the hard float32 ones."""

import itertools
import struct
from typing import Any

import numpy as np
import pytest
import torch
from helpers import SPECIAL, TORCH, bits, floats
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sparsetv.dtypes import SIZES, WEIGHT_DTYPES, bits_dtype, cast, from_float32, from_ordinals, ordinals, to_float32

ALL_16 = np.arange(1 << 16, dtype=np.uint16)
SHORT = ["BF16", "F16"]


def as_torch(patterns: NDArray[np.uint16], dtype: str) -> torch.Tensor:
    return torch.from_numpy(patterns.view(np.int16).copy()).view(TORCH[dtype])


def hard_float32() -> NDArray[np.uint32]:
    """Random patterns, every exponent, both 16-bit dtypes' ties and their neighbours, NaNs and infinities."""
    generator = np.random.default_rng(0)
    random = generator.integers(0, 1 << 32, 200_000, dtype=np.uint32)
    narrow = (generator.integers(0, 1 << 16, 50_000, dtype=np.uint32) << 16) + generator.choice(
        np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32), 50_000
    )
    halves = torch.arange(1 << 15, dtype=torch.int16).view(torch.float16).float()
    halves = halves[torch.isfinite(halves)]
    between = ((halves[:-1].double() + halves[1:].double()) / 2).float()  # exact: 12 significant bits
    ties = np.concatenate([bits(between), bits(between) + 1, bits(between) - 1]).view(np.uint32)
    edges = np.array([65504.0, 65519.996, 65520.0, 65536.0, 3.3895e38, 3.3961776e38, 3.4028235e38], np.float32)
    special = np.array([0x7F80_0000, 0x7FC0_0000, 0x7F80_0001, 0x7FFF_FFFF, 0xFFFF_FFFF, 0xFF80_0001], np.uint32)
    positive = np.concatenate([random, narrow, ties, edges.view(np.uint32), special, np.array(SPECIAL, np.uint32)])
    return np.concatenate([positive, positive ^ np.uint32(1 << 31)])


@pytest.mark.parametrize("dtype", SHORT)
def test_widening_is_exact_for_every_pattern(dtype: str) -> None:
    wide = to_float32(ALL_16, dtype)
    wanted = as_torch(ALL_16, dtype).float().numpy()
    number = ~np.isnan(wanted)
    assert wide.dtype == np.float32
    np.testing.assert_array_equal(wide.view(np.uint32)[number], wanted.view(np.uint32)[number])
    assert np.isnan(wide[~number]).all()
    assert int((~number).sum()) == {"BF16": 2 * 127, "F16": 2 * 1023}[dtype]


@pytest.mark.parametrize("dtype", SHORT)
def test_widening_and_rounding_give_every_pattern_back(dtype: str) -> None:
    number = ~np.isnan(as_torch(ALL_16, dtype).float().numpy())
    back = from_float32(to_float32(ALL_16, dtype), dtype)
    np.testing.assert_array_equal(back[number], ALL_16[number])
    assert torch.isnan(as_torch(back[~number], dtype).float()).all()


@pytest.mark.parametrize("dtype", SHORT)
def test_rounding_is_torchs(dtype: str) -> None:
    patterns = hard_float32()
    wanted = torch.from_numpy(patterns.view(np.float32).copy()).to(TORCH[dtype])
    found = from_float32(patterns.view(np.float32), dtype)
    assert found.dtype == np.uint16
    nan = torch.isnan(wanted.float()).numpy()
    np.testing.assert_array_equal(found[~nan], bits(wanted).view(np.uint16)[~nan])
    assert torch.isnan(as_torch(found[nan], dtype).float()).all()
    assert 1000 < int(nan.sum()) < len(nan) / 10


def test_float32_passes_through_bit_for_bit() -> None:
    patterns = hard_float32()
    np.testing.assert_array_equal(from_float32(to_float32(patterns, "F32"), "F32"), patterns)


@pytest.mark.parametrize(("source", "target"), list(itertools.product(WEIGHT_DTYPES, WEIGHT_DTYPES)))
def test_casting_is_torchs(source: str, target: str) -> None:
    patterns: NDArray[Any] = hard_float32() if source == "F32" else ALL_16
    values = floats(patterns.tolist()) if source == "F32" else as_torch(patterns, source)
    wanted = values.to(TORCH[target])
    nan = torch.isnan(wanted.float()).numpy()
    found = cast(patterns, source, target)
    width = bits_dtype(target)
    np.testing.assert_array_equal(found[~nan], bits(wanted).view(width)[~nan])
    assert np.isnan(to_float32(found[nan], target)).all()


@pytest.mark.parametrize("dtype", SHORT)
def test_ordinals_count_the_numbers_in_order(dtype: str) -> None:
    """Sort all finite patterns by value, -0 before +0: neighbours differ by one, +0 is 0."""
    values = as_torch(ALL_16, dtype).double().numpy()
    finite = ALL_16[np.isfinite(values)]
    order = sorted(finite.tolist(), key=lambda p: (values[p], 0 if p == 0x8000 else 1))
    zero = order.index(0)
    ranks = ordinals(np.array(order, np.uint16))
    assert ranks.dtype == np.int32
    assert ranks.tolist() == list(range(-zero, len(order) - zero))


@pytest.mark.parametrize("dtype", WEIGHT_DTYPES)
def test_ordinals_come_back(dtype: str) -> None:
    patterns: NDArray[Any] = hard_float32() if dtype == "F32" else ALL_16
    back = from_ordinals(ordinals(patterns), dtype)
    assert back.dtype == bits_dtype(dtype)
    np.testing.assert_array_equal(back, patterns)


@given(st.floats(width=32, allow_nan=False), st.floats(width=32, allow_nan=False))
def test_ordinals_order_float32(first: float, second: float) -> None:
    ranks = ordinals(np.array([first, second], np.float32).view(np.uint32)).tolist()
    if first != second:
        assert (ranks[0] < ranks[1]) == (first < second)
    else:
        assert abs(ranks[0] - ranks[1]) == (struct.pack("<f", first) != struct.pack("<f", second))


@given(st.integers(0, (1 << 32) - 1))
def test_ordinals_follow_the_specification(pattern: int) -> None:
    """codecs/exact.md, clause 3: x where the sign bit is clear, -(x - 2^(w-1)) - 1 where it is set."""
    for width, dtype in [(32, np.uint32), (16, np.uint16)]:
        x = pattern % (1 << width)
        wanted = x if x < 1 << (width - 1) else -(x - (1 << (width - 1))) - 1
        assert ordinals(np.array([x], dtype)).tolist() == [wanted]


def test_neighbours_in_float32() -> None:
    numbers = np.array([0.0, 1.0, -1.0, 1e-45, 3e38], np.float32)
    above = np.nextafter(numbers, np.float32(np.inf))
    steps = ordinals(above.view(np.uint32)) - ordinals(numbers.view(np.uint32))
    assert steps.tolist() == [1] * 5


def test_ranks_beyond_a_dtype_wrap() -> None:
    assert from_ordinals(np.array([0x8000, -0x8001], np.int32), "BF16").tolist() == [0xFFFF, 0x7FFF]


@pytest.mark.parametrize("name", sorted(SIZES))
def test_sizes_are_the_safetensors_librarys(name: str) -> None:
    from safetensors.torch import save

    kinds = {"BOOL": "bool", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu"}
    kinds |= {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "C64": "complex64"}
    kind = kinds.get(name, name.replace("U", "uint").replace("I", "int"))
    raw = save({"x": torch.zeros(3, dtype=torch.uint8).repeat(SIZES[name]).view(getattr(torch, kind))})
    header = raw[8 : 8 + int.from_bytes(raw[:8], "little")]
    assert f'"dtype":"{name}","shape":[3],"data_offsets":[0,{3 * SIZES[name]}]'.encode() in header
    assert bits_dtype(name).itemsize == SIZES[name]
