"""Tasks on tensors in memory: added, removed, replaced and reweighted in place, exactly, at the cost of the task."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from sparsetv.belonging import Structure, check_content, check_structure, check_verify, touched
from sparsetv.csr import SparseTensor
from sparsetv.errors import BaseMismatchError, NotFoundError, UsageError
from sparsetv.fingerprint import TensorIdentity
from sparsetv.live.room import Blend, Room, rooms_of
from sparsetv.live.sites import Site, sites_of
from sparsetv.live.transition import transit
from sparsetv.rules import Rule, find_rule
from sparsetv.scales import check_scale, resolve_scale, tensor_factors
from sparsetv.task_vector import SparseTaskVector

_LARGEST = 3e38


@dataclass(frozen=True, slots=True)
class ActiveTask:
    """One task in force.

    Attributes:
        name, digest: Of the task.
        weight: The user's weight.
        policy, scale: How the scale was found, and the scale.
        nnz: Kept entries.
    """

    name: str
    digest: str
    weight: float
    policy: str
    scale: float
    nnz: int

    @property
    def coefficient(self) -> float:
        """What the task's deltas are multiplied by."""
        return self.weight * self.scale


@dataclass(frozen=True, slots=True)
class State:
    """What a composer holds.

    Attributes:
        rule: The rule.
        scale: Scale policy: a name or a number.
        active: Tasks in force, in canonical order.
        loaded: Names of all tasks that are held, in force or not, ascending.
        nbytes: Bytes held beside the tensors.
    """

    rule: Rule
    scale: str | float
    active: tuple[ActiveTask, ...]
    loaded: tuple[str, ...]
    nbytes: int


@dataclass(frozen=True, slots=True)
class _Held:
    """A loaded task: its rooms, and its scale alone and in company."""

    name: str
    digest: str
    nnz: int
    rooms: tuple[Room, ...]
    alone: tuple[str, float]
    together: tuple[str, float]


