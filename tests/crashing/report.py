"""The matrix as a page."""

from collections.abc import Sequence

from crashing.matrix import Row
from crashing.real import Told
from crashing.scenes import READERS, SCENES
from crashing.signals import Struck
from crashing.troubles import TROUBLES

_HEAD = """# Crash matrix

Every command that changes the disk, on the smallest stage that makes it do all it can do, with trouble at every call
that may change the disk ({calls}). This page is written by

    python -m tests.crash_matrix --thorough

and tests/test_crash_matrix.py runs a few calls of each scene and trouble, and checks that nothing is missing here.

What must hold, at each point: the target is the old one or the new one, and once it is new it is never old again;
where the call failed, the error is a known one that names the target and says what to do; the next command works, and
no temporary file is left after it; after a command that ended well a power cut takes nothing back.
"""

_MODEL = """A power cut is modelled, not made: names are journalled in the order in which they changed, as ext4 and xfs
do it, and of a file whose content was not synced since it changed there is what was there at its last sync.

Where directories cannot be exchanged in one call, one that was set aside counts as the old one: the next command that
changes it puts it back. A weight file that is mapped and then cut off by others ends the process (SIGBUS); that is a
death like any other here.
"""


def page(rows: Sequence[Row], struck: Sequence[Struck], told: Sequence[Told], *, calls: Sequence[str]) -> str:
    """All of it as Markdown."""
    parts = [_HEAD.format(calls=", ".join(calls)), "## Troubles\n"]
    parts += [f"- **{trouble.name}**: {trouble.says}" for trouble in TROUBLES]
    parts += ["", _MODEL, "## Scenes\n", _count(rows), ""]
    parts += [*_table(rows), "", *_signals(struck), *_real(told)]
    return "\n".join(parts) + "\n"


def _count(rows: Sequence[Row]) -> str:
    tried = sum(row.points for row in rows)
    return (
        f"{len(SCENES)} scenes, {tried:,} points, none broken. A cell says how many calls were tried, then how often "
        "what was left was old / between (of commands that take several steps) / new. Commands that write nothing: "
        f"{', '.join(READERS)}."
    )


def _table(rows: Sequence[Row]) -> list[str]:
    names = [trouble.name for trouble in TROUBLES]
    found = {(row.scene, row.trouble): row for row in rows}
    lines = [f"| scene | command | {' | '.join(names)} |", "|---|---|" + "---|" * len(names)]
    for scene in SCENES:
        cells = [_cell(found[scene.name, name]) for name in names]
        lines.append(f"| {scene.name} | {scene.command} | {' | '.join(cells)} |")
    return lines


def _cell(row: Row) -> str:
    return f"{row.points}: {row.old} / {row.between} / {row.new}" if row.points else "none"


def _signals(struck: Sequence[Struck]) -> list[str]:
    lines = [
        "## Signals\n",
        "Real processes, struck at random moments after their imports.\n",
    ]
    lines += ["| command | signal | processes | ended before it | old | new |", "|---|---|---|---|---|---|"]
    for one in struck:
        lines.append(f"| {one.command} | {one.signal} | {one.processes} | {one.ended} | {one.old} | {one.new} |")
    return [*lines, ""]


def _real(told: Sequence[Told]) -> list[str]:
    lines = ["## Real trouble\n", "tests/test_crash_real.py and tests/test_crash_others.py, by what each test says.\n"]
    lines += ["| trouble | what holds | result |", "|---|---|---|"]
    return [*lines, *(f"| {one.name} | {one.says} | {one.result} |" for one in told)]
