"""Packing to a size: the file fits, is full, keeps what errs least, and says what it lost."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers import read_checkpoint, write_checkpoint
from hostile import run
from hypothesis import given
from hypothesis import strategies as st

from sparsetv.budget.ask import Ask
from sparsetv.budget.cut import cut
from sparsetv.budget.histogram import Histograms
from sparsetv.budget.rate import log2, solve
from sparsetv.cli import group
from sparsetv.container.writer import encode
from sparsetv.csr import SparseTensor
from sparsetv.errors import LimitError, UsageError
from sparsetv.jobs.inspect import inspect
from sparsetv.jobs.options import PackOptions, RefitOptions
from sparsetv.jobs.pack import pack, pack_to
from sparsetv.localize.scope import Scope
from sparsetv.quantize.named import VALUES
from sparsetv.task_vector import SparseTaskVector
from sparsetv.taskfile import read_task

ALL = Scope("all")
SIZES = {"loud": (200, 150), "quiet": (300, 200), "vector": (500,), "zero": (40, 50)}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and a fine-tune whose tensors changed by very different amounts."""
    generator = torch.Generator().manual_seed(0)
    room = tmp_path_factory.mktemp("pair")
    base = {name: torch.randn(shape, generator=generator) * 0.05 for name, shape in SIZES.items()}
    spread = {"loud": 1e-2, "quiet": 1e-3, "vector": 3e-3, "zero": 0.0}
    tuned = {name: base[name] + spread[name] * torch.randn(base[name].shape, generator=generator) for name in SIZES}
    write_checkpoint(room / "base", base)
    write_checkpoint(room / "tuned", tuned)
    return room


def deltas_of(pair: Path) -> dict[str, np.ndarray]:
    base, tuned = read_checkpoint(pair / "base"), read_checkpoint(pair / "tuned")
    return {name: (tuned[name] - base[name]).numpy().reshape(-1) for name in base}


def error_of(tensors: dict[str, SparseTensor], deltas: dict[str, np.ndarray]) -> float:
    """Squared error of the whole task vector, entry by entry."""
    total = 0.0
    for name, delta in deltas.items():
        rest = delta.astype(np.float64).copy()
        rest[tensors[name].positions] -= tensors[name].values
        total += float((rest**2).sum())
    return total


@pytest.mark.parametrize(
    ("text", "of", "expected"),
    [
        ("1%", "fp32", 40), ("1%", "stored", 20), ("0.5 %", "fp32", 20), ("8bpp", "fp32", 1000),
        ("0.25bpp", "stored", 31), ("7MB", "fp32", 7_000_000), ("7 MiB", "fp32", 7 << 20), ("500kb", "fp32", 500_000),
        ("1.5GB", "fp32", 1_500_000_000), ("4096", "fp32", 4096), ("12B", "fp32", 12),
    ],
)  # fmt: skip
def test_sizes_as_users_write_them(text: str, of: str, expected: int) -> None:
    assert Ask.parse(text, of=of).bytes(parameters=1000, stored=2000) == expected


@pytest.mark.parametrize(
    "text", ["", "x", "-1%", "1 %%", "1 bits", "0", "0%", "nan", "1e5", "0.05", "9" * 30 + "GB", "MB", "1" * 400]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="budget"):
        Ask.parse(text)
    with pytest.raises(UsageError, match="share of fp32 or stored, not of 'disk'"):
        Ask.parse("1%", of="disk")


@pytest.mark.parametrize("allocation", ["global", "tensor", "balanced"])
@pytest.mark.parametrize("budget", ["1.2%", "4%", "12%", "1bpp"])
def test_the_file_fits_and_is_full(pair: Path, budget: str, allocation: str) -> None:
    options = PackOptions(budget=budget, allocation=allocation, scope=ALL)
    task = pack(pair / "base", pair / "tuned", options=options)
    size = encode(task).size
    assert task.budget is not None
    parameters = sum(math.prod(shape) for shape in SIZES.values())
    assert task.budget.bytes == (
        parameters // 8 if budget == "1bpp" else int(float(budget[:-1]) / 100 * 4 * parameters)
    )
    assert 0.97 * task.budget.bytes <= size <= task.budget.bytes
    assert task.recipe.values == "budget"
    deltas = deltas_of(pair)
    whole = sum(float((delta.astype(np.float64) ** 2).sum()) for delta in deltas.values())
    assert task.budget.energy == pytest.approx(1 - error_of(dict(task.tensors), deltas) / whole, abs=1e-4)
    assert encode(pack(pair / "base", pair / "tuned", options=options)).tobytes() == encode(task).tobytes()


