"""Localizers on real fine-tunes: accuracy of the graft by localizer, density and scale.

    python -m benchmarks.recovery_localizers MODELS TASKS [--room DIR] [--examples 250] [--only NAME ...]

Exact values. Localizers that learn see 64 examples per class of the training set at the paper's settings (or random
inputs, 128 of them, and the fine-tune's outputs); they learn once, from the magnitude mask at 1 %, and their ranking
is cut at every density. `match` and `fit` (the loss on the same 64 examples per class) run the models and are
measured at 1 % only, and densities other than 1 % at `l2` alone but for `magnitude`. Accuracy on the first examples
of each test set, matrix products in bfloat16: good to about 0.03 for a single number, 0.01 for an average. Writes
benchmarks/results/recovery_localizers.json.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.common import Cache, write_result
from benchmarks.data import ADAMW, SGD, Sentences
from benchmarks.sentences import MAX_LENGTH, arguments, room_of, subject, summarise
from sparsetv.arrays import Positions, Values
from sparsetv.bench.cost import peak_memory
from sparsetv.calibrate.match import GRID, match
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.compose.base import base_of
from sparsetv.difference import task_vector
from sparsetv.jobs.learning import Learn, make_objective
from sparsetv.jobs.localize import scope_names
from sparsetv.jobs.models import frame, task_model, whole_model
from sparsetv.localize import grafting, learned
from sparsetv.localize.live import as_scores, body_of, deltas_of
from sparsetv.localize.names import run_localizer
from sparsetv.localize.problem import Problem
from sparsetv.localize.ranking import rank
from sparsetv.localize.scope import Scope
from sparsetv.objective.loss import Objective, task_loss
from sparsetv.objective.setup import choose_setup

DENSITIES = (0.001, 0.003, 0.01, 0.05, 0.1)
MAIN = 0.01
Scores = dict[str, torch.Tensor]
Mask = dict[str, Positions]
Maker = Callable[[], Callable[[float], Mask]]
"""Learns or ranks, and gives a mask per density."""


class Bench:
    """One fine-tune: its vector, examples, and the scores of every localizer."""

    def __init__(self, data: Sentences, name: str, limit: int) -> None:
        """Open everything."""
        self.data, self.name = data, name
        self.subject = subject(data, name, limit=limit)
        self.deltas = self.subject.deltas()
        self.vector = self.subject.vector
        self.names = scope_names(self.vector, Scope())
        train = data.test(name).parent / "train.jsonl"
        self.learn = Learn(train, precision="bf16", max_length=MAX_LENGTH)
        others = [
            other for other in (*ADAMW, *SGD) if other != name and other.split("-")[0] != name.split("-", maxsplit=1)[0]
        ]
        self.others = tuple(task_vector(self.vector.base, open_checkpoint(data.finetuned(other))) for other in others)

    def problem(self, *, data: str | None = None) -> Problem:
        """The task vector with something to learn from: the examples, or `random`."""
        learn = self.learn if data is None else replace(self.learn, data=data, batch_size=32, batches=4)
        objective = make_objective(self.vector, self.subject.carried, learn, seed=0)
        return Problem(self.vector, self.names, MAIN, objective=objective, others=self.others)

    def learned(self, variant: str, *, data: str | None = None) -> Callable[[float], Mask]:
        """Eq. 1, from the magnitude mask at 1 %; `released` from its own."""
        problem = self.problem(data=data)
        start = MAIN if variant == "paper" else None
        gates, _ = learned.learn_gates(problem, variant=variant, rate=1e7, epochs=10, l1=1e-5, push=10.0, start=start)
        return partial(self._cut, gates)

    def grafting(self) -> Callable[[float], Mask]:
        """Eq. 2, from the magnitude mask at 1 %."""
        gates, _, _ = grafting.learn_gates(self.problem(), rate=1e7, steps=10, bias=10.0)
        return partial(self._cut, gates)

    def saliency(self, *, data: str | None = None) -> Callable[[float], Mask]:
        """|g * tau| at the base."""
        problem = self.problem(data=data)
        body = body_of(problem, "saliency")
        scores = deltas_of(problem, body)
        with body.tuning():
            body.gradient(body.objective.batches)
            for part in body.parts:
                scores[part.name] = (scores[part.name] * part.gradient()).abs()
        return partial(self._cut, scores)

    def plain(self, method: str) -> Callable[[float], Mask]:
        """A localizer that learns nothing, run at each density."""
        problem = Problem(self.vector, self.names, others=self.others)
        return lambda density: dict(run_localizer(method, problem.at(density)).mask.positions)

    def _cut(self, scores: Scores, density: float) -> Mask:
        sizes = {name: self.vector.base.numel(name) for name in self.names}

        def pieces(name: str) -> Iterator[Values]:
            yield from as_scores(scores[name])

        return rank(sizes, pieces, density=density)

    def kept(self, mask: Mask) -> Scores:
        """The masked task vector, dense."""
        found = {}
        for name, positions in mask.items():
            index = torch.from_numpy(positions)
            flat = torch.zeros(self.deltas[name].numel())
            flat[index] = self.deltas[name].reshape(-1)[index]
            found[name] = flat.reshape(self.deltas[name].shape)
        return found

    def score(self, kept: Scores, scale: float) -> float:
        """Accuracy of the graft."""
        return self.subject.score({name: tensor * scale for name, tensor in kept.items()})

    def norms(self, kept: Scores) -> dict[str, float]:
        """The scales that need norms alone."""
        whole = {name: self.deltas[name] for name in self.names}
        l1 = _sum(whole, torch.abs) / max(_sum(kept, torch.abs), 1e-30)
        l2 = math.sqrt(_sum(whole, torch.square) / max(_sum(kept, torch.square), 1e-30))
        return {"none": 1.0, "l2": l2, "graft": math.sqrt(l1 * l2)}

    def match(self, kept: Scores) -> float:
        """The data-free scale of `pack`."""
        base = task_model(base_of(self.vector.base, {}), self.subject.carried, None)
        graft = task_model(base_of(self.vector.base, {}), self.subject.carried, None)
        places = dict(graft.named_parameters())
        with torch.no_grad():
            for name, tensor in kept.items():
                places[f"bert.{name}"].add_(tensor)
        setup = choose_setup(base, frame=frame(self.vector.finetuned))
        tuned = whole_model(self.subject.carried, self.vector.finetuned)
        return match(base, graft, tuned, setup, ceiling=1.1 * self.norms(kept)["graft"]).scale

    def fit(self, kept: Scores) -> float:
        """The scale of `match`'s grid with the lowest loss on the examples."""
        objective = make_objective(self.vector, self.subject.carried, replace(self.learn, batch_size=64), seed=0)
        losses = [self._loss(objective, kept, scale) for scale in GRID]
        return GRID[int(np.argmin(losses))]

    def _loss(self, objective: Objective, kept: Scores, scale: float) -> float:
        parameters = dict(objective.model.named_parameters())
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            for name, tensor in kept.items():
                parameters[f"bert.{name}"].add_(tensor, alpha=scale)
            loss = sum(float(task_loss(objective.model, batch)) for batch in objective.batches)
            for name, tensor in kept.items():
                parameters[f"bert.{name}"].sub_(tensor, alpha=scale)
        return loss


