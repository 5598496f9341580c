"""Switching a LoRA with PEFT; runs in the peers' environment and prints JSON.

    PYTHON benchmarks/peers_lora.py MODEL RANK ROUNDS DEVICE

MODEL is a directory with a RobertaModel. Two adapters of RANK on all linear layers of the blocks, random. Times are
milliseconds per switch: `unmerged` sets the active adapter, `merged` unmerges one and merges the other into the
weights.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

LAYERS = ["query", "key", "value", "dense"]


def main() -> None:
    import torch  # noqa: PLC0415  the peers' own
    from peft import LoraConfig, get_peft_model  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415
    from transformers import AutoModel  # noqa: PLC0415

    directory, rank, rounds, device = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    torch.manual_seed(0)
    plain = AutoModel.from_pretrained(directory).to(device).eval()
    names = [n for n, m in plain.named_modules() if isinstance(m, torch.nn.Linear) and n.startswith("encoder.")]
    config = LoraConfig(r=rank, target_modules=names, init_lora_weights=False)
    model: Any = get_peft_model(plain, config, adapter_name="a")
    model.add_adapter("b", config)
    model.eval()
    batch = torch.randint(5, 50000, (8, 32), device=device)

    def timed(job: Callable[[str], object]) -> list[float]:
        found = []
        for number in range(rounds + 3):
            _wait(torch, device)
            start = time.perf_counter()
            job("ab"[number % 2])
            _wait(torch, device)
            found.append(1e3 * (time.perf_counter() - start))
        return found[3:]

    def merged(name: str) -> None:
        model.unmerge_adapter()
        model.set_adapter(name)
        model.merge_adapter([name])

    with torch.no_grad():
        result = {"unmerged": timed(model.set_adapter), "forward": timed(lambda _name: model(batch))}
        model.merge_adapter(["a"])
        result["merged"] = timed(merged)
    count = sum(p.numel() for n, p in model.named_parameters() if ".a." in n)
    print(json.dumps({"milliseconds": result, "adapter_bytes": 4 * count, "layers": len(names)}))


def _wait(torch: Any, device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
