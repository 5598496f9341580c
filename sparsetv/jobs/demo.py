"""The whole thing on an embedded default: pretrain, fine-tune, pack, graft, stitch, add, remove, check every bit."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.compose.base import base_of
from sparsetv.compose.directory import open_stitched
from sparsetv.demo.accuracy import accuracy
from sparsetv.demo.data import TASKS, Split, load
from sparsetv.demo.data import Task as DigitTask
from sparsetv.demo.model import read_classifier
from sparsetv.demo.picture import draw
from sparsetv.demo.rows import Row
from sparsetv.demo.train import Checkpoints, make_checkpoints
from sparsetv.errors import VerifyError
from sparsetv.jobs.models import task_model
from sparsetv.jobs.options import PackOptions
from sparsetv.jobs.pack import pack_files
from sparsetv.jobs.stitch import add, remove, stitch
from sparsetv.jobs.verify import verify
from sparsetv.taskfile import read_task, write_task

if TYPE_CHECKING:
    from torch import nn

DENSITY = 0.01
PICTURE = "demo.png"
_WEIGHTS = "model.safetensors"

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo measured and checked.

    Attributes:
        rows: Per task.
        checks: What was compared bit for bit; every one held, or the demo had raised.
        directory: Where files are kept; empty if nowhere.
    """

    rows: tuple[Row, ...]
    checks: tuple[str, ...]
    directory: str

    def table(self) -> str:
        """The rows and checks as text."""
        head = f"{'task':14}{'file':>9}{'% of ckpt':>11}{'base':>8}{'fine-tuned':>12}{'grafted':>9}{'stitched':>10}"
        lines = [head, *(_line(row) for row in self.rows), ""]
        lines += [f"checked: {check}" for check in self.checks]
        return "\n".join([*lines, f"kept in {self.directory}"] if self.directory else lines)


def _ignore(_text: str) -> None:
    pass


def _line(row: Row) -> str:
    share = 100 * row.file_bytes / row.checkpoint_bytes
    numbers = f"{row.base:>8.3f}{row.finetuned:>12.3f}{row.grafted:>9.3f}{row.stitched:>10.3f}"
    return f"{row.task:14}{row.file_bytes:>9,}{share:>11.2f}{numbers}"


def run_demo(output: str | Path | None = None, *, note: Note | None = None) -> DemoResult:
    """Run the demo.

    Args:
        output: Directory for models, task files and picture; None for a temporary one.
        note: Told what is under way.

    Raises:
        VerifyError: A check failed.
        OutputError: `output` cannot be written.
    """
    say = note or _ignore
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        room = Path(output) if output else scratch / "room"
        checkpoints = make_checkpoints(room / "models", progress=say)
        files = _pack_all(checkpoints, room, say)
        test = load().test
        grafted = {task.name: _grafted(checkpoints, files, scratch, task, test) for task in TASKS}
        say("stitching all tasks, adding one, removing them")
        merged, checks = _compose(checkpoints, list(files.values()), room / "merged", scratch)
        rows = tuple(_row(task, checkpoints, files, grafted, merged, test) for task in TASKS)
        draw(rows, room / PICTURE)
        return DemoResult(rows, checks, str(room) if output else "")


def _pack_all(checkpoints: Checkpoints, room: Path, say: Note) -> dict[str, Path]:
    """Pack every fine-tune, and verify the file against base and fine-tune."""
    files = {}
    for name, finetuned in checkpoints.finetuned.items():
        files[name] = room / f"{name}.stv"
        task = pack_files(checkpoints.base, finetuned, name=name, options=PackOptions(density=DENSITY), note=say)
        size = write_task(files[name], task)
        verify(files[name], base=checkpoints.base, finetuned=finetuned)
        say(f"{name}: packed into {size:,} bytes, verified bit for bit")
    return files


def _grafted(checkpoints: Checkpoints, files: dict[str, Path], scratch: Path, task: DigitTask, test: Split) -> float:
    """Accuracy of the base with one task's file."""
    target = scratch / task.name
    stitch(checkpoints.base, [files[task.name]], target)
    return _accuracy(read_classifier(target), task, test)


def _compose(
    checkpoints: Checkpoints, files: Sequence[Path], merged: Path, scratch: Path
) -> tuple[Path, tuple[str, ...]]:
    """Stitch all tasks into `merged`, add and remove some; returns it and what was checked."""
    other, without = scratch / "other", scratch / "without"
    stitch(checkpoints.base, files[:-1], merged)
    add(merged, files[-1:])
    stitch(checkpoints.base, files, other)
    checks = [_same(merged, other, f"adding task {len(files)} gives the bits of stitching all {len(files)} afresh")]
    remove(other, [files[0].stem])
    stitch(checkpoints.base, files[1:], without)
    checks.append(_same(other, without, f"removing {files[0].stem} gives the bits of never having had it"))
    remove(other, [file.stem for file in files[1:]])
    checks.append(_same(other, checkpoints.base, "removing every task gives the base's file, byte for byte"))
    kept = f"kept weights of all {len(files)} files are the fine-tunes', bit for bit"
    return merged, (kept, *checks)


def _same(first: Path, second: Path, claim: str) -> str:
    if (first / _WEIGHTS).read_bytes() != (second / _WEIGHTS).read_bytes():
        raise VerifyError(f"{first} and {second} differ, so this does not hold: {claim}")
    return claim


def _row(
    task: DigitTask,
    checkpoints: Checkpoints,
    files: dict[str, Path],
    grafted: dict[str, float],
    merged: Path,
    test: Split,
) -> Row:
    packed = read_task(files[task.name])
    finetuned = checkpoints.finetuned[task.name]
    plain = base_of(open_checkpoint(checkpoints.base), {})
    return Row(
        task=task.name,
        file_bytes=files[task.name].stat().st_size,
        checkpoint_bytes=(finetuned / _WEIGHTS).stat().st_size,
        base=_accuracy(task_model(plain, packed, None), task, test),
        finetuned=_accuracy(read_classifier(finetuned), task, test),
        grafted=grafted[task.name],
        stitched=_accuracy(task_model(open_stitched(merged).merged_base(), packed, None), task, test),
    )


def _accuracy(model: "nn.Module", task: DigitTask, test: Split) -> float:
    return accuracy(model, test.images, task.label(test.images, test.digits))
