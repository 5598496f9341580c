"""Which number a task's kept deltas are multiplied by.

Reference: ALGORITHMS, scales: with r1 and r2 the L1 and L2 norm of the whole task vector over those of its kept
entries, `l2` is r2 and `graft` is sqrt(r1 * r2).
"""

import math

from sparsetv.errors import ProbeError, UsageError
from sparsetv.task_vector import SparseTaskVector

NAMED = ("auto", "none", "l2", "graft", "match")


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
        policy: `auto` (the file's `match` for a single task, `l2` where there is none and for several), `none`, `l2`,
            `graft`, `match`, or a number.
        company: Number of tasks stitched together.

    Returns:
        (policy that was used, scale).

    Raises:
        ProbeError: `match` was asked for and the file has no probe.
        UsageError: Unknown policy.
    """
    check_scale(policy)
    if not isinstance(policy, str):
        return "number", float(policy)
    if policy == "auto":
        policy = "match" if company == 1 and task.probe is not None else "l2"
    if policy == "none":
        return policy, 1.0
    if policy == "match":
        if task.probe is None:
            raise ProbeError(f"{task.name} was packed without a probe, so it has no `match` scale; use `--scale l2`")
        return policy, task.probe.scale
    r1, r2 = task.norm_ratios()
    if policy == "l2":
        return policy, r2
    return policy, math.sqrt(r1 * r2)
