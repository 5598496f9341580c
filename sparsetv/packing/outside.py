"""What changed outside the scope, as shares of the whole task vector's energy."""

from collections.abc import Iterable, Mapping

import numpy as np

from sparsetv.difference import TaskVector
from sparsetv.task_vector import Norms


def changed_outside(
    vector: TaskVector, scope: Iterable[str], norms: Mapping[str, Norms]
) -> tuple[tuple[str, float], ...]:
    """Changed tensors outside the scope with their share of the squared L2 norm of the whole task vector.

    Args:
        vector: Base and fine-tune.
        scope: Base names of the scope.
        norms: Norms per tensor of the scope.

    Returns:
        (base name, share in [0, 1] rounded to 6 digits), names ascending; tensors that did not change are left out.
    """
    energies = {name: _energy(vector, name) for name in sorted(set(vector.comparable()) - set(scope))}
    total = sum(energies.values()) + sum(norm.l2**2 for norm in norms.values())
    return tuple((name, round(energy / total, 6)) for name, energy in energies.items() if energy > 0)


def _energy(vector: TaskVector, name: str) -> float:
    if np.array_equal(vector.base.raw(name), vector.finetuned.raw(vector.finetuned_name(name))):
        return 0.0
    return float(sum(np.square(chunk.deltas(), dtype=np.float64).sum() for chunk in vector.chunks(name)))
