"""All merge methods by name, in the order of tables."""

from collections.abc import Sequence

from sparsetv.bench import baselines, running
from sparsetv.bench.method import Method
from sparsetv.bench.ours import stitched
from sparsetv.bench.sequence import continual_training
from sparsetv.errors import UsageError

_NONE = "none"
_TUNED = "32 labelled examples per class and task, to tune on"
_SHOTS = "64 labelled examples per class and task"

METHODS: dict[str, Method] = {
    "average": Method("simple average", _NONE, baselines.simple_average, "dataless", "Simple averaging"),
    "arithmetic": Method("task arithmetic, 0.4", _NONE, baselines.plain_arithmetic, "dataless", "Task arithmetic"),
    "ties": Method("TIES, top 20 %", _NONE, baselines.plain_ties, "dataless", "TIES"),
    "dare": Method("DARE, 10 %, task arithmetic, 0.4", _NONE, baselines.plain_dare, "dataless"),
    "dare-ties": Method("DARE, 10 %, TIES", _NONE, baselines.dare_ties, "dataless"),
    "stitch-5": Method("stitch, 5 %, unscaled (the paper, dataless)", _NONE, stitched("5% exact bare", "none"),
                       "ours", "Localize-and-Stitch (dataless)"),
    "stitch-5-scaled": Method("stitch, 5 %, `l2-tensor`", _NONE, stitched("5% exact bare", "l2-tensor"), "ours"),
    "stitch-1-joint": Method("stitch, 1 %, `joint`", _NONE, stitched("1% exact", "joint"), "ours"),
    "stitch-5-joint": Method("stitch, 5 %, `joint`", _NONE, stitched("5% exact", "joint"), "ours"),
    "stitch-budget-joint": Method("stitch, `--budget 1%`, `joint`", _NONE, stitched("1% budget", "joint"), "ours"),
    "arithmetic-tuned": Method("task arithmetic, tuned", _TUNED, baselines.tuned_arithmetic, "data",
                               "Task arithmetic (tuned)"),
    "ties-tuned": Method("TIES, tuned", _TUNED, baselines.tuned_ties, "data", "TIES (tuned)"),
    "consensus-arithmetic": Method("Consensus TA", _TUNED, baselines.consensus_arithmetic, "data", "Consensus TA"),
    "consensus-ties": Method("Consensus TIES", _TUNED, baselines.consensus_ties, "data", "Consensus TIES"),
    "fisher": Method("Fisher", "256 inputs per task", running.fisher, "data", "Fisher merging"),
    "regmean": Method("RegMean", "1,600 inputs per task", running.regression_mean, "data", "RegMean"),
    "adamerging": Method("AdaMerging", "the test inputs, unlabelled", running.entropy, "data", "AdaMerging"),
    "stitch-learned": Method("stitch, learned 1 %, unscaled (the paper)", _SHOTS, stitched("1% learned", "none"),
                             "ours", "Localize-and-Stitch"),
    "stitch-5-fit": Method("stitch, 5 %, `fit`", _SHOTS, stitched("5% exact", "fit"), "ours"),
    "continual": Method("continual training", "all training data", continual_training, "data"),
    "tall": Method("TALL-masks (a mask per task)", _TUNED, baselines.tall, "compression"),
}  # fmt: skip


def choose(names: Sequence[str], default: Sequence[str] = ()) -> dict[str, Method]:
    """Methods by name: those given, else the default ones, else all.

    Raises:
        UsageError: There is none of a name.
    """
    for name in names:
        if name not in METHODS:
            raise UsageError(f"unknown method {name!r}; known are {', '.join(METHODS)}")
    return {name: METHODS[name] for name in names or default or METHODS}
