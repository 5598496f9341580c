"""Experiment: how much of the base's own skill a merge leaves alone (Figure 8).

The paper asks CLIP for zero-shot ImageNet. Here no such data need be at hand: of each task in turn, a linear probe is
fitted to the *base's* features, all other tasks are merged, and the probe, unchanged, reads the merged body's features.
"""

from collections.abc import Sequence
from functools import partial

import torch

from sparsetv.bench.lab import Lab
from sparsetv.bench.merge import Once, checked
from sparsetv.bench.methods import choose
from sparsetv.bench.subject import Subject
from sparsetv.errors import UsageError
from sparsetv.examples.encoding import Batch
from sparsetv.merging.vectors import Tensors
from sparsetv.objective.device import precisely

METHODS = ("average", "arithmetic", "ties", "stitch-5", "stitch-5-scaled", "stitch-1-joint", "stitch-learned")
EXAMPLES = 2048
"""Training examples that a probe is fitted to, at most."""

_RIDGE = 1e-2


def retention(lab: Lab, *, methods: Sequence[str] = ()) -> None:
    """Hold each task out in turn; rows `{method, held_out}` in `retention.jsonl`.

    Raises:
        UsageError: Fewer than three tasks are merged.
    """
    names = checked(lab)
    if len(names) < 3:
        raise UsageError("retention holds one task out and merges the rest: three tasks or more are needed")
    chosen, recorder = choose(methods, default=METHODS), lab.recorder("retention")
    for held in names:
        rest = [name for name in names if name != held]
        probe = Probe(lab.subject(held))
        for key, method in chosen.items():
            once = Once(partial(method.make, lab, rest))
            row = recorder.measure(
                {"method": key, "held_out": held},
                lambda p=probe, o=once, r=rest, m=method: _measured(lab, p, o, r, m.label),  # type: ignore[misc]
            )
            lab.say(f"{held} held out, {key}: {row['retained']:.3f} of {row['base']:.3f}")


def _measured(lab: Lab, probe: "Probe", once: Once, rest: Sequence[str], label: str) -> dict[str, object]:
    deltas = once.merged.deltas[rest[0]]
    merged = lab.normalised({name: lab.subject(name).score(deltas) for name in rest})
    return {
        "label": label,
        "retained": round(probe.score(deltas), 6),
        "base": round(probe.score({}), 6),
        "merged_average": merged,
    }


class Probe:
    """A linear classifier on the base's features of one task.

    Args:
        subject: The task.

    Raises:
        UsageError: It is no classification.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._weights: torch.Tensor | None = None

    def score(self, deltas: Tensors) -> float:
        """Accuracy on the test set with the body at base plus deltas."""
        if self._weights is None:
            self._weights = self._fit()
        batches = self._subject.batches("test", size=64)
        features, labels = self._features(batches, deltas)
        return float(((features @ self._weights).argmax(dim=1) == labels).double().mean())

    def _fit(self) -> torch.Tensor:
        """Ridge regression of one-hot labels, shape (features + 1, classes), float64."""
        batches = self._subject.batches("train", most=EXAMPLES, size=64)
        features, labels = self._features(batches, {})
        wanted = torch.nn.functional.one_hot(labels).double()
        gram = features.T @ features
        ridge = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
        weights: torch.Tensor = torch.linalg.solve(gram + ridge, features.T @ wanted)
        return weights

    def _features(self, batches: Sequence[Batch], deltas: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean of the last hidden state over positions that count, and a 1; labels) per example."""
        subject, found, labels = self._subject, [], []
        subject.set(deltas)
        with torch.inference_mode(), precisely(subject.device, "fp32"):
            for batch in batches:
                inputs = {key: tensor.to(subject.device) for key, tensor in batch.items() if key != "labels"}
                result = subject.model(**inputs, output_hidden_states=True)
                states = getattr(result, "hidden_states", None)
                if not states:
                    raise UsageError(f"{subject.task.name}: its model gives no hidden states")
                found.append(_mean(states[-1].flatten(1, -2), inputs.get("attention_mask")).cpu().double())
                labels.append(batch["labels"])
        features = torch.cat(found)
        return torch.cat([features, torch.ones(len(features), 1, dtype=torch.float64)], dim=1), torch.cat(labels)


def _mean(states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Mean over positions, shape (n, hidden); padding does not count."""
    if mask is None or mask.shape != states.shape[:2]:
        return states.float().mean(dim=1)
    weights = mask.unsqueeze(-1).float()
    return (states.float() * weights).sum(dim=1) / weights.sum(dim=1)
