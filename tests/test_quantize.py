"""Value encodings against their stated errors (formats/VALUES.md, formats/codecs/levels.md)."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from helpers import FINITE_PATTERNS
from hypothesis import given
from hypothesis import strategies as st

from sparsetv.csr import Corrections, SparseTensor
from sparsetv.errors import UsageError
from sparsetv.quantize.levels import lloyd
from sparsetv.quantize.named import VALUES, quantize
from sparsetv.quantize.rounded import round_bits

ONE = Fraction(1)


def tensor_of(values: list[float] | np.ndarray) -> SparseTensor:
    array = np.array(values, np.float32)
    corrections = Corrections(np.array([0]), np.array([5], np.uint32))
    return SparseTensor("F32", (len(array),), np.arange(len(array)), array, corrections)


@given(FINITE_PATTERNS, st.sampled_from([8, 11]))
def test_rounding_is_to_nearest_ties_to_even(pattern: int, bits: int) -> None:
    value = np.array([pattern], np.uint32).view(np.float32)
    found = round_bits(value, bits)[0]
    exact = Fraction(float(value[0]))
    exponent = max(int(np.frexp(value.astype(np.float64))[1][0]), -125) if exact else 0
    unit = Fraction(2) ** (exponent - bits)
    rounded = round(exact / unit) * unit  # Python rounds halves to even
    largest = (Fraction(2) - Fraction(2) ** (1 - bits)) * Fraction(2) ** 127
    assert Fraction(float(found)) == max(min(rounded, largest), -largest)
    assert np.signbit(found) == np.signbit(value[0])
    if abs(exact) >= Fraction(2) ** -126 and abs(exact) < largest:
        assert abs(Fraction(float(found)) - exact) <= abs(exact) * Fraction(2) ** -bits


def test_bf16_is_what_torch_makes_of_it() -> None:
    import torch

    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32) * np.float32(1e-4)
    expected = torch.from_numpy(values).bfloat16().float().numpy()
    assert np.array_equal(quantize({"w": tensor_of(values)}, "bf16")["w"].values, expected)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=60))
def test_q8_errs_by_half_a_unit(numbers: list[float]) -> None:
    values = np.array(numbers, np.float32)
    found = quantize({"w": tensor_of(values)}, "q8")["w"].values
    largest = float(np.abs(values).max())
    unit = largest / 127 * (1 + 2.0**-15) + 1e-40
    assert np.abs(found.astype(np.float64) - values).max() <= unit / 2 * (1 + 1e-6)
    assert np.array_equal(np.signbit(found), np.signbit(values))


@pytest.mark.parametrize(("values", "count"), [("q4", 8), ("q2", 2)])
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=60))
def test_few_levels_are_the_nearest_of_their_table(values: str, count: int, numbers: list[float]) -> None:
    original = np.array(numbers, np.float32)
    found = quantize({"w": tensor_of(original)}, values)["w"].values
    table = sorted({float(v) for v in np.abs(found)})
    assert len(table) <= count
    away = np.abs(np.abs(original)[:, None].astype(np.float64) - np.array(table))
    own = np.abs(np.abs(found).astype(np.float64) - np.abs(original))
    assert (own <= away.min(axis=1) * (1 + 1e-9)).all()
    assert np.array_equal(np.signbit(found), np.signbit(original))


def test_more_levels_err_less() -> None:
    values = np.random.default_rng(0).standard_normal(20_000).astype(np.float32)
    tensor = tensor_of(values[np.abs(values) > 2])
    errors = []
    for name in VALUES:
        found = quantize({"w": tensor}, name)["w"]
        errors.append(float(np.square(found.values - tensor.values, dtype=np.float64).sum()))
        assert len(found.corrections.index) == (1 if name == "exact" else 0)
    assert errors == sorted(errors)
    assert errors[0] == 0 < errors[1]


def test_lloyd_finds_the_best_two_of_a_line() -> None:
    """Against every cut of the sorted magnitudes."""
    values = np.sort(np.random.default_rng(3).exponential(size=200)).astype(np.float32)
    exact = values.astype(np.float64)
    best = min(
        ((exact[:cut] - exact[:cut].mean()) ** 2).sum() + ((exact[cut:] - exact[cut:].mean()) ** 2).sum()
        for cut in range(1, 200)
    )
    table, bounds = lloyd(values, 2)
    found = ((exact - table[np.searchsorted(bounds, exact, side="right")]) ** 2).sum()
    assert found <= 1.02 * best


@pytest.mark.parametrize("values", VALUES)
def test_a_tensor_of_nothing_or_of_zeros_stays_as_it_is(values: str) -> None:
    zeros = replace(tensor_of([0.0, -0.0, 0.0]), corrections=Corrections.none())
    empty = SparseTensor("F32", (4,), np.zeros(0, np.int64), np.zeros(0, np.float32))
    found = quantize({"empty": empty, "zeros": zeros}, values)
    assert found["zeros"].values.view(np.uint32).tolist() == [0, 1 << 31, 0]
    assert found["empty"].nnz == 0


def test_unknown_values_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown values 'q3'; known are exact, f16, bf16, q8, q4, q2, sign"):
        quantize({}, "q3")