@pytest.mark.parametrize("values", VALUES)
def test_a_budget_for_one_encoding_keeps_the_largest(pair: Path, values: str) -> None:
    options = PackOptions(budget="3%", values=values, scope=ALL, allocation="global")
    task = pack(pair / "base", pair / "tuned", options=options)
    assert task.budget is not None
    assert 0.97 * task.budget.bytes <= encode(task).size <= task.budget.bytes
    assert task.recipe.values == values
    magnitudes = np.abs(np.concatenate(list(deltas_of(pair).values())))
    smallest = min(
        float(np.abs(deltas_of(pair)[name][tensor.positions]).min())
        for name, tensor in task.tensors.items()
        if tensor.nnz
    )
    assert int((magnitudes >= smallest).sum()) == task.nnz


@pytest.mark.parametrize("values", VALUES)
def test_every_file_says_what_it_lost(pair: Path, tmp_path: Path, values: str) -> None:
    out, deltas = tmp_path / "task.stv", deltas_of(pair)
    options = PackOptions(0.05, ALL, values=values, probe=False)
    task = pack_to(out, pair / "base", pair / "tuned", options=options)
    whole = sum(float((delta.astype(np.float64) ** 2).sum()) for delta in deltas.values())
    assert inspect(out).energy == pytest.approx(1 - error_of(dict(task.tensors), deltas) / whole, abs=1e-3)
    assert "of the squared L2 norm" in CliRunner().invoke(group, ["inspect", str(out)]).stdout


def test_choosing_bits_errs_less_than_any_fixed_encoding(pair: Path) -> None:
    deltas = deltas_of(pair)
    for budget in ("1.5%", "5%"):
        errors = {}
        for values in (None, *VALUES):
            options = PackOptions(budget=budget, values=values, scope=ALL, allocation="global")
            errors[values] = error_of(dict(pack(pair / "base", pair / "tuned", options=options).tensors), deltas)
        assert errors[None] < 1.05 * min(errors.values())
        assert errors[None] < 0.5 * errors["exact"]


def test_allocation_and_importance_move_bits(pair: Path) -> None:
    def kept(**more: object) -> dict[str, int]:
        options = PackOptions(budget="2%", scope=ALL, **more)  # type: ignore[arg-type]
        return {name: t.nnz for name, t in pack(pair / "base", pair / "tuned", options=options).tensors.items()}

    plain, relative = kept(allocation="global"), kept()
    assert plain["quiet"] == 0 < plain["loud"]
    assert relative["quiet"] > relative["loud"]  # the same density in each, and quiet is larger
    assert kept(allocation="global", importance={"qu*": 1000.0})["quiet"] > 0
    with pytest.raises(UsageError, match="importance must lie between"):
        kept(importance={"*": 0.0})


def test_what_fits_whole_is_kept_exactly(pair: Path, tmp_path: Path) -> None:
    """A step of training that changed a few entries: all of them, bit for bit, in less than the budget."""
    base = read_checkpoint(pair / "base")
    tuned = {name: tensor.clone() for name, tensor in base.items()}
    tuned["loud"].view(-1)[::500] += 0.01
    write_checkpoint(tmp_path / "near", tuned)
    task = pack(pair / "base", tmp_path / "near", options=PackOptions(budget="50%", scope=ALL))
    assert task.exact
    assert task.nnz == len(range(0, 30_000, 500))
    assert task.budget is not None
    assert task.budget.energy == 1.0


def repack(pair: Path, room: Path, change: torch.Tensor, **more: object) -> SparseTaskVector:
    """A fine-tune that differs from the base by some change of `loud` alone, packed in absolute units."""
    base = read_checkpoint(pair / "base")
    write_checkpoint(room / "other", {**base, "loud": base["loud"] + change.reshape(base["loud"].shape)})
    options = PackOptions(scope=ALL, allocation="global", **more)  # type: ignore[arg-type]
    return pack(pair / "base", room / "other", options=options)


