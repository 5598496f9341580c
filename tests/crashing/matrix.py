"""Scenes under trouble: what is tried, and what must hold."""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crash import in_child
from hostile import outcome

from crashing.hooks import Hooks
from crashing.scenes import Scene
from crashing.stage import build
from crashing.state import copy_stage, signature, temporaries
from crashing.troubles import KILLED, TROUBLES, Trouble, arm
from sparsetv import renaming
from sparsetv.errors import SparseTVError
from sparsetv.jobs import analyze
from sparsetv.report import page


class BrokenError(Exception):
    """Something does not hold that must."""


@dataclass(frozen=True, slots=True)
class Row:
    """One scene under one trouble: at how many calls, and how often what it left was old, between and new."""

    scene: str
    trouble: str
    points: int
    old: int
    between: int
    new: int


@dataclass(slots=True)
class Theatre:
    """Where scenes are played.

    Attributes:
        stage: Holds what scenes begin with.
        room: Where they are played.
        hooks: In place.
    """

    stage: Path
    room: Path
    hooks: Hooks
    _tidied: set[tuple[str, str]] = field(default_factory=set)

    def play(self, scene: Scene, *, most: int | None = None) -> list[Row]:
        """All troubles of a scene; at `most` so many calls each, spread evenly, the first and the last among them."""
        with _system(scene.without):
            self.begin(scene)
            chain, calls = self._rehearse(scene)
            return [self._suffer(scene, trouble, chain, _spread(calls(trouble), most)) for trouble in TROUBLES]

    def _rehearse(self, scene: Scene) -> tuple[list[Any], Callable[[Trouble], list[int]]]:
        chain = [self._state(scene)]
        for act in scene.between:
            act(self.room)
            chain.append(self._state(scene))
        self.begin(scene)
        self.hooks.arm()
        scene.act(self.room)
        self.hooks.disarm()
        told, calls, unsaved = self.hooks.disk.not_durable(self.room), self.hooks.calls, self.hooks.unsaved
        _check(not told, f"{scene.name}: not durable in the end: {told}")
        _check(not temporaries(self.room), f"{scene.name}: left {temporaries(self.room)}")
        _check(len(calls) >= scene.calls, f"{scene.name}: saw {len(calls)} calls, expected {scene.calls}: {calls}")
        chain.append(self._state(scene))
        rehearsed = Hooks()
        rehearsed.calls, rehearsed.unsaved = calls, unsaved
        return chain, lambda trouble: trouble.points(rehearsed)

    def _suffer(self, scene: Scene, trouble: Trouble, chain: list[Any], points: list[int]) -> Row:
        places, outcomes = [], Counter[int]()
        for at in points:
            self.begin(scene)
            where = f"{scene.name}: {trouble.name}, call {at}"
            error = self._try(scene, trouble, at, where)
            found = self._state(scene)
            _check(found in chain, f"{where}: neither old nor new")
            place = chain.index(found)
            if trouble.error:
                _check_error(error, scene, where, new=place == len(chain) - 1)
            outcomes[place] += 1
            if not (trouble.error and error is None):  # a call that is not needed: to tidy up, to make what is there
                places.append(place)
            self._tidy(scene, where)
        _check(places == sorted(places), f"{scene.name}: {trouble.name}: once new, old again: {places}")
        last = len(chain) - 1
        between = sum(count for place, count in outcomes.items() if 0 < place < last)
        return Row(scene.name, trouble.name, len(points), outcomes[0], between, outcomes[last])

    def _try(self, scene: Scene, trouble: Trouble, at: int, where: str) -> BaseException | None:
        arm(self.hooks, trouble, at, self.room)
        try:
            if trouble.error:
                return outcome(lambda: scene.act(self.room))
            code = in_child(lambda: scene.act(self.room) and None)
        finally:
            self.hooks.disarm()
        _check(code == KILLED, f"{where}: expected death, found exit code {code}")
        return None

    def _tidy(self, scene: Scene, where: str) -> None:
        """The next command works and tidies up; looked at once for each way things are left."""
        left = scene.name, signature(self.room)
        if left in self._tidied:
            return
        self._tidied.add(left)
        try:
            scene.again(self.room)
        except (SparseTVError, OSError, AssertionError) as error:
            raise BrokenError(f"{where}: the next command fails: {error!r}") from error
        _check(not temporaries(self.room), f"{where}: the next command leaves {temporaries(self.room)}")

    def _state(self, scene: Scene) -> Any:
        return scene.state(self.room / scene.target)

    def begin(self, scene: Scene) -> Path:
        """The room as it is when the scene begins."""
        copy_stage(self.stage, self.room, scene.needs)
        return self.room


def _check(holds: bool, told: str) -> None:
    if not holds:
        raise BrokenError(told)


def _check_error(error: BaseException | None, scene: Scene, where: str, *, new: bool) -> None:
    if error is None:
        _check(new, f"{where}: no error, but nothing new")
        return
    _check(isinstance(error, SparseTVError), f"{where}: {error!r} is no known error")
    _check(scene.target.split("/", maxsplit=1)[0] in str(error), f"{where}: {error} does not name {scene.target}")
    _check("run again" in str(error), f"{where}: {error} does not say what to do")


def _spread(points: list[int], most: int | None) -> list[int]:
    if most is None or len(points) <= most:
        return points
    if most == 1:
        return points[-1:]
    return sorted({points[round(number * (len(points) - 1) / (most - 1))] for number in range(most)})


@contextlib.contextmanager
def _system(without: str) -> Iterator[None]:
    """A system that cannot do something."""

    def refuse(*args: object, **named: object) -> None:
        raise OSError(95, "Operation not supported")

    link, exchange = os.link, renaming._exchange
    try:
        if without == "links":
            os.link = refuse
        if without == "exchange":
            renaming._exchange = lambda first, second: False
        yield
    finally:
        os.link, renaming._exchange = link, exchange


@contextlib.contextmanager
def theatre(place: Path) -> Iterator[Theatre]:
    """A theatre in an empty directory; pictures and pages are not drawn, only written."""
    (place / "stage").mkdir()
    hooks, patches = Hooks(), _patches()
    try:
        for module, name, value, _ in patches:
            setattr(module, name, value)
        with hooks.installed():
            build(place / "stage")
            yield Theatre(place / "stage", place / "room", hooks)
    finally:
        for module, name, _, old in patches:
            setattr(module, name, old)


def _patches() -> list[tuple[Any, str, Any, Any]]:
    drawn = {
        (analyze, "draw_overlap"): lambda *args, **named: b"<svg>overlap</svg>",
        (analyze, "draw_where"): lambda *args, **named: b"<svg>where</svg>",
        (analyze, "picture_kind"): lambda path: "svg",
        (page, "check_matplotlib"): lambda: None,
        (page, "make_page"): lambda results, **named: "<html>page</html>",
    }
    return [(module, name, value, getattr(module, name)) for (module, name), value in drawn.items()]
