"""The benchmark of peers: what processes take, recipes, parts that are kept, what the table says."""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from benchmarks import common
from benchmarks.common import part
from benchmarks.peers_environment import PACKAGES
from benchmarks.peers_mergekit import mergekit_name, recipe
from benchmarks.processes import ProcessError, measured_process
from benchmarks.readme import README

MEGABYTE = 1 << 20

HOLD = """
import mmap, sys, time
own = bytearray(60 << 20)
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
    sum(mapped[::4096])
    time.sleep(0.2)
print("held")
"""

CHILD = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "import time; b = bytearray(80 << 20); time.sleep(0.2)"], check=True)
"""


def test_mapped_files_are_resident_and_not_anonymous(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(100 * MEGABYTE))
    found = measured_process([sys.executable, "-c", HOLD, tmp_path / "file"])
    assert 60 * MEGABYTE <= found.anonymous < 100 * MEGABYTE
    assert found.resident >= 160 * MEGABYTE
    assert found.seconds >= 0.2
    assert 0 < found.processor < found.seconds + 1
    assert found.output.strip() == "held"


def test_memory_of_children_counts() -> None:
    assert measured_process([sys.executable, "-c", CHILD]).anonymous >= 80 * MEGABYTE


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["/no/such/program"], "No such file"),
        ([sys.executable, "-c", "import sys; print('first'); sys.exit('last')"], "exited with 1: last"),
        ([sys.executable, "-c", "import time; time.sleep(60)"], "ran longer than 0.3 s"),
    ],
)
def test_a_process_that_does_not_end_well_says_why(command: list[str], why: str) -> None:
    with pytest.raises(ProcessError, match=why):
        measured_process(command, timeout=0.3 if "sleep" in command[-1] else 60)


def test_recipes_name_density_only_where_the_method_takes_one(tmp_path: Path) -> None:
    checkpoints = [tmp_path / name for name in ("base", "one", "two")]
    ties = json.loads(recipe(tmp_path / "ties.yaml", "ties", checkpoints, normalize=True).read_text())
    plain = json.loads(recipe(tmp_path / "plain.yaml", "task_arithmetic", checkpoints).read_text())
    assert ties["base_model"] == str(tmp_path / "base")
    assert [model["model"] for model in ties["models"]] == [str(tmp_path / name) for name in ("one", "two")]
    assert all(model["parameters"] == {"weight": 1.0, "density": 0.01} for model in ties["models"])
    assert all(model["parameters"] == {"weight": 1.0} for model in plain["models"])
    assert (ties["parameters"], plain["parameters"]) == ({"normalize": True}, {"normalize": False})


def test_names_are_those_that_mergekit_looks_for() -> None:
    assert mergekit_name("pooler.dense.bias") == "pooler.dense.bias"
    assert mergekit_name("encoder.layer.0.output.dense.bias") == "roberta.encoder.layer.0.output.dense.bias"


def test_parts_are_kept_until_code_or_settings_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter(range(10))

    def again(number: int) -> dict[str, Any]:
        return part(tmp_path / "parts", "one", {"number": number}, lambda: {"value": next(values)})

    assert [again(1)["value"], again(1)["value"], again(2)["value"]] == [0, 0, 1]
    monkeypatch.setattr(common, "sources", lambda: "changed")
    assert again(2)["value"] == 2


def test_a_part_that_was_left_out_is_tried_again(tmp_path: Path) -> None:
    answers: list[dict[str, Any]] = [{"left_out": "no network"}, {"value": 1}]
    found = [part(tmp_path, "one", {}, lambda: answers.pop(0)) for _ in range(2)]
    assert found == [{"left_out": "no network"}, {"value": 1}]


def test_the_extra_is_what_the_benchmark_installs() -> None:
    extras = tomllib.loads((README.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["peers"] == list(PACKAGES.values())