@pytest.mark.parametrize("values", [None, "sign"])
@pytest.mark.parametrize("budget", ["1800", "3kB"])
def test_equal_changes_fill_a_file_in_order(pair: Path, tmp_path: Path, budget: str, values: str | None) -> None:
    """Where thresholds keep all or nothing, the first entries are kept."""
    base = read_checkpoint(pair / "base")["loud"].reshape(-1)
    signs = torch.where(torch.randn(len(base), generator=torch.Generator().manual_seed(1)) < 0, -1.0, 1.0)
    room = {**read_checkpoint(pair / "base"), "loud": torch.full((200, 150), 0.5)}
    write_checkpoint(tmp_path / "base", room)
    write_checkpoint(tmp_path / "tuned", {**room, "loud": (0.5 + 0.25 * signs).reshape(200, 150)})
    options = PackOptions(budget=budget, values=values, scope=ALL)
    task = pack(tmp_path / "base", tmp_path / "tuned", options=options)
    assert task.budget is not None
    assert 0.97 * task.budget.bytes <= encode(task).size <= task.budget.bytes
    assert task.tensors["loud"].positions.tolist() == list(range(task.nnz))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("largest", [1.0, 1e4, 1e10, 1e19, 1e30, 3e38])
def test_one_enormous_change_does_not_empty_a_file(pair: Path, tmp_path: Path, largest: float) -> None:
    change = torch.randn(30_000, generator=torch.Generator().manual_seed(2)) * 1e-3
    change[77] = largest
    task = repack(pair, tmp_path, change, budget="3%")
    assert task.budget is not None
    assert 0.97 * task.budget.bytes <= encode(task).size <= task.budget.bytes
    assert 77 in task.tensors["loud"].positions
    assert task.nnz > 5000


def test_more_than_levels_can_say_is_said_more_finely(pair: Path, tmp_path: Path) -> None:
    """Between all entries in 256 levels and all of them exactly, the encoding is taken that keeps most."""
    change = torch.randn(30_000, generator=torch.Generator().manual_seed(3)) * 1e-3
    energies = {}
    for number, budget in enumerate(("12%", "16%", "20%")):
        (tmp_path / str(number)).mkdir()
        task = repack(pair, tmp_path / str(number), change, budget=budget)
        assert task.budget is not None
        assert encode(task).size <= task.budget.bytes
        energies[task.recipe.values] = task.budget.energy
    assert set(energies) & {"bf16", "f16", "exact"}
    assert max(energy or 0.0 for energy in energies.values()) > 0.99999


def test_a_budget_below_what_must_be_there_is_refused(pair: Path) -> None:
    with pytest.raises(LimitError, match=r"without a single entry takes \d+ bytes .* the budget is 500"):
        pack(pair / "base", pair / "tuned", options=PackOptions(budget="500", scope=ALL))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (PackOptions(budget="1%", localizer="random"), "a budget chooses the entries itself"),
        (PackOptions(budget="1%", mask="m.safetensors"), "a budget chooses the entries itself"),
        (PackOptions(budget="1%", allocation="fair"), "known are global, tensor, balanced"),
        (PackOptions(budget="lots"), "is no size"),
        (PackOptions(budget="5%", importance={"nothing*": 2.0}), "no tensor of the scope is called 'nothing"),
        (PackOptions(budget="5%", settings={"factor": 2}), "has no setting 'factor'"),
        (PackOptions(allocation="balanced"), "known are global, tensor"),
        (PackOptions(values="q3"), "unknown values 'q3'"),
    ],
)
def test_contradictions_are_refused(pair: Path, options: PackOptions, message: str) -> None:
    from dataclasses import replace

    with pytest.raises(UsageError, match=message):
        pack(pair / "base", pair / "tuned", options=replace(options, scope=ALL))


@given(st.integers(0, 1 << 32), st.floats(0.3, 3), st.floats(0.2, 2))
def test_levels_are_means_of_their_intervals(seed: int, least: float, step: float) -> None:
    values = np.random.default_rng(seed).standard_normal(400).astype(np.float32)
    tensor = SparseTensor("F32", (400,), np.arange(400), values)
    found = cut(tensor, least=least, step=step)
    kept = [i for i in range(400) if abs(float(values[i])) >= least]
    assert found.positions.tolist() == kept
    groups: dict[int, list[float]] = {}
    for i in kept:
        groups.setdefault(int((abs(float(values[i])) - least) / step), []).append(abs(float(values[i])))
    for i, value in zip(kept, found.values.tolist(), strict=True):
        group = groups[int((abs(float(values[i])) - least) / step)]
        assert abs(value) == pytest.approx(sum(group) / len(group), abs=step / 16)
        assert math.copysign(1, value) == math.copysign(1, float(values[i]))


