"""`python -m tests.fuzz.guided TARGET`: the coverage-guided fuzzer, on a corpus made from the golden files."""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.guided_targets import GUIDED, Guided

_TESTS = Path(__file__).parents[1]
_OPTIONS = ("-timeout=20", "-rss_limit_mb=4096", "-max_len=65536", "-print_final_stats=1", "-close_fd_mask=0")


def main(words: Sequence[str] | None = None) -> int:
    """Run the fuzzer and print its figures; 1 where a file failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided", description=__doc__)
    parser.add_argument("target", choices=list(GUIDED))
    parser.add_argument("--runs", type=int, default=-1, help="executions; without end by default")
    parser.add_argument("--seconds", type=int, default=0, help="time; without end by default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, help="directory for the corpus and what fails; else a temporary one")
    parser.add_argument("--results", type=Path, help="append one line to this file")
    asked = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="sparsetv-guided-") as name:
        found = _run(asked, asked.corpus or Path(name))
    print(json.dumps(found))
    if asked.results is not None:
        with asked.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
    return int(found["failed"])


def _run(asked: argparse.Namespace, room: Path) -> dict[str, Any]:
    corpus = room / asked.target
    _sow(GUIDED[asked.target], corpus)
    kept = asked.corpus or Path(tempfile.gettempdir())  # what fails outlives the corpus; the log says where it is
    limits = [f"-runs={asked.runs}", f"-max_total_time={asked.seconds}", f"-seed={asked.seed}"]
    command = [sys.executable, "-m", "fuzz.harness", asked.target, *_OPTIONS, *limits, f"-artifact_prefix={kept}/"]
    path = os.pathsep.join([str(_TESTS), str(_TESTS.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([*command, corpus], env=environment, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        print(done.stderr[-4000:], file=sys.stderr)
    return {"guided": asked.target, "failed": bool(done.returncode), **figures(done.stderr)}


def _sow(target: Guided, corpus: Path) -> None:
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.corpus()):
        (corpus / f"seed-{number:03}").write_bytes(data)


def figures(log: str) -> dict[str, Any]:
    """Executions, seconds, lines covered and size of the corpus, as the fuzzer's log has them."""
    done = re.search(r"Done (\d+) runs in (\d+) second", log)
    last = re.findall(r"^#(\d+)", log, re.MULTILINE) or ["0"]
    states = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)/", log) or [("0", "0", "0")]
    runs, seconds = (int(done[1]), int(done[2])) if done else (int(last[-1]), 0)
    names = ("covered", "features", "corpus")
    reached = dict(zip(names, map(int, states[-1]), strict=True))
    return {"runs": runs, "seconds": seconds, "covered_first": int(states[0][0]), **reached}


if __name__ == "__main__":
    sys.exit(main())
