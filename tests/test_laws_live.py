"""Laws 2, 3 and 6 in memory: a composer's tensors are a fresh stitch of the tasks in force, however it came there."""

import dataclasses
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ALL, Tensors, bits, floats, pack_pair, read_checkpoint, write_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from oracle import merged

from sparsetv.errors import BaseMismatchError, CheckpointError, NonFiniteError, NotFoundError, UsageError
from sparsetv.jobs.options import PackOptions, StitchOptions
from sparsetv.jobs.pack import pack
from sparsetv.jobs.stitch import stitch
from sparsetv.live import overlaps, room
from sparsetv.live.composer import Composer
from sparsetv.live.pool import Pool
from sparsetv.scales import resolve_scale
from sparsetv.task_vector import SparseTaskVector

pytestmark = pytest.mark.usefixtures("no_sync")

RULES = ["mean", "sum", "ties", "consensus"]
SCALES: list[str | float] = ["auto", "none", "l2", "graft", 0.8, 1.0]
WEIGHTS = [1.0, 1.0, 0.5, -1.0, 0.0]


def base_tensors() -> Tensors:
    """Three dtypes, numbers that sums stumble over, a tensor that no task reaches."""
    generator = torch.Generator().manual_seed(0)
    return {
        "h.0.full": torch.randn(9, 11, generator=generator),
        "h.0.half": torch.randn(8, 5, generator=generator).half(),
        "h.1.brain": torch.randn(40, generator=generator).bfloat16(),
        "h.1.coarse": torch.randn(8, generator=generator) * 2,
        "h.1.special": floats([0x8000_0000, 0, 1, 0x8000_0001, 0x3F80_0000, 0x3F80_0001]),
        "ids": torch.arange(4),
    }


def finetunes() -> dict[str, Tensors]:
    """Eight fine-tunes; `NAME-2` is another one of the same name."""
    tuned = {}
    for seed, name in enumerate(["one", "two", "three", "four", "five", "one-2", "two-2", "three-2"]):
        generator = torch.Generator().manual_seed(100 + seed)
        small = torch.randn(8, generator=generator) / 1000
        tuned[name] = {
            key: small  # far from the base: no float32 delta gives these back, so they need corrections
            if key == "h.1.coarse"
            else (tensor.float() + torch.randn(tensor.shape, generator=generator) / 4).to(tensor.dtype)
            if tensor.is_floating_point()
            else tensor
            for key, tensor in base_tensors().items()
        }
    return tuned


class _Shared:
    """Packed once per test run: packing is not what is under test."""

    tasks: dict[str, SparseTaskVector] | None = None

    @classmethod
    def get(cls) -> dict[str, SparseTaskVector]:
        if cls.tasks is None:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder)
                write_checkpoint(path / "base", base_tensors())
                cls.tasks = {}
                for number, (key, tensors) in enumerate(finetunes().items()):
                    write_checkpoint(path / key, tensors)
                    options = PackOptions(density=(0.1, 0.3, 0.6)[number % 3], scope=ALL)
                    cls.tasks[key] = pack(path / "base", path / key, name=key.removesuffix("-2"), options=options)
        return cls.tasks


TUNED = finetunes()
KEYS = sorted(TUNED)
MODELS = {key: {k: v for k, v in tensors.items() if k != "ids"} for key, tensors in TUNED.items()}


def expected(live: dict[str, str], weights: dict[str, float], *, combination: str, scale: str | float) -> Tensors:
    """The stitch of `live` (key by task name), entry by entry, from the dense fine-tunes."""
    base = base_tensors()
    tasks = [_Shared.get()[key] for key in live.values()]
    factor = {t.name: weights[t.name] * resolve_scale(t, scale, company=len(tasks))[1] for t in tasks}
    tuned = {name: MODELS[key] for name, key in live.items()}
    floating = {name: tensor for name, tensor in base.items() if tensor.is_floating_point()}
    return {**base, **merged(floating, tuned, tasks, rule=combination, scale=factor)}


def assert_bits(found: Tensors, wanted: Tensors) -> None:
    for name, tensor in wanted.items():
        np.testing.assert_array_equal(bits(found[name]), bits(tensor), err_msg=name)