@given(st.floats(1e-30, 1e30))
def test_logarithms_are_near_enough(number: float) -> None:
    assert float(log2(np.array([number]))[0]) == pytest.approx(math.log2(number), abs=4e-4)


def test_more_bits_err_less() -> None:
    generator = np.random.default_rng(0)
    tensors = [
        SparseTensor("F32", (20_000,), np.arange(20_000), (generator.standard_normal(20_000) * s).astype(np.float32))
        for s in (1.0, 0.1)
    ]
    histograms = Histograms.exact(tensors)
    entries, weights = np.full(2, 20_000.0), np.ones(2)
    errors = []
    for bits in (2e3, 1e4, 4e4, 1.6e5):
        plan = solve(histograms, entries, weights, bits=bits)
        assert 0.8 * bits < plan.bits <= bits
        cuts = [cut(t, least=a, step=b) for t, a, b in zip(tensors, plan.least, plan.step, strict=True)]
        deltas = {str(i): t.values for i, t in enumerate(tensors)}
        errors.append(error_of({str(i): c for i, c in enumerate(cuts)}, deltas))
    assert errors == sorted(errors, reverse=True)


def test_the_command_line_packs_to_a_size(pair: Path, tmp_path: Path) -> None:
    out = tmp_path / "task.stv"
    words = ["pack", str(pair / "base"), str(pair / "tuned"), "-o", str(out), "--scope", "all", "--no-probe"]
    done = CliRunner().invoke(group, [*words, "--budget", "2%", "--importance", "loud=2", "--json"])
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert shown["budget"]["asked"] == "2%"
    assert out.stat().st_size <= shown["budget"]["bytes"]
    listing = CliRunner().invoke(group, ["inspect", str(out)]).stdout
    assert "budget      2% of fp32 = " in listing
    assert "of the energy" in listing
    both = CliRunner().invoke(group, [*words, "--budget", "2%", "--density", "0.1"])
    assert both.exit_code == 2
    assert "leave out --density" in both.output
    small = run(*words, "--budget", "300").exception
    assert isinstance(small, LimitError)
    assert small.exit_code == 7
    for idle in (["--of", "stored"], ["--importance", "loud=2"], ["--refit-steps", "3"]):
        assert "does nothing without" in CliRunner().invoke(group, [*words, *idle]).output
    wrong = CliRunner().invoke(group, [*words, "--budget", "2%", "--importance", "loud"])
    assert wrong.exit_code == 2


@pytest.mark.parametrize("refit", [None, RefitOptions(steps=8, batch_size=8, polish=4)])
def test_probe_and_trained_values_are_within_the_budget(
    trained: Path, tmp_path: Path, refit: RefitOptions | None
) -> None:
    out = tmp_path / "task.stv"
    options = PackOptions(budget="40%", allocation="tensor", probe=True, refit=refit)
    task = pack_to(out, trained / "base", trained / "tuned", options=options)
    summary = inspect(out)
    assert summary.budget is not None
    assert 0.95 * summary.budget["bytes"] <= out.stat().st_size <= summary.budget["bytes"]
    assert task.probe is not None
    assert read_task(out).budget == task.budget
    if refit is not None:
        assert (task.recipe.values, task.refitted, task.probe.scale) == ("budget-refit", True, 1.0)
        assert summary.budget["energy"] is None
        again = pack_to(tmp_path / "again.stv", trained / "base", trained / "tuned", name="task", options=options)
        assert again.digest() == task.digest()


@pytest.mark.parametrize("allocation", ["global", "tensor"])
@pytest.mark.parametrize("exact", [True, False])
def test_a_random_mask_takes_its_seed(pair: Path, tmp_path: Path, allocation: str, exact: bool) -> None:
    out = tmp_path / "random.stv"
    options = PackOptions(
        0.1, ALL, allocation, localizer="random", settings={"exact": exact}, seed=5, probe=False, values="sign"
    )
    task = pack_to(out, pair / "base", pair / "tuned", options=options)
    assert inspect(out).sizes.positions == 0
    again = read_task(out)
    assert again.digest() == task.digest()
    assert (again.drawn, again.nnz) == (5, task.nnz)
    assert task.nnz == round(0.1 * task.numel) if exact else 0.08 < task.density < 0.12
