"""Time to switch the task of a live RoBERTa-base, against loading a checkpoint and switching a LoRA of equal bytes.

    python -m benchmarks.swap [--room DIR] [--rounds N] [--device cpu|cuda] [--peers PYTHON]

Two tasks that keep 1 % of every tensor at random positions (1.25 M entries each). PEFT runs in an environment of its
own in the room, unless `--peers` names the Python of one. On another device than the CPU the same two hundred random
calls must also leave the bits that they leave on the CPU. Needs 3 GB of disk. Writes benchmarks/results/swap.json
(`swap-cuda.json` for CUDA).
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from benchmarks.common import write_result
from benchmarks.continual import settled_memory
from benchmarks.peers_environment import PeersError, peers_python, run, versions
from benchmarks.synthetic import base_directory, base_fingerprint, content, load_base, task
from sparsetv import LiveModel, SparseTaskVector, attach, write_task
from sparsetv.models import quiet

GOALS = {"cpu": 50.0, "cuda": 2.0}
WARM = 3
CALLS = 200


def live_model(room: Path, device: str) -> Any:
    """The base as a model in memory of its own, not mapped from its file."""
    from transformers import AutoModel  # noqa: PLC0415  slow to import

    with quiet():
        model = AutoModel.from_pretrained(base_directory(room)).to(device).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


def timed(job: Callable[[int], object], *, rounds: int, device: str) -> dict[str, float]:
    """Median and worst milliseconds of a job that is told the number of the round."""
    found = []
    for number in range(rounds + WARM):
        _wait(device)
        start = time.perf_counter()
        job(number)
        _wait(device)
        found.append(1e3 * (time.perf_counter() - start))
    return _summary(found[WARM:])


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def _summary(milliseconds: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(milliseconds), 2), "worst": round(max(milliseconds), 2)}


def switching(room: Path, tasks: list[SparseTaskVector], *, rounds: int, device: str) -> dict[str, Any]:
    """Switches, both tasks together, back to the base; forward passes; memory beside the model."""
    model = live_model(room, device)
    batch = torch.randint(5, 50000, (8, 32), generator=torch.Generator().manual_seed(0)).to(device)
    before = content(_cpu(model))
    with torch.no_grad():
        plain = timed(lambda _: model(batch), rounds=rounds, device=device)
        start = _memory(device)
        live = attach(model, *tasks, verify="meta", scale=0.5)
        found = {"switch": timed(lambda n: live.activate(f"task-0{n % 2}"), rounds=rounds, device=device)}
        one = (_memory(device) - start) / sum(made.nnz for made in tasks)
        forward = timed(lambda _: model(batch), rounds=rounds, device=device)
        found["off or on"] = timed(lambda n: _toggle(live, n), rounds=rounds, device=device)
        found["second on or off"] = timed(lambda n: _both(live, n), rounds=rounds, device=device)
        live.activate("task-00", "task-01")
        two = (_memory(device) - start) / sum(made.nnz for made in tasks)
    live.deactivate()
    if content(_cpu(model)) != before:
        raise SystemExit("deactivating does not give the base's bits")
    return {
        **found,
        "forward_plain": plain,
        "forward_with_task": forward,
        "bytes_per_kept_entry": {"one active": round(one, 2), "two active": round(two, 2)},
    }


def _toggle(live: LiveModel, number: int) -> None:
    live.activate("task-00") if number % 2 else live.deactivate()


def _both(live: LiveModel, number: int) -> None:
    live.activate("task-00", "task-01") if number % 2 else live.activate("task-00")


def _memory(device: str) -> int:
    return settled_memory() if device == "cpu" else torch.cuda.memory_allocated()


def _cpu(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in model.named_parameters()}


def loading(room: Path, *, rounds: int, device: str) -> dict[str, float]:
    """Read a whole checkpoint from its file, page cache warm, into the model."""
    model, path = live_model(room, device), base_directory(room) / "model.safetensors"
    return timed(lambda _: model.load_state_dict(load_file(path, device=device)), rounds=rounds, device=device)


def lora(room: Path, given: Path | None, *, size: int, rounds: int, device: str) -> dict[str, Any]:
    """PEFT switching between two LoRAs of about `size` bytes; the reason where it cannot be run."""
    rank = max(1, round(size / (4 * 13824 * 12)))
    script = str(Path(__file__).with_name("peers_lora.py"))
    try:
        python = peers_python(room, given)
        shown = json.loads(run([str(python), script, str(base_directory(room)), str(rank), str(rounds), device]))
        found = {name: _summary(values) for name, values in shown["milliseconds"].items()}
        return {"rank": rank, "bytes": shown["adapter_bytes"], "versions": versions(python), **found}
    except PeersError as error:
        print(f"PEFT is left out: {error}")
        return {"left_out": str(error)}


def parity(room: Path, tasks: list[SparseTaskVector], device: str) -> bool:
    """Whether the same random calls leave the same bits on the CPU and on the device."""
    models = [live_model(room, place) for place in ("cpu", device)]
    lives = [attach(model, *tasks, verify="meta", scale=0.5) for model in models]
    chance = random.Random(0)
    for _ in range(CALLS):
        names = chance.sample(["task-00", "task-01"], chance.randint(0, 2))
        weights = {name: chance.choice([1.0, 0.5, -1.0]) for name in names}
        for live in lives:
            live.activate(*names, weights=weights)
        if content(_cpu(models[0])) != content(_cpu(models[1])):
            return False
    return True


def measure(room: Path, given: Path | None, *, rounds: int, device: str) -> dict[str, Any]:
    """All figures."""
    fingerprint = base_fingerprint(load_base(room))
    tasks = [task(fingerprint, number) for number in range(2)]
    size = write_task(room / "task.stv", tasks[0])
    name = torch.cuda.get_device_name() if device != "cpu" else "cpu"
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "kept_entries": tasks[0].nnz,
        "file_bytes": size,
        "goal_milliseconds": GOALS[device],
        "ours": switching(room, tasks, rounds=rounds, device=device),
        "load_checkpoint": loading(room, rounds=min(rounds, 10), device=device),
        "lora": lora(room, given, size=size, rounds=rounds, device=device),
        "bits_equal_on_cpu_and_device": parity(room, tasks, device) if device != "cpu" else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--room", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--device", choices=sorted(GOALS), default="cpu")
    parser.add_argument("--peers", type=Path, metavar="PYTHON")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: this machine has no CUDA device")
    with tempfile.TemporaryDirectory() as temporary:
        room = args.room or Path(temporary)
        room.mkdir(parents=True, exist_ok=True)
        result = measure(room, args.peers, rounds=args.rounds, device=args.device)
    write_result("swap" if args.device == "cpu" else f"swap-{args.device}", result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