class Live(RuleBasedStateMachine):
    """Any calls in any order; small regions and tables, so that all of them are made, grown and packed often."""

    @initialize(
        combination=st.sampled_from(RULES),
        scale=st.sampled_from(SCALES),
        region=st.sampled_from([8, 64]),
        start=st.lists(st.sampled_from(["one", "two", "three", "four", "five"]), unique=True),
    )
    def begin(self, combination: str, scale: str | float, region: int, start: list[str]) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(room, "REGION", region)
        self.combination, self.scale = combination, scale
        self.tensors = base_tensors()
        self.storage = {name: tensor.data_ptr() for name, tensor in self.tensors.items()}
        self.composer = Composer(self.tensors, rule=combination, scale=scale)
        self.held = {name: name for name in start}
        self.weights = dict.fromkeys(start, 1.0)
        for name in start:
            self.composer.add(_Shared.get()[name])

    @rule(key=st.sampled_from(KEYS), weight=st.sampled_from(WEIGHTS))
    def put(self, key: str, weight: float) -> None:
        """Add, or replace what has the name."""
        task = _Shared.get()[key]
        if task.name in self.held:
            self.composer.replace(task, weight=weight)
        else:
            self.composer.add(task, weight=weight)
        self.held[task.name] = key
        self.weights[task.name] = weight

    @rule(key=st.sampled_from(KEYS))
    def load(self, key: str) -> None:
        task = _Shared.get()[key]
        if task.name not in self.held:
            self.composer.load(task)
            self.held[task.name] = key

    @precondition(lambda self: bool(self.held))
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.held)))
        self.composer.remove(name)
        del self.held[name]
        self.weights.pop(name, None)

    @precondition(lambda self: bool(self.weights))
    @rule(data=st.data(), weight=st.sampled_from(WEIGHTS))
    def reweight(self, data: st.DataObject, weight: float) -> None:
        name = data.draw(st.sampled_from(sorted(self.weights)))
        self.composer.reweight(name, weight)
        self.weights[name] = weight

    @rule(data=st.data())
    def switch(self, data: st.DataObject) -> None:
        """Put any of the held tasks in force."""
        names = data.draw(st.lists(st.sampled_from(sorted(self.held)), unique=True)) if self.held else []
        self.weights = {name: data.draw(st.sampled_from(WEIGHTS)) for name in names}
        self.composer.activate(self.weights)

    @precondition(lambda self: self.combination != "consensus")
    @rule(key=st.sampled_from(KEYS))
    def overflow(self, key: str) -> None:
        """What cannot be applied leaves no trace."""
        task = _Shared.get()[key]
        change = self.composer.replace if task.name in self.held else self.composer.add
        with pytest.raises(NonFiniteError):
            change(task, weight=1e38)

    @rule(combination=st.sampled_from(RULES))
    def set_rule(self, combination: str) -> None:
        self.composer.set_rule(combination)
        self.combination = combination

    @rule()
    def refuse(self) -> None:
        """What raises changes nothing."""
        with pytest.raises(NotFoundError):
            self.composer.activate({**self.weights, "nobody": 1.0})
        with pytest.raises(UsageError):
            self.composer.activate({name: float("inf") for name in self.held} or {"nobody": 1.0}) if self.held else (
                self.composer.set_rule("median")
            )

    @invariant()
    def equals_a_fresh_stitch(self) -> None:
        live = {name: self.held[name] for name in self.weights}
        assert_bits(self.tensors, expected(live, self.weights, combination=self.combination, scale=self.scale))

    @invariant()
    def state_tells_what_is_held(self) -> None:
        state = self.composer.state()
        assert {task.name: task.weight for task in state.active} == self.weights
        assert list(state.loaded) == sorted(self.held)
        assert [task.digest for task in state.active] == sorted(task.digest for task in state.active)
        assert self.composer.weights == self.weights

    @invariant()
    def memory_of_the_tensors_is_their_own(self) -> None:
        assert {name: tensor.data_ptr() for name, tensor in self.tensors.items()} == self.storage

    def teardown(self) -> None:
        self.composer.activate({})
        assert_bits(self.tensors, base_tensors())
        self.patch.undo()


TestLive = Live.TestCase
TestLive.settings = settings(max_examples=100, stateful_step_count=20, deadline=None)


