"""Make the fine-tunes of a suite from its base and its tasks' training data.

    python -m benchmarks.finetune SUITE -o DIR [--tasks GLOB …] [--shots 64 | --full] [--models DIR] [--data DIR]

SUITE is a TOML file or a directory, as for `sparsetv bench`; DIR gets a directory per task, which is what --models then
names. What is there and complete is skipped. Localize-and-Stitch (appendix H) trains 10 epochs in batches of 4 with
SGD at a rate of 2e-5, and gives neither momentum nor head; with a fresh head that rate learns nothing in so few steps,
so rates here are options, with defaults that learn.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sparsetv.bench.finetuning import Plan, finetune
from sparsetv.bench.suite import Suite, Task, read_suite
from sparsetv.bench.training import OPTIMIZERS, Recipe
from sparsetv.objective.device import PRECISIONS

_RATES = {"adamw": 5e-5, "sgd": 3e-3}
_MOMENTUM = 0.9


def main(arguments: Sequence[str] | None = None) -> None:
    """Make them, printing a line for each."""
    args = _parser().parse_args(arguments)
    suite = read_suite(args.suite, models=args.models, data=args.data).only(args.tasks)
    args.output.mkdir(parents=True, exist_ok=True)
    plan = _plan(args, suite)
    for task in suite.tasks:
        made, score = finetune(suite, task, args.output / task.name, plan, progress=_progress(task))
        reached = "no test data" if score is None else f"{task.metric} {score.of(task.metric):.4f} of {score.total}"
        print(f"{task.name}\t{'made' if made else 'was there'}\t{reached}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=[], metavar="GLOB", help="these alone")
    parser.add_argument("--models", type=Path, help="what the base's path is relative to")
    parser.add_argument("--data", type=Path, help="what paths of data are relative to")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--shots", type=int, default=64, help="examples per class (default: 64)")
    amount.add_argument("--full", action="store_true", help="all examples")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw")
    parser.add_argument("--rate", type=float, help="highest learning rate (default: 5e-5 for adamw, 3e-3 for sgd)")
    parser.add_argument("--epochs", type=int, help="default: 10 of few examples, 3 of all")
    parser.add_argument("--batch-size", type=int, help="default: 4 of few examples, 32 of all")
    parser.add_argument("--frozen", nargs="+", default=[], metavar="PREFIX", help="parameters that stay")
    parser.add_argument("--precision", choices=PRECISIONS, help="default: the suite's")
    parser.add_argument("--device", default="auto")
    return parser


def _plan(args: argparse.Namespace, suite: Suite) -> Plan:
    recipe = Recipe(
        optimizer=args.optimizer,
        rate=args.rate or _RATES[args.optimizer],
        epochs=args.epochs or (3 if args.full else 10),
        momentum=_MOMENTUM if args.optimizer == "sgd" else 0.0,
        frozen=tuple(args.frozen),
        precision=args.precision or suite.precision,
        seed=suite.seed,
    )
    size = args.batch_size or (32 if args.full else 4)
    return Plan(recipe, batch_size=size, shots=None if args.full else args.shots, device=args.device)


def _progress(task: Task) -> Callable[[str, int, int], None] | None:
    """A line that counts steps, where somebody watches."""
    if not sys.stderr.isatty():
        return None
    return lambda what, done, total: print(
        f"\r{task.name}: {what} {done}/{total}", end="\n" if done == total else "", file=sys.stderr
    )


if __name__ == "__main__":
    main()
