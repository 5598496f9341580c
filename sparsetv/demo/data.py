"""The demo's images and tasks: scikit-learn's 8x8 digits, and six ways to label them.

Reference:
    Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

SIDE = 8
"""Height and width of an image in pixels."""

_TEST_IMAGES = 400
_SPLIT_SEED = 0  # one split for every seed of the demo, so that accuracies of two runs compare
_FULL_INK = 16  # load_digits counts ink in 4x4 blocks: 0 to 16

_LOOPS = (1, 0, 0, 0, 0, 0, 1, 0, 2, 1)
_IS_PRIME = (0, 0, 1, 1, 0, 1, 0, 1, 0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Images of one part of the data, and the digit that each shows.

    Attributes:
        images: float32, (n, 1, 8, 8), in [-1, 1]: -1 is paper, 1 is ink.
        digits: int64, (n,), 0 to 9.
    """

    images: Tensor
    digits: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Digits:
    """All 1,797 images, divided once and for all into a training and a test part."""

    train: Split
    test: Split


@dataclass(frozen=True, slots=True)
class Task:
    """One way to label the images.

    Attributes:
        name: Short, unique, usable as a folder's name.
        classes: What label 0, 1, ... means.
        label: From images, float32 (n, 1, 8, 8), and digits, int64 (n,), to labels, int64 (n,).
    """

    name: str
    classes: tuple[str, ...]
    label: Callable[[Tensor, Tensor], Tensor]


def load() -> Digits:
    """Load the images that scikit-learn ships, and split them by a fixed seed, stratified by digit.

    Returns:
        1,397 training and 400 test images.
    """
    raw = load_digits()
    images = torch.tensor(raw.images, dtype=torch.float32).reshape(-1, 1, SIDE, SIDE) * (2 / _FULL_INK) - 1
    digits = torch.tensor(raw.target, dtype=torch.int64)
    train, test = train_test_split(
        range(len(digits)), test_size=_TEST_IMAGES, stratify=raw.target, random_state=_SPLIT_SEED
    )
    return Digits(train=Split(images[train], digits[train]), test=Split(images[test], digits[test]))


def _digit(_images: Tensor, digits: Tensor) -> Tensor:
    return digits.clone()


def _parity(_images: Tensor, digits: Tensor) -> Tensor:
    return digits % 2


def _at_least_five(_images: Tensor, digits: Tensor) -> Tensor:
    return (digits >= 5).long()


def _loops(_images: Tensor, digits: Tensor) -> Tensor:
    return torch.tensor(_LOOPS)[digits]


def _prime(_images: Tensor, digits: Tensor) -> Tensor:
    return torch.tensor(_IS_PRIME)[digits]


def _left_heavy(images: Tensor, _digits: Tensor) -> Tensor:
    """1 where the left half holds more ink than the right; a tie is 0."""
    left, right = images[..., : SIDE // 2], images[..., SIDE // 2 :]
    return (left.sum(dim=(1, 2, 3)) > right.sum(dim=(1, 2, 3))).long()


TASKS: tuple[Task, ...] = (
    Task("digit", tuple("0123456789"), _digit),
    Task("parity", ("even", "odd"), _parity),
    Task("at-least-five", ("below five", "five or more"), _at_least_five),
    Task("loops", ("no loop", "one loop", "two loops"), _loops),
    Task("prime", ("not prime", "prime"), _prime),
    Task("left-heavy", ("right half darker", "left half darker"), _left_heavy),
)
"""Five readings of the digit and one of the pixels alone."""