@pytest.mark.parametrize(
    ("combination", "scale"), [("mean", "auto"), ("sum", "none"), ("ties", 0.8), ("consensus", "l2")]
)
def test_a_thousand_steps_end_where_a_fresh_stitch_does(tmp_path: Path, combination: str, scale: str | float) -> None:
    chance = random.Random(f"{combination} {scale}")
    tasks, tensors = _Shared.get(), base_tensors()
    composer = Composer(tensors, rule=combination, scale=scale)
    held: dict[str, str] = {}
    for number in range(1000):
        step = chance.choice(["put", "put", "take", "reweight"])
        if step == "put":
            key = chance.choice(KEYS)
            name = tasks[key].name
            (composer.replace if name in held else composer.add)(tasks[key], weight=chance.choice(WEIGHTS))
            held[name] = key
        elif held:
            name = chance.choice(sorted(held))
            if step == "take":
                composer.remove(name)
                del held[name]
            else:
                composer.reweight(name, chance.choice(WEIGHTS))
        if number % 5 == 0:
            assert_bits(tensors, expected(held, composer.weights, combination=combination, scale=scale))
    weights = composer.weights
    write_checkpoint(tmp_path / "base", base_tensors())
    options = StitchOptions(rule=combination, scale=scale, weights=weights)
    stitch(tmp_path / "base", [tasks[key] for key in held.values()], tmp_path / "fresh", options=options)
    assert_bits(tensors, read_checkpoint(tmp_path / "fresh"))
    for name in list(held):
        composer.remove(name)
    assert_bits(tensors, base_tensors())
    assert composer.state().nbytes == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("combination", RULES)
def test_a_gpu_gives_the_bits_of_the_cpu(combination: str) -> None:
    """The same thousand steps on both."""
    tasks = _Shared.get()
    places = [base_tensors(), {name: tensor.cuda() for name, tensor in base_tensors().items()}]
    composers = [Composer(tensors, rule=combination, scale=0.7) for tensors in places]
    chance = random.Random(combination)
    for _ in range(1000):
        held = composers[0].state().loaded
        key, weight = chance.choice(KEYS), chance.choice(WEIGHTS)
        gone = chance.choice(held) if held and chance.random() < 0.4 else None
        for composer in composers:
            if gone is not None:
                composer.remove(gone)
            elif tasks[key].name in held:
                composer.replace(tasks[key], weight=weight)
            else:
                composer.add(tasks[key], weight=weight)
    assert_bits({name: tensor.cpu() for name, tensor in places[1].items()}, places[0])


def test_a_task_that_is_left_alone_is_exact_again() -> None:
    """Corrections of the others apply once what covered them is gone."""
    tasks, tensors = _Shared.get(), base_tensors()
    composer = Composer(tensors, scale="none")
    composer.add(tasks["one"])
    composer.add(tasks["three"])
    composer.remove("three")
    kept = tasks["one"].tensors["h.1.coarse"].positions
    assert len(tasks["one"].tensors["h.1.coarse"].corrections.index) == len(kept) > 3
    np.testing.assert_array_equal(bits(tensors["h.1.coarse"])[kept], bits(TUNED["one"]["h.1.coarse"])[kept])


def test_replacing_keeps_the_weight_unless_told() -> None:
    tasks = _Shared.get()
    composer = Composer(base_tensors(), scale="none")
    composer.add(tasks["one"], weight=0.5)
    composer.replace(tasks["one-2"])
    assert composer.weights == {"one": 0.5}
    composer.replace(tasks["one-2"], weight=2.0)
    assert composer.weights == {"one": 2.0}
    with pytest.raises(NotFoundError, match="no task 'two' is held; those held are one"):
        composer.replace(tasks["two"])


def test_names_and_contents_are_held_once() -> None:
    tasks = _Shared.get()
    composer = Composer(base_tensors())
    composer.load(tasks["one"])
    with pytest.raises(UsageError, match="a task 'one' is held already; replace it, or unload it first"):
        composer.add(tasks["one-2"])
    with pytest.raises(UsageError, match="'twin' has the content of 'one', which is held already"):
        composer.add(dataclasses.replace(tasks["one"], name="twin"))
    with pytest.raises(NotFoundError, match="no task 'one' is in force; those in force are none"):
        composer.reweight("one", 2.0)
    with pytest.raises(NotFoundError, match="no task 'two' is held; those held are one"):
        composer.remove("two")
    assert composer.state().loaded == ("one",)


