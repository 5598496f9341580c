"""Dense merging that runs the fine-tunes: Fisher, RegMean, AdaMerging."""

from collections.abc import Sequence

from sparsetv.bench.baselines import for_all
from sparsetv.bench.lab import Lab
from sparsetv.bench.method import Merged
from sparsetv.merging.adamerging import adamerging
from sparsetv.merging.fisher import diagonal_fisher, fisher_average
from sparsetv.merging.regmean import grams, regmean

FISHER_EXAMPLES, REGMEAN_EXAMPLES = 256, 1600
"""Examples per task (Localize-and-Stitch, section 2)."""

ENTROPY_STEPS, ENTROPY_RATE = 50, 1e-2
_BATCH = 16


def fisher(lab: Lab, names: Sequence[str]) -> Merged:
    """Fisher merging, diagonal, per example."""
    vectors, shared, found = lab.vectors(names), lab.shared(names), []
    for name, vector in zip(names, vectors, strict=True):
        subject = lab.subject(name)
        batches = subject.batches("train", most=FISHER_EXAMPLES, size=_BATCH)
        found.append(diagonal_fisher(subject.body(batches, shared), vector, progress=lab.progress))
    return for_all(names, fisher_average(vectors, found), examples=FISHER_EXAMPLES)


def regression_mean(lab: Lab, names: Sequence[str]) -> Merged:
    """RegMean."""
    vectors, shared, found = lab.vectors(names), lab.shared(names), []
    for name, vector in zip(names, vectors, strict=True):
        subject = lab.subject(name)
        batches = subject.batches("train", most=REGMEAN_EXAMPLES, size=_BATCH)
        found.append(grams(subject.body(batches, shared), vector, progress=lab.progress))
    return for_all(names, regmean(vectors, found), examples=REGMEAN_EXAMPLES, shrink=0.9)


def entropy(lab: Lab, names: Sequence[str]) -> Merged:
    """AdaMerging, layer by layer."""
    shared, most = lab.shared(names), ENTROPY_STEPS * _BATCH
    bodies = [
        lab.subject(name).body(lab.subject(name).batches("test", most=most, size=_BATCH), shared) for name in names
    ]
    merged, _ = adamerging(bodies, lab.vectors(names), steps=ENTROPY_STEPS, rate=ENTROPY_RATE, progress=lab.progress)
    return for_all(names, merged, steps=ENTROPY_STEPS, rate=ENTROPY_RATE)
