"""Time and memory of learning a mask (`learned`, variant `released`) on models of random weights, beside the plain way.

    python -m benchmarks.localizing [--shape small|gpt2|gpt2-xl|7b] [--device cpu|cuda] [--precision fp32|bf16]

The plain way is the same computation as the authors' code lays it out: three whole models, moved to the device for
every step and back, their parameters matched by name in nested loops, masks and task vectors in tensors of their own.
Both do the same steps on the same batches and start from the same mask; the share of entries on which the resulting
masks agree is printed. `paper` is Eq. 1 as the paper has it, which has no counterpart there.
Memory is the peak allocated on the device beside what the model itself takes, in copies of the scope in float32 (on a
CPU, anonymous memory, activations included). Adds its rows to benchmarks/results/localizing.json by shape and device.
"""

import argparse
import ctypes
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from benchmarks.common import RESULTS
from sparsetv.bench.cost import peak_memory
from sparsetv.bench.machine import machine
from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.difference import TaskVector, task_vector
from sparsetv.jobs.localize import scope_names
from sparsetv.localize import learned
from sparsetv.localize.problem import Problem
from sparsetv.localize.scope import Scope
from sparsetv.models import quiet
from sparsetv.objective.device import find_device, precisely
from sparsetv.objective.loss import Inputs, Objective, task_loss

STEPS = 3
START = 0.001
RATE, PUSH = 1e5, 10.0


def configuration(shape: str) -> Any:
    """A causal model's configuration."""
    if shape == "7b":
        return transformers.LlamaConfig(tie_word_embeddings=False)  # its defaults are those of a 7B
    sizes = {"small": (256, 6, 8), "gpt2": (768, 12, 12), "gpt2-xl": (1600, 48, 25)}[shape]
    return transformers.GPT2Config(n_embd=sizes[0], n_layer=sizes[1], n_head=sizes[2])


def make_pair(room: Path, shape: str) -> TaskVector:
    """Base and fine-tune on disk: random weights, and random changes a hundredth as large."""
    config = configuration(shape)
    for number, name in enumerate(("base", "tuned")):
        if not (room / name).exists():
            torch.manual_seed(0)
            with quiet():
                model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
                generator = torch.Generator().manual_seed(number)
                for parameter in model.parameters() if number else ():
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter.data += (noise * float(parameter.data.float().std().nan_to_num(1.0) + 1e-3) * 0.05).to(
                        parameter.dtype
                    )
                model.save_pretrained(room / name)
    return task_vector(open_checkpoint(room / "base"), open_checkpoint(room / "tuned"))


def make_batches(vocabulary: int) -> list[dict[str, torch.Tensor]]:
    """4 batches of 4 sequences of 64 random tokens."""
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(0, vocabulary, (4, 64), generator=generator) for _ in range(4)]
    return [{"input_ids": one, "attention_mask": torch.ones_like(one), "labels": one} for one in ids]


def load(room: Path, name: str) -> nn.Module:
    """A model in float32."""
    with quiet():
        model: nn.Module = transformers.AutoModelForCausalLM.from_pretrained(room / name, dtype=torch.float32).eval()
    settings: Any = model.config
    settings.use_cache = False
    return model


def ours(
    vector: TaskVector, names: tuple[str, ...], model: nn.Module, batches: list[Any], args: Any, variant: str
) -> Any:
    """S by tensor."""
    objective = Objective(model, batches, checkpointing=args.checkpointing, precision=args.precision)
    problem = Problem(vector, names, START, objective=objective, device=find_device(args.device))
    gates, _ = learned.learn_gates(problem, variant=variant, rate=RATE, epochs=STEPS, l1=1e-5, push=PUSH, start=START)
    return gates