def test_another_base_is_refused_before_anything_changes() -> None:
    task = _Shared.get()["one"]
    other = base_tensors()
    other["h.1.coarse"][3] += 1
    composer = Composer(other)
    with pytest.raises(BaseMismatchError, match=r"one was packed against base .* \(first difference: h\.1\.coarse\)"):
        composer.add(task)
    lacking = {name: tensor for name, tensor in base_tensors().items() if name != "h.0.half"}
    with pytest.raises(BaseMismatchError, match=r"one needs tensor h\.0\.half, which base the base in memory lacks"):
        Composer(lacking).add(task)
    widened = {name: t.float() if t.is_floating_point() else t for name, t in base_tensors().items()}
    with pytest.raises(BaseMismatchError, match=r"h\.0\.half is F16 for one, but F32 in the base in memory; load"):
        Composer(widened).add(task)
    assert composer.state().loaded == ()


def test_meta_lets_tensors_have_another_dtype() -> None:
    """Rounded once to what is in memory, and restored to it."""
    task = _Shared.get()["three"]
    base = {name: tensor.bfloat16() for name, tensor in base_tensors().items() if tensor.is_floating_point()}
    tensors = {name: tensor.clone() for name, tensor in base.items()}
    composer = Composer(tensors, verify="meta", scale="none")
    composer.add(task)
    for name, kept in task.tensors.items():
        wanted = base[name].reshape(-1).clone()
        sums = wanted.float()[kept.positions] + torch.from_numpy(kept.values.copy())
        wanted[kept.positions] = sums.bfloat16()
        np.testing.assert_array_equal(bits(tensors[name]), bits(wanted))
    composer.remove("three")
    assert_bits(tensors, base)


def overflowing(path: Path) -> tuple[Tensors, dict[str, SparseTaskVector]]:
    """Two tasks that overflow fp16 together, one that is harmless, one that makes room."""
    base = {"w": torch.tensor([60000.0, 1.0, 2.0, 3.0]).half(), "v": torch.zeros(4)}
    deltas = {"big": (65000.0, 1.5), "huge": (64000.0, 2.5), "small": (60000.0, 7.0), "less": (56000.0, 4.0)}
    tuned: dict[str, Tensors] = {}
    for name, (first, second) in deltas.items():
        tuned[name] = {"w": torch.tensor([first, second, 2.0, 3.0]).half(), "v": torch.full((4,), second)}
    return base, {name: pack_pair(path, base, tensors, density=1.0, name=name) for name, tensors in tuned.items()}


def test_overflow_applies_nothing(tmp_path: Path) -> None:
    base, tasks = overflowing(tmp_path)
    composer = Composer(base, rule="sum", scale="none")
    composer.add(tasks["small"])
    composer.add(tasks["big"])
    before = {name: tensor.clone() for name, tensor in base.items()}
    with pytest.raises(NonFiniteError, match="w: a merged entry overflows F16; use a smaller scale"):
        composer.add(tasks["huge"])
    assert_bits(base, before)
    assert composer.state().loaded == ("big", "small")
    composer.load(tasks["huge"])
    with pytest.raises(NonFiniteError):
        composer.activate({"big": 1.0, "huge": 1.0})
    assert_bits(base, before)
    composer.remove("big")
    composer.activate({"huge": -1.0})
    before = {name: tensor.clone() for name, tensor in base.items()}
    with pytest.raises(NonFiniteError):
        composer.activate({"small": 40000.0})
    assert_bits(base, before)
    with pytest.raises(NonFiniteError):
        composer.replace(tasks["small"], weight=40000.0)
    assert_bits(base, before)
    composer.activate({})
    assert base["w"].tolist() == [60000.0, 1.0, 2.0, 3.0]


