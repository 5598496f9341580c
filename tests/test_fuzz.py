"""Mutated input of every kind, hashes repaired, examined within the tests; `python -m tests.fuzz` does it at length."""

import random
from collections import Counter

import pytest
from fuzz import task
from fuzz.batch import run_batch
from fuzz.byte_changes import scramble
from fuzz.seeds import seeds
from fuzz.source import FromBytes
from fuzz.target import Target
from fuzz.targets import SHARES, TARGETS
from hostile import put_together, take_apart
from hypothesis import given, settings
from hypothesis import strategies as st

each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))


@pytest.mark.parametrize("data", seeds(), ids=range(len(seeds())))
def test_the_builders_give_back_what_they_took_apart(data: bytes) -> None:
    assert task.examine(data).kind == "same content"
    assert task.examine(put_together(take_apart(data))).kind == "same content"


def test_the_seeds_have_every_codec_and_kind() -> None:
    manifests = [take_apart(data).manifest for data in seeds()]
    blocks = [block for manifest in manifests for block in manifest["blocks"]]
    assert {block["values"]["codec"] for block in blocks} == {"exact", "levels", "sign"}
    assert {block["positions"]["codec"] for block in blocks} == {"gaps", "cells", "seeded"}
    assert any("budget" in manifest for manifest in manifests)
    assert {extra["kind"] for manifest in manifests for extra in manifest["extras"]} == {"tensor", "rows", "alias"}
    assert any(max(block["positions"].get("shifts", [0])) > 0 for block in blocks)
    assert any(block["values"].get("corrections") for manifest in manifests for block in manifest["blocks"])
    assert any(manifest["probe"] for manifest in manifests)


@each_target
@settings(max_examples=300)
@given(seed=st.integers(0, 2**64 - 1))
def test_mutated_input_is_refused_or_sound(target: Target, seed: int) -> None:
    target.run(target.make(random.Random(seed)))


@each_target
@settings(max_examples=60)
@given(source=st.randoms(use_true_random=False))
def test_mutated_input_is_refused_or_sound_shrinking(target: Target, source: random.Random) -> None:
    target.run(target.make(source))


@each_target
@settings(max_examples=100)
@given(data=st.binary(max_size=300))
def test_decisions_can_be_bytes(target: Target, data: bytes) -> None:
    target.run(target.make(FromBytes(data)))


@settings(max_examples=800)
@given(seed=st.integers(0, 2**64 - 1))
def test_mutated_task_files_are_refused_or_sound(seed: int) -> None:
    task.TARGET.run(task.make(random.Random(seed)))


@settings(max_examples=200)
@given(seed=st.integers(0, 2**64 - 1))
def test_any_task_file_can_be_mutated_further(seed: int) -> None:
    source = random.Random(seed)
    task.TARGET.run(task.mutate(source, task.mutate(source, scramble(source, source.choice(seeds())))))


# What guards the fuzzing itself.

REACHED = {
    "task": ({"format", "same content", "other content"}, 60), "archive": ({"format", "same content"}, 45),
    "codecs": ({"format", "limit", "read"}, 25), "chunks": ({"format", "read"}, 12), "mask": ({"format", "read"}, 25),
    "checkpoint": ({"format", "read", "other error"}, 25), "store": ({"format", "sound"}, 12),
    "record": ({"format", "same content", "other content"}, 30),
}  # fmt: skip
"""By target: outcomes that 600 files have, and the least number of lines that refuse some of them."""


@each_target
def test_the_mutators_reach_every_layer(target: Target) -> None:
    found = run_batch(target, 0, 600)
    outcomes, places = REACHED[target.name]
    assert outcomes <= found.outcomes.keys()
    assert len(found.places) >= places
    assert found.failures == []


def test_the_same_seed_makes_the_same_input() -> None:
    for target in TARGETS.values():
        first, second = (target.make(random.Random(7)) for _ in range(2))
        assert repr(first) == repr(second)


def test_bytes_decide_until_they_end() -> None:
    source = FromBytes(bytes([3, 255, 128]))
    assert [source.randrange(255) for _ in range(4)] == [3, 0, 128, 0]
    assert FromBytes(b"").choice("abc") == "a"
    assert FromBytes(b"").random() == 0.0
    assert Counter(FromBytes(b"\1" * 9).sample(range(9), 9)) == Counter(range(9))


def test_every_target_has_a_share() -> None:
    assert SHARES.keys() == TARGETS.keys() == REACHED.keys()
    assert sum(SHARES.values()) == 1000
