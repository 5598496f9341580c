"""How a rearrangement of tensors moves their entries, found by watching marked entries.

Only affine rearrangements have a layout: an entry at coordinates c lands at `offset + sum(c * strides)`. Stacking,
concatenating, transposing and reshaping are of this kind; arithmetic and permutations inside blocks are not.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

Shape = tuple[int, ...]

_RANDOM = 8


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the entries of a tensor lie in another.

    Attributes:
        offset: Flat position of the first entry.
        strides: How far apart neighbours lie, per dimension, in entries; 0 where the dimension has size 1.
    """

    offset: int
    strides: tuple[int, ...]

    def at(self, coordinates: Sequence[int]) -> int:
        """Flat position of the entry at these coordinates."""
        return self.offset + sum(at * stride for at, stride in zip(coordinates, self.strides, strict=True))


def row_major(shape: Shape) -> Layout:
    """The layout of a tensor in itself."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step if size > 1 else 0)
        step *= size
    return Layout(0, tuple(reversed(strides)))


def find_layouts(
    shapes: Sequence[Shape], rearrange: Callable[[list[torch.Tensor]], torch.Tensor]
) -> list[Layout] | None:
    """Where `rearrange` puts the entries of each tensor.

    Marked are each tensor's first entry, entries at every power of two along each dimension, the last entry and some
    random ones. The first few give the layout and all others must agree with it: a permutation inside blocks of any
    length moves at least one of them elsewhere.

    Args:
        shapes: Shape per tensor that `rearrange` takes.
        rearrange: Gives one tensor from integer tensors of these shapes.

    Returns:
        One layout per shape; None if the rearrangement is not affine, changes values, or drops or repeats entries.

    Cost:
        What `rearrange` costs on tensors of 1 to 4 bytes an entry; what it is given takes no memory until written.
    """
    marks = [_marked(shape) for shape in shapes]
    found = _locate(rearrange(_plant(shapes, marks)), sum(map(len, marks)))
    if found is None:
        return None
    layouts: list[Layout] = []
    start = 0
    for shape, coordinates in zip(shapes, marks, strict=True):
        layout = _fit(shape, dict(zip(coordinates, found[start : start + len(coordinates)], strict=True)))
        if layout is None:
            return None
        layouts.append(layout)
        start += len(coordinates)
    return layouts


def _marked(shape: Shape) -> list[Shape]:
    """Coordinates of the entries to mark, each once."""
    if 0 in shape:
        return []
    origin = (0,) * len(shape)
    chosen = [origin]
    for axis, size in enumerate(shape):
        chosen += [_along(origin, axis, 1 << power) for power in range((size - 1).bit_length())]
    generator = random.Random(0)
    chosen.append(tuple(size - 1 for size in shape))
    chosen += [tuple(generator.randrange(size) for size in shape) for _ in range(_RANDOM)]
    return list(dict.fromkeys(chosen))


def _along(origin: Shape, axis: int, step: int) -> Shape:
    return (*origin[:axis], step, *origin[axis + 1 :])


def _plant(shapes: Sequence[Shape], marks: Sequence[Sequence[Shape]]) -> list[torch.Tensor]:
    """Integer tensors that are zero but for the marks, numbered from 1 throughout."""
    total = sum(map(len, marks))
    dtype = next(kind for kind in (np.uint8, np.int16, np.int32) if total <= np.iinfo(kind).max)
    planted = []
    number = 0
    for shape, coordinates in zip(shapes, marks, strict=True):
        array = np.zeros(shape, dtype)  # numpy's zeros, unlike torch's, take up no memory until they are written
        for at in coordinates:
            number += 1
            array[at] = number
        planted.append(torch.from_numpy(array))
    return planted


def _locate(result: torch.Tensor, total: int) -> list[int] | None:
    """Flat positions of marks 1 to `total`; None if they are not what there is, each once."""
    flat = result.reshape(-1)
    if int(torch.count_nonzero(flat)) != total:
        return None
    positions = flat.nonzero().reshape(-1)
    values = flat[positions].to(torch.float64)
    order = torch.argsort(values)
    if not torch.equal(values[order], torch.arange(1, total + 1, dtype=torch.float64)):
        return None
    located: list[int] = positions[order].tolist()
    return located


def _fit(shape: Shape, landed: dict[Shape, int]) -> Layout | None:
    """The layout that agrees with where all marks of a tensor landed."""
    origin = (0,) * len(shape)
    offset = landed.get(origin, 0)
    steps = (landed.get(_along(origin, axis, 1), offset) for axis in range(len(shape)))
    layout = Layout(offset, tuple(step - offset for step in steps))
    return layout if all(layout.at(at) == position for at, position in landed.items()) else None
