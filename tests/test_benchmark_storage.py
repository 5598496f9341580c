"""What the storage benchmark says is what it means: entropies, layouts of peers, goals."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.entropy import choices, draws, floor_of
from benchmarks.storage_goals import goals, worst
from benchmarks.storage_pairs import Kept
from benchmarks.storage_peers import LAYOUTS
from sparsetv.csr import SparseTensor

RNG = np.random.default_rng(0)


def test_choices_and_draws_are_entropies() -> None:
    assert choices(10, 3) == pytest.approx(math.log2(math.comb(10, 3)))
    assert choices(10, 0) == pytest.approx(0)
    assert draws(np.arange(256)) == pytest.approx(8 * 256)
    assert draws(np.array([7, 7, 7])) == 0
    assert draws(np.array([0, 0, 0, 1])) == pytest.approx(4 * (0.75 * math.log2(4 / 3) + 0.25 * 2))


def test_coded_bytes_are_near_the_floor_of_random_positions_and_random_bits() -> None:
    """Uniform positions and uniform 16-bit magnitudes leave nothing to save, so coded and floor must nearly agree."""
    magnitudes = (np.uint32(0x3F80_0000) + RNG.integers(0, 1 << 16, 20_000).astype(np.uint32)).view(np.float32)
    positions = np.sort(RNG.choice(2_000_000, 20_000, replace=False))
    values = magnitudes * RNG.choice([-1, 1], 20_000).astype(np.float32)
    floor = floor_of({"w": SparseTensor("F32", (1, 2_000_000), positions, values)})
    assert floor.values_model == pytest.approx(20_000 * (1 + 16) / 8, rel=0.02)
    assert floor.positions_model == pytest.approx(choices(2_000_000, 20_000) / 8)
    assert 1 <= floor.values / floor.values_model < 1.02
    assert 1 <= floor.positions / floor.positions_model < 1.04


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_layouts_of_peers_hold_what_they_say(layout: Any, tmp_path: Path) -> None:
    positions = np.sort(RNG.choice(4000, 40, replace=False))
    kept = Kept((50, 80), positions, RNG.integers(1, 1 << 16, 40).astype(np.uint16), np.ones(40, np.float32))
    layout.save({"w": kept}, tmp_path)
    found = layout.load(tmp_path)
    if layout.name.startswith("scipy"):
        assert np.flatnonzero(found[0].toarray()).tolist() == positions.tolist()
        assert found[0].data.tolist() == kept.bits.tolist()
    elif layout.name.startswith("TALL"):
        assert np.flatnonzero(found).tolist() == positions.tolist()
    elif layout.name.startswith("SHiRA"):
        rows, columns = found["adapter_model.safetensors"]["w.shira_indices"].astype(int)
        assert (80 * rows + columns).tolist() == positions.tolist()
    else:
        assert found["flat.safetensors"]["w.index"].tolist() == positions.tolist()
        assert found["flat.safetensors"]["w.values"].tolist() == kept.bits.tolist()
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size >= (4000 // 8 if layout.name.startswith("TALL") else 40 * 6)


def _row(name: str, size: int, **more: Any) -> dict[str, Any]:
    row = {"pair": "A fp32", "dtype": "F32", "optimizer": "AdamW", "name": name, "bytes": size, "by": "sparsetv",
           "fidelity": "exact kept values", "percent_of_scope": 0.8, "over_entropy": {"both": 1.01},
           "megabytes_per_second": {"pack": 200, "decode": 500}}  # fmt: skip
    return {**row, **more}


def test_goals_tell_a_peer_that_is_smaller() -> None:
    ours = [
        _row(name, 100, optimizer=optimizer, dtype=dtype)
        for name in ("exact", "budget 1%")
        for optimizer in ("AdamW", "SGD", "generated")
        for dtype in ("F32", "BF16")
    ]
    peers = [_row("small", 90, by="peer"), _row("large", 300, by="peer")]
    checked = {one["goal"]: one for one in goals([*ours, *peers])}
    assert not checked["small: its bytes over ours (exact kept values)"]["met"]
    assert checked["large: its bytes over ours (exact kept values)"]["found"] == 3
    assert [one["goal"] for one in worst(list(checked.values())) if not one["met"]] == [
        "small: its bytes over ours (exact kept values)"
    ]