def test_a_step_through_an_overflowing_set_is_not_needed(tmp_path: Path) -> None:
    """Two tasks go in at once that are finite together, though one of them alone would overflow."""
    base, tasks = overflowing(tmp_path)
    composer = Composer(base, rule="sum", scale="none")
    composer.add(tasks["big"])
    for name in ("huge", "less"):
        composer.load(tasks[name])
    with pytest.raises(NonFiniteError):
        composer.activate({"big": 1.0, "huge": 1.0})
    composer.activate({"big": 1.0, "huge": 1.0, "less": 1.0})
    assert base["w"][0].item() == torch.tensor(60000.0 + 5000.0 + 4000.0 - 4000.0).half().item()


def test_tensors_that_cannot_be_changed_in_place_are_refused() -> None:
    with pytest.raises(CheckpointError, match="w: is not contiguous in memory; load the whole model"):
        Composer({"w": torch.zeros(4, 3).t()})
    with pytest.raises(CheckpointError, match="w: has no memory yet"):
        Composer({"w": torch.zeros(4, 3, device="meta")})


def test_tied_tensors_are_one(tmp_path: Path) -> None:
    """A base that stores a tied tensor twice: live memory holds it once, so both copies must say the same."""
    table = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    base = {"embed": table, "head": table.clone()}
    same = {"embed": table + 1, "head": table + 1}
    apart = {"embed": table + 1, "head": table - 1}
    tasks = [pack_pair(tmp_path, base, tuned, density=1.0, name=n) for n, tuned in (("same", same), ("apart", apart))]
    live = table.clone()
    composer = Composer({"embed": live, "head": live}, scale="none")
    composer.add(tasks[0])
    np.testing.assert_array_equal(bits(live), bits(same["embed"]))
    with pytest.raises(BaseMismatchError, match="embed and head share their memory here, but the task"):
        composer.add(tasks[1])
    composer.remove("same")
    np.testing.assert_array_equal(bits(live), bits(table))


def test_removing_costs_no_memory_in_the_end() -> None:
    """Spans of tasks that are gone are packed away; law 6 would not hold for a pool that only grows."""
    tasks = _Shared.get()
    composer = Composer(base_tensors(), scale="none")
    top = 0
    for _ in range(30):
        for key in ["one", "two", "three", "four", "five"]:
            composer.add(tasks[key])
        top = top or composer.state().nbytes
        assert composer.state().nbytes <= top
        for name in ["one", "three", "five"]:
            composer.remove(name)
        composer.activate({})
        composer.remove("two")
        composer.remove("four")
    assert composer.state().nbytes == 0


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_overlaps_are_those_of_sets(data: st.DataObject) -> None:
    """Linked lists against plain dictionaries, through links, unlinks and new buckets."""
    sizes = data.draw(st.lists(st.sampled_from([1, 3, 20, 60]), min_size=1, max_size=3))
    pool = Pool(torch.device("cpu"), positions=torch.int32, bits=torch.int32)
    index = overlaps.Overlaps(pool, len(sizes))
    entries: dict[str, list[tuple[int, int]]] = {}
    segments: dict[str, list[overlaps.Segment]] = {}
    for step in range(data.draw(st.integers(2, 14))):
        if entries and data.draw(st.integers(0, 2)) == 0:
            key = data.draw(st.sampled_from(sorted(entries)))
            index.unlink(key)
            pool.release(key)
            del entries[key], segments[key]
            continue
        key = f"task {step}"
        masks = [data.draw(st.sets(st.integers(0, size - 1))) for size in sizes]
        flat = [(number, place) for number, mask in enumerate(masks) for place in sorted(mask)]
        span = pool.allocate(key, len(flat))
        pool.positions[span] = torch.tensor([place for _, place in flat], dtype=torch.int32)
        starts = np.cumsum([0, *map(len, masks)]).tolist()
        runs = [overlaps.Segment(n, n, starts[n], starts[n + 1]) for n in range(len(sizes)) if masks[n]]
        entries[key], segments[key] = flat, runs
        index.link(key, runs)
    for key, flat in entries.items():
        found = index.matches(key, segments[key])
        got = sorted(zip(found.query.tolist(), found.entry.tolist(), strict=True))
        wanted = sorted(
            (flat.index(place), pool.span(other).start + theirs.index(place))
            for other, theirs in entries.items()
            for place in set(flat) & set(theirs)
            if other != key
        )
        assert got == wanted
