"""Which number a task's kept deltas are multiplied by.

Reference: ALGORITHMS, scales: with r1 and r2 the L1 and L2 norm of the whole task vector over those of its kept
entries, `l2` is r2 and `graft` is sqrt(r1 * r2). `l2-tensor` is r2 tensor by tensor. `joint` and `fit` are found by
running the models of all tasks together, on random inputs or on examples (sparsetv.jobs.joint).
"""

import math
from collections.abc import Mapping

import numpy as np

from sparsetv.errors import ProbeError, UsageError
from sparsetv.task_vector import SparseTaskVector

NAMED = ("auto", "none", "l2", "l2-tensor", "graft", "match", "joint", "fit")
TOGETHER = ("joint", "fit")
"""Policies that run the models of all tasks together."""


def parse_scale(text: str) -> str | float:
    """A scale as the command line spells it: a name of `NAMED` or a number.

    Raises:
        UsageError: It is neither, or not finite.
    """
    try:
        return check_scale(float(text))
    except ValueError:
        return check_scale(text)


def check_scale(policy: str | float) -> str | float:
    """Return a scale policy that is a name of `NAMED` or a finite number.

    Raises:
        UsageError: It is something else.
    """
    if isinstance(policy, str) and policy not in NAMED:
        raise UsageError(f"unknown scale {policy!r}; known are {', '.join(NAMED)} and numbers")
    if not isinstance(policy, str) and not math.isfinite(policy):
        raise UsageError(f"scale {policy} is not finite")
    return policy


def resolve_scale(task: SparseTaskVector, policy: str | float, *, company: int) -> tuple[str, float]:
    """The scale of one task.

    Args:
        task: The task.
        policy: `auto` (`none` for a refitted task; the file's `match` for a single one, `l2` where there is none and
            for several), `none`, `l2`, `l2-tensor`, `graft`, `match`, or a number.
        company: Number of tasks stitched together.

    Returns:
        (policy that was used, scale).

    Raises:
        ProbeError: `match` was asked for and the file has no probe.
        UsageError: Unknown policy, or one of `TOGETHER`.
    """
    check_scale(policy)
    if not isinstance(policy, str):
        return "number", float(policy)
    if policy == "auto":
        alone = "match" if company == 1 and task.probe is not None else "l2"
        policy = "none" if task.refitted else alone
    if policy in {"none", "l2-tensor"}:
        return policy, 1.0
    if policy in TOGETHER:
        raise UsageError(
            f"scale `{policy}` runs the models of all tasks together, which only `stitch`, `add` and `remove` do"
        )
    if policy == "match":
        if task.probe is None:
            raise ProbeError(f"{task.name} was packed without a probe, so it has no `match` scale; use `--scale l2`")
        return policy, task.probe.scale
    r1, r2 = task.norm_ratios()
    if policy == "l2":
        return policy, r2
    return policy, math.sqrt(r1 * r2)


def tensor_factors(task: SparseTaskVector, policy: str) -> Mapping[str, float]:
    """Factors per tensor beside the task's scale: whole over kept L2 norm for `l2-tensor`, none otherwise.

    Rounded to float32; 1 where a tensor keeps nothing but zeros.
    """
    if policy != "l2-tensor" or task.imported:
        return {}
    factors = {}
    for name, tensor in task.tensors.items():
        kept = math.sqrt(math.fsum(np.square(tensor.values, dtype=np.float64).tolist()))
        if kept and not (task.exact and tensor.nnz == tensor.numel):
            factors[name] = float(np.float32(task.norms[name].l2 / kept))
    return factors
