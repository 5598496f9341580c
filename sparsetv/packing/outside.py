"""What changed outside the scope, as shares of the whole task vector's energy."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sparsetv.difference import Chunk, TaskVector
from sparsetv.norms import NormSum, partial_sums
from sparsetv.task_vector import Norms

_THREADS = 2


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
        Entries that are NaN or infinite on either side do not count.
    """
    names = sorted(set(vector.comparable()) - set(scope))
    with ThreadPoolExecutor(_THREADS) as pool:
        energies = {name: _energy(vector, name, pool) for name in names}
    total = sum(energies.values()) + sum(norm.l2**2 for norm in norms.values())
    return tuple((name, round(energy / total, 6)) for name, energy in energies.items() if energy > 0)


def _energy(vector: TaskVector, name: str, pool: ThreadPoolExecutor) -> float:
    total = NormSum()
    for sums in pool.map(_sums, vector.chunks(name)):
        total.add(sums)
    return total.result().l2 ** 2


def _sums(chunk: Chunk) -> tuple[np.ndarray, np.ndarray]:
    magnitudes = np.abs(chunk.deltas())
    with np.errstate(over="ignore"):
        sums = partial_sums(magnitudes)
    if not np.isfinite(sums[1]).all():
        return partial_sums(np.where(magnitudes < 1e18, magnitudes, np.float32(0)))
    return sums
