"""Experiments: merging against the density of masks (Figure 6) and the data they are learned from (Figure 7)."""

from collections.abc import Sequence
from functools import partial

from sparsetv.bench.lab import Lab
from sparsetv.bench.merge import Once, checked, measure, references
from sparsetv.bench.ours import stitched
from sparsetv.errors import UsageError

SHARES = ("0.1", "1", "5", "20")
"""Percent of the scope."""

LEARNED_SHARES = ("1", "5")
"""Learning, and scales that are found together, take minutes per density."""

SHOTS = (8, 32, 128, 512)
"""Examples per class."""


def density(lab: Lab, *, methods: Sequence[str] = ()) -> None:
    """Merge at growing density; rows `{set, density, method, task}` in `density.jsonl`.

    Methods: `stitch` (magnitude masks, unscaled), `stitch-scaled` (`l2-tensor`), `stitch-joint`, and `stitch-learned`
    (Eq. 1, unscaled).
    """
    names, recorder = checked(lab), lab.recorder("density")
    kinds = {
        "stitch": ("exact", "none", SHARES),
        "stitch-scaled": ("exact", "l2-tensor", SHARES),
        "stitch-joint": ("exact", "joint", LEARNED_SHARES),
        "stitch-learned": ("learned", "none", LEARNED_SHARES),
    }
    references(lab, recorder, {"set": "all", "density": 0.0}, names)
    for method in methods or kinds:
        if method not in kinds:
            raise UsageError(f"the density of {method!r} is not swept; known are {', '.join(kinds)}")
        word, scale, shares = kinds[method]
        for share in shares:
            made = Once(partial(stitched(f"{share}% {word}", scale), lab, names))
            of = {"set": "all", "density": float(share) / 100, "method": method}
            measure(lab, recorder, of, names, made, {"label": method, "data": _data(word, 64)})


def shots(lab: Lab) -> None:
    """Merge with masks learned from more and more examples; rows `{set, shots, method, task}` in `shots.jsonl`.

    0 shots is the dataless mask at 5 %, beside which the paper puts learned ones at 1 %.
    """
    names, recorder = checked(lab), lab.recorder("shots")
    references(lab, recorder, {"set": "all", "shots": 0}, names)
    for count in (0, *SHOTS):
        kind = f"1% learned {count} shots" if count else "5% exact"
        made = Once(partial(stitched(kind, "none"), lab, names))
        of = {"set": "all", "shots": count, "method": "stitch-learned" if count else "stitch"}
        measure(lab, recorder, of, names, made, {"label": kind, "data": _data("learned" if count else "", count)})


def _data(word: str, count: int) -> str:
    return f"{count} labelled examples per class and task" if word == "learned" else "none"
