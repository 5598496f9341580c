"""Kinds of task files, by the words that results call them: `1% exact`, `5% sign`, `1% learned`, `0.15% budget`."""

import re
from dataclasses import replace

from sparsetv.bench.suite import Suite, Task
from sparsetv.errors import UsageError
from sparsetv.jobs.learning import Learn
from sparsetv.jobs.options import PackOptions, RefitOptions
from sparsetv.localize.names import LEARNING, LOCALIZERS
from sparsetv.localize.scope import Scope
from sparsetv.quantize.named import VALUES

LOSSLESS = "lossless"
_KIND = re.compile(
    r"(?P<share>[0-9.]+)% (?P<word>[a-z0-9]+)(?P<tensor> per tensor)?( (?P<shots>[0-9]+) shots)?(?P<bare> bare)?"
)


def options_of(kind: str, suite: Suite, task: Task, *, device: str = "auto") -> PackOptions:
    """How a kind of file is packed.

    Args:
        kind: `SHARE% WORD`, the word one of `exact` and the other encodings of values (so much of the blocks is kept),
            `budget` (so much of the fp32 checkpoint is the file's size), `refit` (values trained on random inputs), or
            a localizer (those that learn take 64 examples per class, or `… N shots`); with ` per tensor`, the same
            density in every tensor; with ` bare`, without the probe, which scales that norms give do not need.
        suite, task: What is packed.
        device: Where models run.

    Raises:
        UsageError: It is no kind, or the task has no data to learn from.
    """
    match = _KIND.fullmatch(kind)
    word = match["word"] if match else ""
    if match is None or word not in {*VALUES, *LOCALIZERS, "budget", "refit"}:
        known = ", ".join([*VALUES, "budget", "refit", *LOCALIZERS])
        raise UsageError(f"{kind!r} is no kind of file; write SHARE% WORD, the word one of {known}; or {LOSSLESS}")
    learn = Learn(
        data=task.train or "random",
        shots=int(match["shots"] or 64),
        max_length=suite.max_length,
        precision=suite.precision,
        device=device,
        columns=task.columns,
    )
    scope = Scope.parse(suite.scope) if suite.scope else None
    options = PackOptions(density=float(match["share"]) / 100, scope=scope, seed=suite.seed, learn=learn)
    if match["bare"]:
        options = replace(options, probe=False)
    if match["tensor"]:
        options = replace(options, allocation="tensor")
    if word == "budget":
        return replace(options, budget=f"{match['share']}%")
    if word == "refit":
        return replace(options, refit=RefitOptions(), learn=replace(learn, data="random"))
    if word in LEARNING and not task.train:
        raise UsageError(f"{task.name}: `{kind}` learns from training data, which the suite does not name")
    return replace(options, localizer=word) if word in LOCALIZERS else replace(options, values=word)
