"""Law 2 entry by entry, in plain loops: what a merge must give, from the dense models themselves."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from helpers import Tensors, kept_positions

from sparsetv.task_vector import SparseTaskVector


def one_entry(rule: str, terms: Sequence[np.float32]) -> np.float32 | None:
    """What one entry moves by; None where the rule drops it. Numbers are added one by one, left to right."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    if rule == "consensus" and len(terms) < 2:
        return None
    if rule in ("sum", "consensus"):
        return total
    if rule == "mean":
        return np.float32(total / np.float32(len(terms)))
    if total == 0:
        return None
    agreeing = [term for term in terms if (term > 0 if total > 0 else term < 0)]
    chosen = agreeing[0]
    for term in agreeing[1:]:
        chosen = chosen + term
    return np.float32(chosen / np.float32(len(agreeing)))


def merged(
    base: Tensors,
    tuned: Mapping[str, Tensors],
    tasks: Sequence[SparseTaskVector],
    *,
    rule: str,
    scale: Mapping[str, float],
) -> Tensors:
    """The merged model, entry by entry."""
    ordered = sorted(tasks, key=lambda task: task.digest())
    kept = {task.name: kept_positions(task) for task in ordered}
    result = {}
    for name, tensor in base.items():
        flat, dtype = tensor.reshape(-1).clone(), tensor.dtype
        targets = {task.name: tuned[task.name][name].to(dtype).reshape(-1) for task in ordered}
        for position in range(len(flat)):
            keepers = [task.name for task in ordered if position in kept[task.name][name]]
            start = np.float32(flat[position].float())
            terms = [np.float32(scale[who]) * (np.float32(targets[who][position].float()) - start) for who in keepers]
            move = one_entry(rule, terms) if terms else None
            if move is None:
                continue
            if len(keepers) == 1 and scale[keepers[0]] == 1.0:
                flat[position] = targets[keepers[0]][position]
            else:
                flat[position] = torch.tensor(start + move).to(dtype)
        result[name] = flat.reshape(tensor.shape)
    return result
