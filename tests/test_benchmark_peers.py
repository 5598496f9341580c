"""The benchmark of peers: what processes take, recipes, parts that are kept, what the table says."""

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from benchmarks import common, readme_peers
from benchmarks.common import RESULTS, part
from benchmarks.peers_environment import PACKAGES
from benchmarks.peers_jobs import CHANGING, MERGING, PACKS, STORING, Places, Row, merging, storing
from benchmarks.peers_mergekit import mergekit_name, recipe
from benchmarks.peers_result import goals, row, rows, stored
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


def measured(seconds: float, anonymous: int, size: int | None = None) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "processor": 2 * seconds,
        "anonymous": anonymous,
        "resident": 2 * anonymous,
        "bytes": size,
    }


ROUNDS: list[dict[str, Any]] = [
    {
        "jobs": {
            "ties": measured(60 + number, 3000),
            "pack 0": measured(1 + number, 100, 40),
            "pack 1": measured(2, 300, 50),
            "pack 2": measured(3, 200, 60),
            "add 3": measured(2, 100),
        },
        "failed": {"dare_ties": "mergekit-yaml exited with 1: no"},
    }
    for number in (0, 2, 1)
]


def test_a_row_adds_jobs_by_round_and_takes_the_median_and_the_largest_peak() -> None:
    found = row(ROUNDS, Row("sparsetv", "pack", PACKS, "three files"))
    assert (found["seconds"], found["seconds_all"]) == (7, [6, 8, 7])
    assert found["processor"] == 14
    assert (found["anonymous_bytes"], found["resident_bytes"], found["bytes"]) == (300, 600, 150)


def test_a_row_of_what_failed_or_was_not_run_says_so() -> None:
    assert row(ROUNDS, Row("peer", "dare", ("dare_ties",), ""))["left_out"] == "mergekit-yaml exited with 1: no"
    assert row(ROUNDS, Row("peer", "start", ("mergekit start",), ""))["left_out"] == "was not run"


def test_goals_compare_only_what_was_measured() -> None:
    memory = {"3": {"add": {"seconds": 0.5}, "remove": {"seconds": 6.1}}}
    found = {one["goal"]: (one["found"], one["met"]) for one in goals(ROUNDS, memory)}
    assert found["mergekit's TIES pass over 3 fine-tunes / packing all 3, seconds"] == (8.71, False)
    assert found["mergekit's TIES pass over 3 fine-tunes / packing one, peak anonymous memory"] == (30, True)
    assert found["re-merge by TIES / `Composer.remove` in memory, third task"] == (10, False)
    assert not any("task arithmetic" in goal or "remove` of one" in goal for goal in found)


def test_the_tables_say_what_was_left_out_and_how_many_times_faster() -> None:
    listed = [
        Row("peer", "mergekit `ties`", ("ties",), ""),
        Row("peer", "mergekit `dare_ties`", ("dare_ties",), "nothing is ranked"),
        Row("sparsetv", "three", PACKS, "three files"),
    ]
    memory = {"3": {"add": {"seconds": 0.61}, "remove": {"seconds": 6.1}}}
    result = {"merging": rows(ROUNDS, listed), "changing": [], "in_memory": memory}
    lines = readme_peers.merging(result)
    assert lines[0][:4] == ["mergekit `ties`", "61.00", "122.0", "0 / 0 MB"]
    assert (lines[1][1], lines[1][-1]) == ("left out", "mergekit-yaml exited with 1: no")
    assert lines[2][4:] == ["8.7 times", "", "three files"]
    assert [line[4] for line in lines[3:]] == ["100 times", "10 times"]
    assert all(len(line) == len(readme_peers.MERGING) for line in lines)


def test_every_line_of_storing_says_what_is_not_equal_even_without_peers() -> None:
    jobs = {f"{key} {way}": measured(1, 100, 7) for key in ("archive", "task") for way in ("compress", "restore")}
    result = {"storing": stored([{"jobs": jobs, "failed": {}}]), "checkpoint_bytes": 70}
    lines = readme_peers.storing(result)
    assert len(lines) == len(STORING)
    assert lines[0][2:4] == ["0.0 MB, 10.0 %", "1.00 s, 0 / 0 MB"]
    assert [line[2] for line in lines].count("left out") == 5
    assert all(line[1] and line[-1] for line in lines)


def test_every_row_is_made_of_jobs_that_there_are(tmp_path: Path) -> None:
    places = Places(tmp_path)
    known = merging(places, Path("python"))
    assert {job for one in (*MERGING, *CHANGING) for job in one.jobs} == set(known)
    kept = storing(places, Path("python"))
    assert {f"{key} {way}" for _, key, *_ in STORING for way in ("compress", "restore")} == set(kept)
    assert all(one.unequal for one in (*MERGING, *CHANGING)[1:])


def test_every_result_has_a_section_that_says_how_it_was_made() -> None:
    headings = set(re.findall(r"^## (\S+)$", (RESULTS.parent / "README.md").read_text(), re.MULTILINE))
    assert {path.stem for path in RESULTS.glob("*.json")} <= headings
