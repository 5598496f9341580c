"""Where masks fall: layer by layer and component by component."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sparsetv.analyze.components import COMPONENTS, Place, place_of
from sparsetv.csr import SparseTensor
from sparsetv.task_vector import SparseTaskVector

OUTSIDE = "outside the blocks"
"""Name of the group of tensors that belong to no layer."""


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors of one layer, or of one component.

    Attributes:
        name: The layer as its tensors' names begin (`encoder.layer.3`), or `outside the blocks`; or the component.
        entries: Entries of the scope in the group.
        kept: Entries kept of them.
        share: Fraction of the whole mask that lies here, in [0, 1].
        density: Kept over entries.
        lift: Density over the whole mask's density: 1 is what a random mask has; 0 for an empty mask.
    """

    name: str
    entries: int
    kept: int
    share: float
    density: float
    lift: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Where one mask falls, or all of them together.

    Attributes:
        name: The task; empty for all tasks together, where an entry counts once for every task.
        entries, kept: Entries in scope, entries kept.
        layers: The layers in the order of their names and numbers, then what lies outside the blocks.
        components: Those that the scope has, in the order of `components.COMPONENTS`.
    """

    name: str
    entries: int
    kept: int
    layers: tuple[Group, ...]
    components: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class Where:
    """Where the masks of some tasks fall; all profiles have the same layers and components.

    Attributes:
        tasks: One profile per task, in the order given.
        together: All tasks.
    """

    tasks: tuple[Profile, ...]
    together: Profile


def locate(tasks: Sequence[SparseTaskVector]) -> Where:
    """Count the kept entries of tasks of one base by layer and by component.

    Args:
        tasks: Tasks of one base; a group that a task's scope does not have is empty for it.

    Reference:
        He et al., Localize-and-Stitch, arXiv:2408.13656, section 3.2, Figures 5 and 10; density and lift are ours.

    Cost:
        One look at each tensor's name and number of kept entries.
    """
    places = {name: place_of(name) for task in tasks for name in task.tensors}
    layers = tuple(dict.fromkeys(map(_layer, sorted(places.values(), key=_in_order))))
    found = {place.component for place in places.values()}
    components = tuple(component for component in COMPONENTS if component in found)

    def profile(name: str, of: Sequence[SparseTaskVector]) -> Profile:
        tensors = [(places[key], tensor) for task in of for key, tensor in task.tensors.items()]
        return Profile(
            name=name,
            entries=sum(task.numel for task in of),
            kept=sum(task.nnz for task in of),
            layers=_groups(tensors, layers, _layer),
            components=_groups(tensors, components, lambda place: place.component),
        )

    return Where(tuple(profile(task.name, [task]) for task in tasks), profile("", tasks))


def _layer(place: Place) -> str:
    return OUTSIDE if place.layer is None else f"{place.stack}.{place.layer}"


def _in_order(place: Place) -> tuple[bool, str, int]:
    return place.layer is None, place.stack, place.layer or 0


def _groups(
    tensors: Iterable[tuple[Place, SparseTensor]], names: Sequence[str], key: Callable[[Place], str]
) -> tuple[Group, ...]:
    entries: dict[str, int] = defaultdict(int)
    kept: dict[str, int] = defaultdict(int)
    for place, tensor in tensors:
        entries[key(place)] += tensor.numel
        kept[key(place)] += tensor.nnz
    whole, all_kept = sum(entries.values()), sum(kept.values())
    return tuple(_group(name, entries[name], kept[name], whole, all_kept) for name in names)


def _group(name: str, entries: int, kept: int, whole: int, all_kept: int) -> Group:
    share = kept / all_kept if all_kept else 0.0
    density = kept / entries if entries else 0.0
    return Group(name, entries, kept, share, density, density * whole / all_kept if all_kept else 0.0)
