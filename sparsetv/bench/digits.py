"""The suite that needs no download: the demo's base and fine-tunes, and scikit-learn's digits as image files."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsetv import __version__
from sparsetv.atomic import new_directory, write_file
from sparsetv.bench.suite import Suite, read_suite
from sparsetv.durable import sync_files
from sparsetv.errors import NotFoundError, OutputError

if TYPE_CHECKING:
    from torch import Tensor

    from sparsetv.demo.data import Digits, Split

ABOUT = "scikit-learn's 8x8 digits under six labellings; a ViT of 0.8 million parameters, trained on the spot"
GROUPS = {"similar": ("parity", "prime"), "dissimilar": ("digit", "loops", "left-heavy")}

# Ink counts 0 to 16. Eight grey levels apart they can be told by eye, and (8 * ink) / 64 - 1 has no rounding.
_LEVELS_PER_INK = 8
_PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": False,
    "do_rescale": True,
    "rescale_factor": 1 / 64,
    "do_normalize": True,
    "image_mean": [1.0],
    "image_std": [1.0],
}
_STAMP = "digits.json"


def make_digits(directory: str | Path, *, seed: int = 0, progress: Callable[[str], None] | None = None) -> Suite:
    """Make a directory with the demo's models and their data, skipping what an earlier call left complete.

    Args:
        directory: Gets `base/`, a directory per task, and `tasks/`: images, and `train.jsonl` and `test.jsonl` per
            task, whose images have the values that the models were trained on, bit for bit.
        seed: Of the models, as in `make_checkpoints`.
        progress: Called with a line of text before and after every training.

    Returns:
        The suite `digits`, its tasks in the demo's order.

    Raises:
        NotFoundError: The extra `demo` is not installed.
        OutputError: The directory cannot be written, or holds something else under one of those names.
    """
    try:
        import PIL.Image  # noqa: F401, PLC0415  an extra
        import sklearn  # noqa: F401, PLC0415
    except ImportError as error:
        raise NotFoundError(f"the digits need the package {error.name}: pip install 'sparsetv[demo]'") from None
    from sparsetv.demo.data import TASKS, load  # noqa: PLC0415
    from sparsetv.demo.train import make_checkpoints  # noqa: PLC0415

    room = Path(directory)
    made = make_checkpoints(room, seed=seed, progress=progress)
    for model in (made.base, *made.finetuned.values()):
        _write_processor(model)
    _ensure_data(room / "tasks", load())
    suite = read_suite(room)
    names = tuple(task.name for task in TASKS)
    tasks = tuple(suite.task(name) for name in names)
    return replace(suite, name="digits", tasks=tasks, merged=names, groups=GROUPS, seed=seed, about=ABOUT)


def _write_processor(model: Path) -> None:
    """Say beside a model how its images are read, so that every command can run it on files."""
    content = (json.dumps(_PROCESSOR, indent=2) + "\n").encode()
    target = model / "preprocessor_config.json"
    if not target.is_file() or target.read_bytes() != content:
        write_file(target, [content])


def _ensure_data(target: Path, digits: "Digits") -> None:
    stamp = json.dumps({"sparsetv": __version__, "levels_per_ink": _LEVELS_PER_INK}) + "\n"
    if target.exists():
        if not (target / _STAMP).is_file():
            raise OutputError(f"cannot write {target}: it exists, and holds no {_STAMP}; choose another directory")
        if (target / _STAMP).read_text("utf-8") == stamp:
            return
    with new_directory(target) as room:
        _write_images(room / "images", digits)
        for part, split in _parts(digits):
            _write_lines(room, part, split)
        (room / _STAMP).write_text(stamp, "utf-8")
        sync_files(room)


def _parts(digits: "Digits") -> "tuple[tuple[str, Split], ...]":
    return ("train", digits.train), ("test", digits.test)


def _write_images(folder: Path, digits: "Digits") -> None:
    """One file per image, which all tasks share."""
    from PIL import Image  # noqa: PLC0415

    folder.mkdir()
    for part, split in _parts(digits):
        for name, pixels in zip(_names(part, split), _levels(split.images), strict=True):
            Image.fromarray(pixels).save(folder / name)


def _levels(images: "Tensor") -> Iterable[Any]:
    """Grey levels 0 to 128 of images in [-1, 1], each a uint8 array of 8x8."""
    import torch  # noqa: PLC0415

    return ((images[:, 0] + 1) * (8 * _LEVELS_PER_INK)).to(torch.uint8).numpy()


def _write_lines(room: Path, part: str, split: "Split") -> None:
    from sparsetv.demo.data import TASKS  # noqa: PLC0415

    for task in TASKS:
        labels = task.label(split.images, split.digits).tolist()
        rows = [
            {"image": f"../images/{name}", "label": label}
            for name, label in zip(_names(part, split), labels, strict=True)
        ]
        folder = room / task.name
        folder.mkdir(exist_ok=True)
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def _names(part: str, split: "Split") -> list[str]:
    return [f"{part}-{number:04}.png" for number in range(len(split.images))]
