"""Tasks on a live model: switched, combined and taken off in place, heads included."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from sparsetv.belonging import check_verify, touched
from sparsetv.errors import NotFoundError, UsageError
from sparsetv.live.composer import Composer, State
from sparsetv.live.heads import Head, Heads, find_head
from sparsetv.live.sites import site_of
from sparsetv.places.names import search_places
from sparsetv.places.state import unwrap
from sparsetv.rules import find_rule
from sparsetv.scales import check_scale
from sparsetv.task_vector import SparseTaskVector
from sparsetv.taskfile import read_task

_FLOATS = ("BF16", "F16", "F32", "F64")


def attach(
    model: nn.Module,
    *tasks: str | Path | SparseTaskVector,
    rule: str = "mean",
    scale: str | float = "auto",
    min_tasks: int = 2,
    verify: str = "touched",
) -> "LiveModel":
    """Make a live model take tasks in place.

    Weights are written into the parameters' own memory, so compiled graphs and captured CUDA graphs stay valid. The
    model must hold the base's weights; nothing is applied until `activate`.

    Args:
        model: A transformers model (or any module whose state names are the base checkpoint's), on any devices.
        tasks: Task files, or tasks in memory, to hold ready.
        rule, scale, min_tasks, verify: As for `Composer`; `verify="meta"` also serves a model that was loaded in
            another float dtype than its checkpoint's.

    Raises:
        BaseMismatchError: The model does not hold the base that a task was packed against.
        NamesError: A tensor that a task changes has no place in the model, or transformers changes it on load in a way
            that cannot be followed entry by entry.
        ShapeError: A shape disagrees, or a tensor cannot be written in place (quantized, offloaded, sharded).

    Cost:
        See `Composer`; the base is hashed once where tasks touch it. Fused experts cost about twice the fused tensor in
        transient memory, once.
    """
    live = LiveModel(model, rule=rule, scale=scale, min_tasks=min_tasks, verify=verify)
    for task in tasks:
        live.load(task)
    return live


class LiveModel:
    """A model with tasks that come and go; see `attach`.

    Not for use from several threads at once, and not while a forward pass runs.
    """

    def __init__(self, model: nn.Module, *, rule: str, scale: str | float, min_tasks: int, verify: str) -> None:
        find_rule(rule, min_tasks=min_tasks)
        check_scale(scale)
        check_verify(verify)
        self._state = unwrap(model)
        self._options = (rule, scale, min_tasks, verify)
        self._composer: Composer | None = None
        self._problems: dict[str, Exception] = {}
        self._heads = Heads(self._state)
        self._carried: dict[str, Head] = {}
        self._head: str | None = None

    @property
    def active(self) -> dict[str, float]:
        """Weight by name of the tasks in force."""
        return self._composer.weights if self._composer is not None else {}

    @property
    def head(self) -> str | None:
        """Whose head the model has; None for its own."""
        return self._head

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks held ready, ascending."""
        return tuple(sorted(self._carried))

    def state(self) -> State | None:
        """What is held and in force; None before the first task."""
        return self._composer.state() if self._composer is not None else None

    def load(self, task: str | Path | SparseTaskVector) -> str:
        """Hold a task ready; returns its name.

        Raises:
            BaseMismatchError, NamesError, ShapeError: As for `attach`.
            UsageError: A task of its name or content is held already.
        """
        loaded = task if isinstance(task, SparseTaskVector) else read_task(task)
        composer = self._composer or self._compose(loaded)
        for name in touched(loaded):
            if name in self._problems:
                raise self._problems[name]
        head = find_head(self._state, loaded)
        composer.load(loaded)
        if self._composer is None:
            self._composer = composer
        self._carried[loaded.name] = head
        return loaded.name

    def unload(self, name: str) -> None:
        """Forget a task, after taking it out of force."""
        composer = self._ready(name)
        if self._head == name:
            self.use_head(None)
        composer.unload(name)
        del self._carried[name]

    def activate(self, *names: str, weights: Mapping[str, float] | None = None, head: str | None = None) -> None:
        """Put exactly these tasks in force; on failure the model stays as it is.

        Args:
            names: Tasks held ready; none of them means the base.
            weights: Weight per task, 1 where absent, negative to negate a task.
            head: Whose head the model takes: of a single task its own, of several the model's own unless said here.

        Raises:
            NotFoundError: A task is not held.
            NonFiniteError: A merged entry would overflow.
            UsageError: A weight for a task that is not named, or a head of one.
        """
        for name in (*names, *(() if head is None else (head,))):
            self._ready(name)
        unknown = sorted({*(weights or {}), *(() if head is None else (head,))} - set(names))
        if unknown or len(set(names)) < len(names):
            what = f"{unknown[0]!r} is not among them" if unknown else "one of them is named twice"
            raise UsageError(f"to be activated are {', '.join(names) or 'none'}, but {what}")
        if self._composer is not None:
            self._composer.activate({name: float((weights or {}).get(name, 1.0)) for name in names})
        self.use_head(names[0] if head is None and len(names) == 1 else head)

    def deactivate(self) -> None:
        """Back to the base and the model's own heads, bit for bit."""
        self.activate()

    def use_head(self, name: str | None) -> None:
        """Give the model a held task's head, or its own; the weights in force stay."""
        self._heads.put(None if name is None else self._carried[self._known(name)])
        self._head = name

    def head_of(self, name: str) -> dict[str, torch.Tensor]:
        """A task's head tensors under the model's names; empty where the model takes none of them."""
        return dict(self._carried[self._known(name)].tensors)

    @contextmanager
    def using(
        self, *names: str, weights: Mapping[str, float] | None = None, head: str | None = None
    ) -> Iterator[nn.Module]:
        """`activate` for the length of a block; afterwards what was in force before is in force again."""
        before, own = self.active, self._head
        self.activate(*names, weights=weights, head=head)
        try:
            yield self._state.model
        finally:
            self.activate(*before, weights=before)
            self.use_head(own)

    def _compose(self, task: SparseTaskVector) -> Composer:
        """A composer over the live tensors of the task's base."""
        shapes = dict(zip(task.base.names, task.base.shapes, strict=True))
        names = [n for n, dtype in zip(task.base.names, task.base.dtypes, strict=True) if dtype in _FLOATS]
        places, problems = search_places(self._state.model, shapes, names=names)
        for name in touched(task):
            if name in problems:
                raise problems[name]
        self._problems = dict(problems)
        rule, scale, min_tasks, verify = self._options
        return Composer.over(
            {name: site_of(name, place) for name, place in places.items() if place.tensor.dtype != torch.float64},
            rule=rule,
            scale=scale,
            min_tasks=min_tasks,
            verify=verify,
            source=f"the live {self._state.kind}",
        )

    def _ready(self, name: str) -> Composer:
        self._known(name)
        if self._composer is None:
            raise NotFoundError(f"no task {name!r} is held")
        return self._composer

    def _known(self, name: str) -> str:
        if name not in self._carried:
            raise NotFoundError(f"no task {name!r} is held; those held are {', '.join(self.tasks) or 'none'}")
        return name
