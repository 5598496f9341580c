"""Dense merging by arithmetic, with coefficients given or tuned on validation examples."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from sparsetv.bench.lab import Lab
from sparsetv.bench.method import Merged
from sparsetv.merging.arithmetic import arithmetic
from sparsetv.merging.consensus import consensus
from sparsetv.merging.dare import dare
from sparsetv.merging.tall import compressed, stored_bytes, tall_masks
from sparsetv.merging.ties import ties
from sparsetv.merging.vectors import Tensors, mean, times, total

FACTORS = tuple(round(0.1 * step, 1) for step in range(1, 11))
"""Coefficients that are tried where there is validation data (Localize-and-Stitch, section 4.1)."""

DENSITIES = (0.1, 0.2, 0.3)
"""Densities that TIES is tuned over (Localize-and-Stitch, appendix B)."""

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6)
"""Values of lambda that TALL-masks chooses from per task (arXiv:2405.07813, appendix)."""

Candidate = tuple[dict[str, Any], Callable[[], Tensors]]
"""Settings, and the merge that they give."""


def simple_average(lab: Lab, names: Sequence[str]) -> Merged:
    """Simple average."""
    return for_all(names, mean(lab.vectors(names)))


def plain_arithmetic(lab: Lab, names: Sequence[str]) -> Merged:
    """Task arithmetic at 0.4."""
    return for_all(names, arithmetic(lab.vectors(names), factor=0.4), factor=0.4)


def tuned_arithmetic(lab: Lab, names: Sequence[str]) -> Merged:
    """Task arithmetic, coefficient tuned."""
    return tuned(lab, names, _scaled(total(lab.vectors(names))))


def plain_ties(lab: Lab, names: Sequence[str]) -> Merged:
    """TIES, top 20 %, coefficient 1."""
    return for_all(names, ties(lab.vectors(names), density=0.2), density=0.2, factor=1.0)


def tuned_ties(lab: Lab, names: Sequence[str]) -> Merged:
    """TIES, density and coefficient tuned."""
    vectors = lab.vectors(names)

    def candidates() -> Iterable[Candidate]:
        for density in DENSITIES:
            yield from _scaled(ties(vectors, density=density), density=density)

    return tuned(lab, names, candidates())


def plain_dare(lab: Lab, names: Sequence[str]) -> Merged:
    """DARE: a tenth of the entries at random, rescaled, then task arithmetic at 0.4."""
    merged = dare(lab.vectors(names), density=0.1, factor=0.4, seed=lab.suite.seed)
    return for_all(names, merged, density=0.1, factor=0.4)


def dare_ties(lab: Lab, names: Sequence[str]) -> Merged:
    """DARE: a tenth of the entries at random, rescaled, signs elected."""
    merged = dare(lab.vectors(names), density=0.1, factor=1.0, seed=lab.suite.seed, elect=True)
    return for_all(names, merged, density=0.1, factor=1.0)


def consensus_arithmetic(lab: Lab, names: Sequence[str]) -> Merged:
    """Consensus TA."""
    vectors = lab.vectors(names)
    return _consensus(lab, names, vectors, total(vectors))


def consensus_ties(lab: Lab, names: Sequence[str]) -> Merged:
    """Consensus TIES."""
    vectors = lab.vectors(names)
    return _consensus(lab, names, vectors, ties(vectors, density=0.2))


def _consensus(lab: Lab, names: Sequence[str], vectors: Sequence[Tensors], merged: Tensors) -> Merged:
    masks, thresholds = _masks(lab, names, vectors, merged)
    kept = consensus(merged, masks, at_least=2, factor=1.0)
    return tuned(lab, names, _scaled(kept, thresholds=thresholds))


def tall(lab: Lab, names: Sequence[str]) -> Merged:
    """TALL-masks as compression: one dense vector for all tasks, and a bit per entry and task."""
    vectors = lab.vectors(names)
    merged = total(vectors)
    masks, thresholds = _masks(lab, names, vectors, merged)
    deltas = {name: compressed(merged, mask) for name, mask in zip(names, masks, strict=True)}
    return Merged(deltas, {"thresholds": thresholds}, stored_bytes(masks, merged))


def _masks(
    lab: Lab, names: Sequence[str], vectors: Sequence[Tensors], merged: Tensors
) -> tuple[list[Tensors], dict[str, float]]:
    """TALL masks, each at the threshold with the best validation score; the smallest wins a tie."""
    chosen: list[Tensors] = []
    thresholds: dict[str, float] = {}
    for name, vector in zip(names, vectors, strict=True):
        tried = ((factor, tall_masks([vector], merged=merged, factor=factor)[0]) for factor in THRESHOLDS)
        thresholds[name], mask = max(tried, key=lambda pair: lab.validate({name: compressed(merged, pair[1])}))
        chosen.append(mask)
    return chosen, thresholds


def tuned(lab: Lab, names: Sequence[str], candidates: Iterable[Candidate]) -> Merged:
    """The candidate with the highest mean validation score; the first wins a tie."""
    settings, make = max(candidates, key=lambda candidate: lab.validate(dict.fromkeys(names, candidate[1]())))
    return for_all(names, make(), **settings)


def _scaled(merged: Tensors, **settings: Any) -> Iterable[Candidate]:
    """A merge at every coefficient."""
    for factor in FACTORS:
        yield {**settings, "factor": factor}, partial(times, merged, factor)


def for_all(names: Sequence[str], merged: Tensors, **settings: Any) -> Merged:
    """The same body for every task."""
    return Merged(dict.fromkeys(names, merged), settings)
