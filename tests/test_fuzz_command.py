"""The commands that fuzz at length: bounded, started again, and what they say of files that fail."""

import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fuzz import batch
from fuzz.batch import run_batch
from fuzz.findings import FINDINGS
from fuzz.guided import figures
from fuzz.jobs import isolated, plan
from fuzz.merge import merged, table
from fuzz.report import REPORT, RESULTS, report
from fuzz.target import Outcome, Target, slack
from fuzz.targets import TARGETS
from fuzz.watch import HangError, alarm, place

from sparsetv.errors import FormatError
from sparsetv.wire.canonical import loads

ROOT = Path(__file__).parents[1]


def seed_of(source: random.Random) -> int:
    """The first draw, which stands for the file."""
    return source.randrange(1 << 32)


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_some_files_of_every_target(tmp_path: Path) -> None:
    log, results = tmp_path / "log", tmp_path / "results"
    words = ("tests.fuzz", "--files", 2000, "--processes", 2, "--first", 9_000_000, "--log", log, "--results", results)
    few = command(*words[:2], 100, *words[3:])
    assert "| all | 100 |" in few.stdout
    done = command(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| all | 2,000 |" in done.stdout
    assert {json.loads(line)["target"] for line in results.read_text().splitlines()} == TARGETS.keys()
    again = command(*words)
    assert again.stdout == done.stdout, "batches that are in the log are not run again"
    assert again.stderr == ""


@pytest.mark.parametrize("target", ["task", "manifest", "codecs"])
def test_the_guided_fuzzer_runs(target: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="the extra `fuzz` is not installed")
    done = command("tests.fuzz.guided", target, "--runs", 600, "--corpus", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["runs"] == 600
    assert found["covered"] > found["covered_first"] > 0


# What becomes of files that fail.


def slow(case: int) -> Outcome:
    end = time.process_time() + 0.02
    while time.process_time() < end:
        pass
    return Outcome("read")


def test_a_slow_file_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "SECONDS", 0.01)
    found = run_batch(Target("slow", seed_of, slow, slack), 1, 2)
    assert [(seed, what[:5]) for seed, what in found.failures] == [(1, "took "), (2, "took ")]


def greedy(case: int) -> Outcome:
    bytearray(3 << 20)
    return Outcome("read")


def test_what_writing_takes_is_not_the_readers() -> None:
    def written() -> None:
        greedy(0)

    found = run_batch(Target("writer", seed_of, lambda case: Outcome("read", written=written), slack), 0, 1)
    assert found.failures == []
    assert found.memory[0] < 1 << 20


def test_memory_beyond_what_is_stated_fails() -> None:
    found = run_batch(Target("greedy", seed_of, greedy, slack), 0, 3)
    [(seed, what)] = found.failures
    assert seed == 0
    assert what.endswith("stated were 1048576")


def wrong(case: int) -> Outcome:
    if case != seed_of(random.Random(0)):
        loads(b"\xff", what="x", depth=1)
    return Outcome("read")


def test_an_error_that_no_target_expects_fails_with_its_place() -> None:
    found = run_batch(Target("wrong", seed_of, wrong, slack), 5, 1)
    [(seed, what)] = found.failures
    assert seed == 5
    assert re.fullmatch(r"FormatError at wire/canonical.py:\d+: x: not UTF-8 at byte 0", what)


def test_a_file_that_hangs_is_given_up() -> None:
    with pytest.raises(HangError, match="still running when the alarm rang"), alarm(0.01):
        time.sleep(10)


def deadly(case: int) -> Outcome:
    if case == random.Random(12).randrange(1 << 32):
        os._exit(7)
    return Outcome("read")


def test_a_file_that_ends_its_process_is_told_and_the_others_run() -> None:
    records = list(isolated(Target("deadly", seed_of, deadly, slack), 10, 5))
    assert [(record["first"], record["count"]) for record in records] == [(10, 2), (12, 1), (13, 2)]
    [whole] = merged(records)
    assert (whole["count"], whole["outcomes"]) == (5, {"read": 4, "FAILURE": 1})
    assert whole["failures"] == [(12, "ended its process (7)")]
    assert "| deadly | 5 |" in table([whole])


def stuck(case: int) -> Outcome:
    if case == random.Random(3).randrange(1 << 32):
        time.sleep(30)
    return Outcome("read")


def test_a_silent_process_is_ended() -> None:
    records = list(isolated(Target("stuck", seed_of, stuck, slack), 3, 2, silence=4.0))
    assert [record["failures"] for record in records] == [[(3, "ended its process (-9)")], []]


def test_the_place_is_the_line_that_found_fault() -> None:
    with pytest.raises(FormatError, match="not UTF-8") as caught:
        loads(b"\xff", what="x", depth=1)
    assert place(caught.value).startswith("wire/canonical.py:")
    assert place(KeyError()) == "KeyError"


def test_a_plan_shares_files_out() -> None:
    jobs = plan(20_000, 100)
    assert {job.target for job in jobs} == TARGETS.keys()
    assert sum(job.count for job in jobs) == 20_000
    assert [job.first for job in jobs if job.target == "task"] == [100, 5100]


# The report.


def test_the_report_is_that_of_the_results() -> None:
    assert REPORT.read_text("utf-8") == report(RESULTS.read_text("utf-8"))


def test_every_finding_has_its_test() -> None:
    text = (ROOT / "tests" / "test_fuzz_found.py").read_text("utf-8")
    assert [item.test for item in FINDINGS if f"def {item.test}(" not in text] == []
    assert {item.target for item in FINDINGS} <= TARGETS.keys()


def test_figures_of_the_guided_fuzzer_are_read_from_its_log() -> None:
    log = "#2\tINITED cov: 30 ft: 40 corp: 3/9b\n#9\tNEW    cov: 35 ft: 50 corp: 4/12b\nDone 9 runs in 2 second(s)\n"
    found = {"runs": 9, "seconds": 2, "covered_first": 30, "covered": 35, "features": 50, "corpus": 4}
    assert figures(log) == found
    assert figures(log.partition("Done")[0])["runs"] == 9
    assert figures("")["runs"] == 0
