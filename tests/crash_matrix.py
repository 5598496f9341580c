"""The crash matrix: every command that changes the disk, under every trouble at every call; writes tests/CRASH.md.

    python -m tests.crash_matrix [--thorough]

Without `--thorough` a few calls of each scene and trouble, and nothing is written.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crashing.matrix import Row
    from crashing.scenes import Scene

HERE = Path(__file__).parent
PAGE = HERE / "CRASH.md"
_MEMORY = "/dev/shm"
_FEW = 4


def main() -> None:
    """Run the matrix, and print each scene as it ends."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash_matrix", description=__doc__.splitlines()[0])
    parser.add_argument("--thorough", action="store_true", help="Every call, real trouble too; write the page.")
    parser.add_argument("--room", metavar="DIR", help="Where to play.  [default: memory]")
    parser.add_argument("--scene", default="", metavar="TEXT", help="Only scenes whose names hold it; write nothing.")
    parser.add_argument("--times", type=int, default=12, metavar="N", help="Processes per command and signal.")
    asked = parser.parse_args()
    sys.path.insert(0, str(HERE))
    from crashing import hooks, real, report, scenes, signals

    chosen = [scene for scene in scenes.SCENES if asked.scene in scene.name]
    room = asked.room or (_MEMORY if os.access(_MEMORY, os.W_OK) else None)
    with tempfile.TemporaryDirectory(dir=room) as place:
        rows = play(chosen, Path(place), most=None if asked.thorough else _FEW)
        if asked.thorough and not asked.scene:
            struck = list(signals.strike_all(Path(place) / "signals", times=asked.times))
            PAGE.write_text(report.page(rows, struck, real.run(), calls=hooks.CALLS), "utf-8")
            sys.stdout.write(f"written: {PAGE.name}\n")


def play(chosen: "list[Scene]", place: Path, *, most: int | None) -> "list[Row]":
    """All rows of some scenes."""
    from crashing.matrix import theatre

    rows: list[Row] = []
    with theatre(place) as stage:
        for scene in chosen:
            started = time.monotonic()
            found = stage.play(scene, most=most)
            points = sum(row.points for row in found)
            sys.stdout.write(f"{scene.name}: {points} points, {time.monotonic() - started:.1f} s\n")
            sys.stdout.flush()
            rows += found
    return rows


if __name__ == "__main__":
    main()
