"""`python -m tests.fuzz`: every target, for so many files or so long, in several processes, started again at will."""

import argparse
import json
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fuzz.jobs import Job, plan, run_all
from fuzz.merge import merged, table
from fuzz.report import write_report
from fuzz.targets import TARGETS

_LOG = Path(tempfile.gettempdir()) / "sparsetv-fuzz.jsonl"


def main(words: Sequence[str] | None = None) -> int:
    """Fuzz, write down each batch, print a table; 1 where a file failed."""
    asked = _parser().parse_args(words)
    if asked.report:
        write_report()
        return 0
    records = _read(asked.log)
    jobs = _left(plan(asked.files, asked.first, tuple(asked.target or TARGETS)), records)
    asked.log.parent.mkdir(parents=True, exist_ok=True)
    with asked.log.open("a", encoding="utf-8") as log:

        def write(record: dict[str, Any]) -> None:
            line = json.dumps(record)
            records.append(json.loads(line))
            log.write(line + "\n")
            log.flush()
            print(f"{record['target']} {record['first']}: {record['count']} files", file=sys.stderr)

        run_all(jobs, processes=asked.processes, until=time.monotonic() + asked.seconds, write=write)
    whole = merged(records)
    if asked.results is not None:
        _write_lines(asked.results, [{**record, "machine": _machine()} for record in whole])
    print(table(whole))
    for record in whole:
        for seed, what in record["failures"]:
            print(f"{record['target']} {seed}: {what}")
    return int(any(record["failures"] for record in whole))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000, help="mutated files in all")
    parser.add_argument("--seconds", type=float, default=math.inf, help="start no batch after so many seconds")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="only these; may be repeated")
    parser.add_argument("--log", type=Path, default=_LOG, help="one line per batch; those in it are not run again")
    parser.add_argument("--results", type=Path, help="write one line per target of all that the log holds")
    parser.add_argument("--report", action="store_true", help="write REPORT.md from results.jsonl, and no more")
    return parser


def _machine() -> str:
    return f"a machine of {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def _left(jobs: Iterable[Job], records: Iterable[dict[str, Any]]) -> list[Job]:
    """What of some batches no record tells of."""
    done: dict[str, set[int]] = {}
    for record in records:
        done.setdefault(record["target"], set()).update(range(record["first"], record["first"] + record["count"]))
    left = []
    for job in jobs:
        seeds = sorted(set(range(job.first, job.first + job.count)) - done.get(job.target, set()))
        if seeds and len(seeds) == seeds[-1] - seeds[0] + 1:
            left.append(Job(job.target, seeds[0], len(seeds)))
        else:
            left += [Job(job.target, seed, 1) for seed in seeds]
    return left


def _read(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text("utf-8").splitlines()] if log.is_file() else []


def _write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """The records, and what else the file holds of the guided fuzzer."""
    kept = [record for record in _read(path) if "guided" in record]
    records = [*records, *kept]
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8")
