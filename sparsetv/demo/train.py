"""Make the demo's base and its fine-tunes: real checkpoint directories, in under a minute on two cores."""

import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from sparsetv import __version__
from sparsetv.demo.accuracy import accuracy
from sparsetv.demo.data import TASKS, Digits, Task, load
from sparsetv.demo.fit import Recipe, fit, seeded
from sparsetv.demo.folder import ensure, weights_digest
from sparsetv.demo.model import new_classifier, read_body, save_body, save_classifier, with_new_head
from sparsetv.demo.symmetry import SYMMETRIES, apply_random
from sparsetv.durable import make_directory

PRETRAINING = Recipe(
    epochs=12, batch_size=64, learning_rate=2e-3, head_learning_rate=2e-3, epsilon=1e-8, weight_decay=0.05
)
"""How the base learns to tell the symmetries of an image apart."""

# With AdamW's default epsilon of 1e-8 a weight moves by about the learning rate per step, whether its gradient is large
# or tiny, and after so short a training of so small a model the change is spread over most entries. With a large
# epsilon the step follows the gradient, as in SGD with momentum, and the change concentrates: chosen so that the demo
# has something to localize. The learning rates look high because the large epsilon shrinks every step.
FINE_TUNING = Recipe(
    epochs=5, batch_size=64, learning_rate=1e-2, head_learning_rate=1e-2, epsilon=3e-2, weight_decay=0.0
)
"""How every fine-tune is made; the whole model is trained, with a fresh head."""


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Where the demo's checkpoints are.

    Attributes:
        base: Directory of the bare body, a `ViTModel`.
        finetuned: Per task name, in the order of `TASKS`, the directory of a `ViTForImageClassification`.
    """

    base: Path
    finetuned: dict[str, Path]


def make_checkpoints(directory: Path, *, seed: int = 0, progress: Callable[[str], None] | None = None) -> Checkpoints:
    """Pretrain the base and fine-tune it on every task, skipping what an earlier call left complete.

    The same seed gives the same bits on one machine with one number of torch threads. Torch's global generator is left
    as it was.

    Args:
        directory: Where to put `base/` and one directory per task; created if missing.
        seed: Of the initial weights, the order of the images and the pretext task.
        progress: Called with a line of text before and after every training.

    Returns:
        The directories.

    Raises:
        OutputError: The directory cannot be written, or holds something else under one of those names.
    """
    say = progress or _ignore
    make_directory(directory)
    digits = load()
    base = directory / "base"
    ensure(base, _how(PRETRAINING, seed=seed), make=lambda target: _pretrain(target, digits, seed=seed, say=say))
    finetuned = {task.name: directory / task.name for task in TASKS}
    for task in TASKS:
        _ensure_finetuned(finetuned[task.name], task, digits, base=base, seed=seed, say=say)
    return Checkpoints(base=base, finetuned=finetuned)


def _pretrain(target: Path, digits: Digits, *, seed: int, say: Callable[[str], None]) -> None:
    say("base: pretraining")
    with seeded(_derive(seed, "base")):
        model = new_classifier(SYMMETRIES)
        fit(model, PRETRAINING, epoch=lambda: apply_random(digits.train.images))
        images, labels = apply_random(digits.test.images)
    save_body(model, target)
    say(f"base: tells {len(SYMMETRIES)} symmetries apart with accuracy {accuracy(model, images, labels):.3f}")


def _ensure_finetuned(
    target: Path, task: Task, digits: Digits, *, base: Path, seed: int, say: Callable[[str], None]
) -> None:
    how = _how(FINE_TUNING, seed=seed) | {"task": task.name, "base_sha256": weights_digest(base)}
    ensure(target, how, make=lambda folder: _finetune(folder, task, digits, base=base, seed=seed, say=say))


def _finetune(target: Path, task: Task, digits: Digits, *, base: Path, seed: int, say: Callable[[str], None]) -> None:
    say(f"{task.name}: fine-tuning")
    labels = task.label(digits.train.images, digits.train.digits)
    with seeded(_derive(seed, task.name)):
        model = with_new_head(read_body(base), task.classes)
        fit(model, FINE_TUNING, epoch=lambda: (digits.train.images, labels))
    save_classifier(model, target)
    reached = accuracy(model, digits.test.images, task.label(digits.test.images, digits.test.digits))
    say(f"{task.name}: accuracy {reached:.3f}")


def _how(recipe: Recipe, *, seed: int) -> dict[str, object]:
    return {"sparsetv": __version__, "recipe": asdict(recipe), "seed": seed}


def _derive(seed: int, name: str) -> int:
    """A seed of its own for every training, so that skipping one leaves the others as they are."""
    return zlib.crc32(f"{seed}/{name}".encode())


def _ignore(_message: str) -> None:
    pass