def _sum(tensors: Scores, function: Callable[[torch.Tensor], torch.Tensor]) -> float:
    return math.fsum(float(function(tensor).double().sum()) for tensor in tensors.values())


def localizers(bench: Bench) -> dict[str, Maker]:
    """What is compared, by name."""
    return {
        "magnitude": partial(bench.plain, "magnitude"),
        "learned, paper": partial(bench.learned, "paper"),
        "learned, released": partial(bench.learned, "released"),
        "learned, paper, random inputs": partial(bench.learned, "paper", data="random"),
        "grafting": bench.grafting,
        "saliency": bench.saliency,
        "saliency, random inputs": partial(bench.saliency, data="random"),
        "tall": partial(bench.plain, "tall"),
        "random": partial(bench.plain, "random"),
    }


def measure(
    bench: Bench, method: str, make: Callable[[], Callable[[float], Mask]], cache: Cache
) -> list[dict[str, Any]]:
    """Rows of one localizer on one fine-tune: an accuracy per density and scale."""
    rows: list[dict[str, Any]] = []
    cutter: list[Callable[[float], Mask]] = []

    def mask(density: float) -> Mask:
        if not cutter:
            started = time.perf_counter()
            with peak_memory() as peak:
                cutter.append(make())
            cache.put(f"{bench.name} {method} seconds", time.perf_counter() - started)
            cache.put(f"{bench.name} {method} peak", peak.grown)
        return cutter[0](density)

    for density in DENSITIES:
        key = f"{bench.name} {method} {density:g}"
        held: list[Scores] = []

        def kept(at: float = density, held: list[Scores] = held) -> Scores:
            if not held:
                held.append(bench.kept(mask(at)))
            return held[0]

        policies: tuple[str, ...] = ("none", "l2", "graft") if method == "magnitude" else ("l2",)
        if density == MAIN:
            policies = ("none", "l2", "graft", "match", "fit")
        for policy in policies:
            scale = cache.get(f"{key} {policy} scale", lambda p=policy, k=kept: _scale(bench, k(), p))  # type: ignore[misc]
            accuracy = cache.get(f"{key} {policy}", lambda s=scale, k=kept: bench.score(k(), s))  # type: ignore[misc]
            rows.append(
                {"localizer": method, "density": density, "scale": policy, "number": scale, "accuracy": accuracy}
            )
    return rows


