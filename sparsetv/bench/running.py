"""Dense merging that runs the fine-tunes: Fisher, RegMean, AdaMerging."""

from collections.abc import Sequence

from sparsetv.bench.baselines import for_all
from sparsetv.bench.lab import Lab
from sparsetv.bench.method import Merged
from sparsetv.merging.adamerging import adamerging
from sparsetv.merging.fisher import diagonal_fisher, fisher_average
from sparsetv.merging.live import at
from sparsetv.merging.regmean import grams, regmean
from sparsetv.progress import counter

FISHER_EXAMPLES, REGMEAN_EXAMPLES = 256, 1600
"""Examples per task (Localize-and-Stitch, section 2)."""

ENTROPY_STEPS = 300
_BATCH = 16


def fisher(lab: Lab, names: Sequence[str]) -> Merged:
    """Fisher merging, diagonal, per example."""
    vectors, shared, found = lab.vectors(names), lab.shared(names), []
    for name, vector in zip(names, vectors, strict=True):
        subject = lab.subject(name)
        batches = subject.batches("train", shots=None, size=_BATCH)[: FISHER_EXAMPLES // _BATCH]
        body = subject.body(batches, shared)
        with at(body, vector):
            found.append(diagonal_fisher(body))
    return for_all(names, fisher_average(vectors, found), examples=FISHER_EXAMPLES)


def regression_mean(lab: Lab, names: Sequence[str]) -> Merged:
    """RegMean."""
    vectors, shared, found = lab.vectors(names), lab.shared(names), []
    for name, vector in zip(names, vectors, strict=True):
        subject = lab.subject(name)
        batches = subject.batches("train", shots=None, size=_BATCH)[: REGMEAN_EXAMPLES // _BATCH]
        body = subject.body(batches, shared)
        with at(body, vector):
            found.append(grams(body, batches))
    bases = lab.subject(names[0]).bases(shared)
    return for_all(names, regmean(vectors, bases, found), examples=REGMEAN_EXAMPLES, shrink=0.9)


def entropy(lab: Lab, names: Sequence[str]) -> Merged:
    """AdaMerging, layer by layer."""
    shared = lab.shared(names)
    bodies = [
        lab.subject(name).body(lab.subject(name).batches("test", shots=None, size=_BATCH), shared) for name in names
    ]
    report = counter(lab.progress, "adamerging", ENTROPY_STEPS)
    merged, _ = adamerging(bodies, lab.vectors(names), steps=ENTROPY_STEPS, progress=report)
    return for_all(names, merged, steps=ENTROPY_STEPS)
