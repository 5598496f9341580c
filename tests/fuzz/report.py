"""`REPORT.md` from `results.jsonl` and `findings.py`: nothing in it is written by hand."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fuzz.findings import FINDINGS
from fuzz.merge import row, table
from fuzz.sound import LIMITS

ROOM = Path(__file__).parent
RESULTS, REPORT = ROOM / "results.jsonl", ROOM / "REPORT.md"

_HEAD = ("target", "executions", "seconds", "per s", "edges at first", "at last", "corpus", "failures")

_INTRODUCTION = """# What fuzzing did

Written by `python -m tests.fuzz --report` from `results.jsonl`; run the commands again to write both anew.

## Mutated files

`python -m tests.fuzz --files {files} --first {first} --results tests/fuzz/results.jsonl`

{total:,} mutated files in {minutes:.0f} minutes of processes ({machine}, beside other work), {failures}.
Hashes and lengths are repaired after a change, so that all layers are reached. A file fails where anything but a known
error is raised; where content is read that is not sound, has another digest than its file, or is not the same after it
was written and read again; where it takes more than a second of processor time; where it ends its process or does not
end; and, for one in 64, where it holds more memory than the reader states before it decodes (1 MiB is left for what is
parsed; the reader's budget is {budget} MiB here). No process may hold 1 GiB beyond that budget.

`places` counts lines of the package that refused some file. `MB held` is the most that Python and numpy held for one
file; for archives 32 MiB of it are a block that is never touched.
"""

_GUIDED = """
## Guided by coverage

`python -m tests.fuzz.guided TARGET --seconds 605`, with the extra `fuzz` installed. The corpus begins with the golden
files and the files that the tests pack; `task` and `manifest` change files and manifests with hashes repaired, the
others read the decisions of the mutators above from the fuzzer's bytes. Only the package is instrumented; `edges` are
those of its code that were reached, by the corpus at first and by everything at last.
"""

_FOUND = """
## What was found, and mended

By the files above, by 810,000 that ran before these mends, and by asking what the smallest file could cost.
Checkpoints, whose last mend came during the run, and two batches in which the fuzzer itself failed, ran once more. Each
finding has its smallest form as a test in `tests/test_fuzz_found.py`.
"""


def write_report() -> None:
    """Write `REPORT.md` anew."""
    REPORT.write_text(report(RESULTS.read_text("utf-8")), "utf-8")


def report(lines: str) -> str:
    """The report of some results."""
    records = [json.loads(line) for line in lines.splitlines()]
    plain = [record for record in records if "target" in record]
    guided = [record for record in records if "guided" in record]
    text = _introduction(plain) + "\n" + table(plain) + "\n" + _GUIDED + "\n" + _guided_table(guided) + "\n" + _FOUND
    return text + "\n" + "\n".join(_found()) + "\n"


def _introduction(records: Sequence[dict[str, Any]]) -> str:
    total, seconds = sum(r["count"] for r in records), sum(r["seconds"] for r in records)
    failed = sum(len(record["failures"]) for record in records)
    return _INTRODUCTION.format(
        files=total,
        first=min(record["first"] for record in records),
        total=total,
        minutes=seconds / 60,
        machine=records[0]["machine"],
        failures=f"{failed} of them failed" if failed else "none of which failed",
        budget=LIMITS.decoded_bytes >> 20,
    )


def _guided_table(records: Sequence[dict[str, Any]]) -> str:
    lines = [row(_HEAD), row(["---"] * len(_HEAD))]
    for record in records:
        rate = record["runs"] / max(record["seconds"], 1)
        cells = [record["guided"], f"{record['runs']:,}", f"{record['seconds']:,}", f"{rate:,.0f}"]
        cells += [str(record[key]) for key in ("covered_first", "covered", "corpus")]
        lines.append(row([*cells, str(int(record["failed"]))]))
    return "\n".join(lines)


def _found() -> list[str]:
    lines = [row(("target", "was", "now", "test")), row(["---"] * 4)]
    return lines + [row((item.target, item.was, item.now, f"`{item.test}`")) for item in FINDINGS]
