"""What a task carries beside its kept entries: enough to build its model on any body."""

from collections.abc import Mapping
from dataclasses import dataclass

from sparsetv.difference import TaskVector
from sparsetv.packing.extras import collect
from sparsetv.packing.files import collect_files
from sparsetv.task_vector import Extra, FineTuned


@dataclass(frozen=True, slots=True)
class Carried:
    """What a task has before anything is localized; fields as in `SparseTaskVector`."""

    name: str
    extras: Mapping[str, Extra]
    files: Mapping[str, bytes]
    finetuned: FineTuned


def carry(vector: TaskVector, names: tuple[str, ...], *, name: str) -> Carried:
    """Collect what the base lacks.

    Args:
        vector: Base and fine-tune.
        names: Base names of the scope.
        name: Name of the task.
    """
    return Carried(
        name=name,
        extras=collect(vector),
        files=collect_files(vector.base, vector.finetuned),
        finetuned=FineTuned(vector.pairing.prefix, _other_dtype(vector, names), vector.pairing.missing),
    )


def _other_dtype(vector: TaskVector, names: tuple[str, ...]) -> str | None:
    """Dtype of the fine-tune's scope where it is not the base's; the commonest if it has several."""
    dtypes = [vector.finetuned.dtype(vector.finetuned_name(name)) for name in names]
    differs = any(dtype != vector.base.dtype(name) for dtype, name in zip(dtypes, names, strict=True))
    return max(sorted(set(dtypes)), key=dtypes.count) if differs else None