def plainly(
    base: nn.Module, tuned: nn.Module, start: dict[str, torch.Tensor], batches: Sequence[Inputs], args: Any
) -> dict[str, torch.Tensor]:
    """S by parameter name: the released code's steps in the released code's way."""
    device = find_device(args.device)
    masks = {name: gate.clone() for name, gate in start.items()}
    for _ in range(STEPS):
        model = deepcopy(base).to(device)
        first, second = deepcopy(base).to(device), deepcopy(tuned).to(device)
        deltas: dict[str, torch.Tensor] = {}
        for name, parameter in model.named_parameters():
            for other, old in first.named_parameters():
                for third, new in second.named_parameters():
                    if name == other == third and name in masks:
                        deltas[name] = (new - old).detach()
                        parameter.data.add_(torch.sigmoid(masks[name].to(device)) * deltas[name])
        for batch in batches:
            with precisely(device, args.precision):
                loss = task_loss(model, {key: tensor.to(device) for key, tensor in batch.items()})
            loss.backward()  # type: ignore[no-untyped-call]
        for name, mask in list(masks.items()):
            for other, parameter in model.named_parameters():
                if name == other and parameter.grad is not None:
                    gate = mask.to(device)
                    slope = torch.sigmoid(gate) * (1 - torch.sigmoid(gate))
                    step = RATE * parameter.grad * deltas[name] * slope - PUSH * gate.sign() * slope
                    masks[name] = (gate - step).cpu()
        model.cpu(), first.cpu(), second.cpu()
    return masks


def timed(action: Callable[[], Any], device: torch.device) -> tuple[Any, float, int]:
    """(result, seconds, peak bytes beside what was there before)."""
    if device.type != "cuda":
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # memory that a run before freed would not show as growth
        started = time.perf_counter()
        with peak_memory() as peak:
            result = action()
        return result, time.perf_counter() - started, peak.grown
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before, started = torch.cuda.memory_allocated(), time.perf_counter()
    result = action()
    torch.cuda.synchronize()
    return result, time.perf_counter() - started, torch.cuda.max_memory_allocated() - before


def measure(args: argparse.Namespace, room: Path) -> dict[str, Any]:
    """Times and memory of one shape on one device."""
    vector, device = make_pair(room, args.shape), find_device(args.device)
    names = scope_names(vector, Scope())
    copy = 4 * sum(vector.base.numel(name) for name in names)
    base = load(room, "base")
    batches = make_batches(base.config.vocab_size)  # type: ignore[union-attr, arg-type]
    result: dict[str, Any] = {
        "shape": args.shape,
        "precision": args.precision,
        "scope_entries": copy // 4,
        "steps": STEPS,
    }
    result["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    gates: dict[str, Any] = {}
    for variant in ("released", "paper"):
        gates[variant], seconds, peak = timed(lambda v=variant: ours(vector, names, base, batches, args, v), device)  # type: ignore[misc]
        result[variant] = {"seconds": round(seconds, 2), "copies": round(peak / copy, 2)}
        base.cpu()
    if not args.skip_plain:
        tuned = load(room, "tuned")
        own = {name: name if name in dict(base.named_parameters()) else f"transformer.{name}" for name in names}
        before = Problem(vector, names, START, objective=Objective(base, batches))
        start, _ = learned.learn_gates(before, variant="released", rate=0, epochs=0, l1=0, push=0, start=START)
        renamed = {own[name]: gate for name, gate in start.items()}
        masks, seconds, peak = timed(lambda: plainly(base, tuned, renamed, batches, args), device)
        result["plain"] = {"seconds": round(seconds, 2), "copies": round(peak / copy, 2)}
        result["times_faster"] = round(seconds / result["released"]["seconds"], 2)
        same = sum(int(((gates["released"][n].cpu() > 0) == (masks[own[n]] > 0)).sum()) for n in names)
        result["agreement"] = round(same / (copy // 4), 6)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["small", "gpt2", "gpt2-xl", "7b"], default="small")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--skip-plain", action="store_true")
    parser.add_argument("--room", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        row = measure(args, args.room or Path(temporary))
    print(json.dumps(row, indent=1))
    path = RESULTS / "localizing.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"rows": []}
    key = (row["shape"], row["device"], row["precision"])
    rows = [old for old in known["rows"] if (old["shape"], old["device"], old["precision"]) != key]
    path.write_text(json.dumps({"machine": machine(), "rows": [*rows, row]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