class Composer:
    """Holds tasks and keeps tensors at the stitch of those that are in force.

    After any sequence of calls the tensors are, bit for bit, what a fresh stitch of the tasks in force gives, and the
    base's bits where no task in force keeps an entry. Every call applies whole or, where it raises, not at all. Base
    values are saved where a task touches them and restored from there; nothing is ever subtracted.

    Args:
        base: The base's tensors by checkpoint name, float32, bfloat16 or float16, on any devices; changed in place.
        rule: `mean`, `sum`, `ties` or `consensus`.
        scale: `auto` (`match` for one task, `l2` for several), `none`, `l2`, `l2-tensor`, `graft`,
            `match` or a number.
        min_tasks: How many tasks must keep an entry for `consensus` to keep it.
        verify: `touched` compares the hash of every tensor that a task touches with that of the base it was packed
            against, once per tensor; `full` those of all tensors of the base that are here; `meta` compares names and
            shapes only, and lets the tensors have another float dtype than the base's.
        source: What to call the base in messages.

    Raises:
        CheckpointError: A tensor is not contiguous or has no memory.
        UsageError: Unknown rule or scale.

    Reference:
        DESIGN, laws 2, 3 and 6; Localize-and-Stitch, arXiv:2408.13656, section 3.3 and Figure 9 (continual addition).

    Cost:
        A change takes time in proportion to the kept entries of the tasks that it adds, removes or reweights and to
        what they meet, whatever the size of the model and the number of tasks. Memory is 16 bytes per loaded entry
        (14 for 16-bit tensors) and up to 4 more while two tasks or more are in force.
    """

    def __init__(
        self,
        base: Mapping[str, torch.Tensor],
        *,
        rule: str = "mean",
        scale: str | float = "auto",
        min_tasks: int = 2,
        verify: str = "touched",
        source: str = "the base in memory",
    ) -> None:
        self._setup(sites_of(base), rule=rule, scale=scale, min_tasks=min_tasks, verify=verify, source=source)

    def _setup(
        self, sites: Mapping[str, Site], *, rule: str, scale: str | float, min_tasks: int, verify: str, source: str
    ) -> None:
        self._rule = find_rule(rule, min_tasks=min_tasks)
        self._scale = check_scale(scale)
        self._verify, self._source = check_verify(verify), source
        self._sites = dict(sites)
        self._rooms = rooms_of(sites)
        self._identities: dict[str, TensorIdentity] = {}
        self._held: dict[str, _Held] = {}
        self._weights: dict[str, float] = {}

    @classmethod
    def over(
        cls,
        sites: Mapping[str, Site],
        *,
        rule: str = "mean",
        scale: str | float = "auto",
        min_tasks: int = 2,
        verify: str = "touched",
        source: str = "the live model",
    ) -> "Composer":
        """A composer over tensors that lie anywhere in live memory (`sparsetv.live.sites`)."""
        made = cls.__new__(cls)
        made._setup(sites, rule=rule, scale=scale, min_tasks=min_tasks, verify=verify, source=source)
        return made

    @property
    def weights(self) -> dict[str, float]:
        """Weight by name of the tasks in force."""
        return dict(self._weights)

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The base's tensors as they are now, by checkpoint name; views of live memory, not copies."""
        return {name: site.tensor for name, site in self._sites.items()}

    def state(self) -> State:
        """What is held and in force."""
        active = [self._active(name, weight, company=len(self._weights)) for name, weight in self._weights.items()]
        return State(
            rule=self._rule,
            scale=self._scale,
            active=tuple(sorted(active, key=lambda task: task.digest)),
            loaded=tuple(sorted(self._held)),
            nbytes=sum(room.nbytes for room in self._rooms.values()),
        )

    def load(self, task: SparseTaskVector) -> None:
        """Hold a task without applying it.

        Raises:
            BaseMismatchError: It belongs to another base.
            UsageError: A task of its name or content is held already.
            ProbeError: The scale is `match` and the task was packed without a probe.
        """
        if task.name in self._held:
            raise UsageError(f"a task {task.name!r} is held already; replace it, or unload it first")
        digest = task.digest()
        twin = next((held.name for held in self._held.values() if held.digest == digest), None)
        if twin is not None:
            raise UsageError(f"{task.name!r} has the content of {twin!r}, which is held already")
        self._hold(task, digest)

    def unload(self, name: str) -> None:
        """Forget a held task, after taking it out of force.

        Raises:
            NotFoundError: There is no task of the name.
        """
        held = self._find(name)
        self.activate({other: weight for other, weight in self._weights.items() if other != name})
        self._forget(held)

    def add(self, task: SparseTaskVector, *, weight: float = 1.0) -> None:
        """Load a task and put it in force.

        Raises:
            BaseMismatchError: It belongs to another base.
            NonFiniteError: A merged entry would overflow.
            UsageError: A task of its name or content is held already, or its coefficient is not finite.
        """
        self.load(task)
        try:
            self.activate({**self._weights, task.name: weight})
        except Exception:
            self._forget(self._held[task.name])
            raise

    def remove(self, name: str) -> None:
        """Take a task out of force and forget it; what it alone kept is the base's bits again.

        Raises:
            NotFoundError: There is no task of the name.
        """
        self.unload(name)

    def replace(self, task: SparseTaskVector, *, weight: float | None = None) -> None:
        """Put a task in force in the place of the held one of its name.

        Args:
            task: The new task.
            weight: Its weight; that of the old one where None.

        Raises:
            NotFoundError: There is no task of the name.
        """
        old = self._find(task.name)
        chosen = self._weights.get(task.name, 1.0) if weight is None else weight
        if task.digest() == old.digest:
            self.activate({**self._weights, task.name: chosen})
            return
        spare = f"{task.name}\0old"
        self._rename(task.name, spare)
        try:
            self.load(task)
            self.activate({**{n: w for n, w in self._weights.items() if n != spare}, task.name: chosen})
        except Exception:
            if task.name in self._held:
                self._forget(self._held[task.name])
            self._rename(spare, task.name)
            raise
        self._forget(self._held[spare])

    def reweight(self, name: str, weight: float) -> None:
        """Change the weight of a task in force; a negative one negates it.

        Raises:
            NotFoundError: No task of the name is in force.
        """
        if name not in self._weights:
            raise NotFoundError(f"no task {name!r} is in force; those in force are {_listed(self._weights)}")
        self.activate({**self._weights, name: weight})

    def activate(self, weights: Mapping[str, float]) -> None:
        """Put exactly these held tasks in force, with these weights.

        Raises:
            NotFoundError: One of them is not held.
            NonFiniteError: A merged entry would overflow.
            UsageError: Weight times scale is not finite.
        """
        self._change(weights, self._rule, self._scale)

    def set_rule(self, rule: str, *, min_tasks: int = 2) -> None:
        """Combine by another rule from now on.

        Cost:
            All entries of all tasks in force.
        """
        self._change(self._weights, find_rule(rule, min_tasks=min_tasks), self._scale)

    def check(self, task: SparseTaskVector) -> None:
        """Whether a task belongs to this base.

        Raises:
            BaseMismatchError: It does not.

        Cost:
            One hash of each tensor that it touches, once in the composer's life.
        """
        structure: Structure = {name: (site.dtype, site.shape) for name, site in self._sites.items()}
        other = [n for n, t in task.tensors.items() if n in structure and structure[n][0] != t.dtype]
        if other and self._verify != "meta":
            raise BaseMismatchError(
                f"{other[0]} is {task.tensors[other[0]].dtype} for {task.name}, but {structure[other[0]][0]} in "
                f"{self._source}; load the model in its checkpoint's dtype, or pass verify='meta' to round to this one"
            )
        structure = {**structure, **{name: (task.tensors[name].dtype, structure[name][1]) for name in other}}
        check_structure(task, structure, source=self._source)
        if self._verify == "meta":
            return
        whole = self._verify == "full"
        names = [name for name in task.base.names if name in self._sites] if whole else touched(task)
        for name in names:
            if name not in self._identities:
                self._identities[name] = self._sites[name].identity()
        compared = {name: self._identities[name] for name in names}
        check_content(task, compared, source=self._source, verify=self._verify)

    def _find(self, name: str) -> _Held:
        if name not in self._held:
            raise NotFoundError(f"no task {name!r} is held; those held are {_listed(self._held)}")
        return self._held[name]

    def _rename(self, name: str, new: str) -> None:
        self._held[new] = replace(self._held.pop(name), name=new)
        if name in self._weights:
            self._weights[new] = self._weights.pop(name)

    def _hold(self, task: SparseTaskVector, digest: str) -> None:
        self.check(task)
        alone = resolve_scale(task, self._scale, company=1)
        together = resolve_scale(task, self._scale, company=2)
        scaled = task.scaled(tensor_factors(task, together[0]))
        parts = _distinct([(self._sites[name], scaled.tensors[name]) for name in touched(scaled)])
        rooms: list[Room] = []
        try:
            for key, room in self._rooms.items():
                own = [(site, tensor) for site, tensor in parts if (site.bits.device, site.dtype) == key]
                if own:
                    room.load(digest, own)
                    rooms.append(room)
        except Exception:
            for room in rooms:
                room.unload(digest, active=())
            raise
        self._held[task.name] = _Held(task.name, digest, task.nnz, tuple(rooms), alone, together)

    def _forget(self, held: _Held) -> None:
        del self._held[held.name]
        active = [self._held[name].digest for name in self._weights]
        for room in held.rooms:
            room.unload(held.digest, active=[digest for digest in active if digest in room])

    def _active(self, name: str, weight: float, *, company: int) -> ActiveTask:
        held = self._find(name)
        policy, scale = held.alone if company == 1 else held.together
        task = ActiveTask(name, held.digest, float(weight), policy, scale, held.nnz)
        if not abs(task.coefficient) <= _LARGEST:
            raise UsageError(f"{name}: weight times scale is {task.coefficient}; use a finite, smaller one")
        return task

    def _blend(self, weights: Mapping[str, float], rule: Rule) -> Blend:
        active = [self._active(name, weight, company=len(weights)) for name, weight in weights.items()]
        return Blend(rule, {t.digest: t.coefficient for t in sorted(active, key=lambda task: task.digest)})

    def _change(self, weights: Mapping[str, float], rule: Rule, scale: str | float) -> None:
        old, new = self._blend(self._weights, self._rule), self._blend(weights, rule)
        if old != new:
            done: list[Room] = []
            try:
                for room in self._rooms.values():
                    transit(room, old, new)
                    done.append(room)
            except Exception:
                for room in done:
                    transit(room, new, old)
                raise
        self._weights = {name: float(weight) for name, weight in weights.items()}
        self._rule, self._scale = rule, scale


def _distinct(parts: list[tuple[Site, SparseTensor]]) -> list[tuple[Site, SparseTensor]]:
    """Parts without second copies of tensors that share their memory.

    Raises:
        BaseMismatchError: The copies keep different entries, so no shared memory can hold both.
    """
    first: dict[object, tuple[Site, SparseTensor]] = {}
    for site, tensor in parts:
        twin = first.setdefault(site.memory, (site, tensor))[1]
        same = np.array_equal(twin.positions, tensor.positions) and np.array_equal(twin.values, tensor.values)
        if not same:
            raise BaseMismatchError(
                f"{first[site.memory][0].name} and {site.name} share their memory here, but the task changes them "
                "differently; untie them (config.tie_word_embeddings) or pack with both in scope"
            )
    return list(first.values())


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(sorted(names)) or "none"