def _scale(bench: Bench, kept: Scores, policy: str) -> float:
    if policy in {"match", "fit"}:
        return bench.match(kept) if policy == "match" else bench.fit(kept)
    return bench.norms(kept)[policy]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--only", nargs="+", default=[*ADAMW, *SGD], help="fine-tunes to measure")
    parser.add_argument("--examples", type=int, default=250)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    costs: list[dict[str, Any]] = []
    with room_of(args) as room:
        cache = Cache(room / f"localizers-{args.examples}.json")
        for name in args.only:
            bench = Bench(Sentences(args.models, args.tasks), name, args.examples)
            floor = cache.get(f"{name} base", lambda b=bench: b.subject.floor)  # type: ignore[misc]
            ceiling = cache.get(f"{name} fine-tuned", lambda b=bench: b.subject.ceiling)  # type: ignore[misc]
            own = {"task": name, "optimizer": "SGD" if name in SGD else "AdamW", "base": floor, "finetuned": ceiling}
            for method, make in localizers(bench).items():
                rows += [{**own, **row} for row in measure(bench, method, make, cache)]
                seconds, peak = (cache.get(f"{name} {method} {what}", lambda: 0.0) for what in ("seconds", "peak"))
                costs.append(
                    {"task": name, "localizer": method, "seconds": round(seconds, 1), "peak_bytes": round(peak)}
                )
    groups = sorted({(row["localizer"], row["density"], row["scale"], row["optimizer"]) for row in rows})
    summary = [
        {
            **dict(zip(("localizer", "density", "scale", "optimizer"), group, strict=True)),
            **summarise(
                (row["accuracy"], row["base"], row["finetuned"])
                for row in rows
                if (row["localizer"], row["density"], row["scale"], row["optimizer"]) == group
            ),
        }
        for group in groups
    ]
    value = {"precision": "bf16", "examples": args.examples, "rows": rows, "summary": summary, "costs": costs}
    write_result("recovery_localizers", value)


if __name__ == "__main__":
    main()
