"""mergekit on checkpoints of roberta-base shape: what it wants them to be called, its recipes, what it wrote."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from benchmarks.synthetic import Tensors, base_directory

DENSITY = 0.01
SPARSE = ("ties", "dare_ties")
"""Methods that take a density."""


def mergekit_name(name: str) -> str:
    """A tensor as mergekit 0.1.5 wants it named in a RobertaModel: all but the pooler under a prefix."""
    return name if name.startswith("pooler.") else f"roberta.{name}"


def save_dense(room: Path, directory: Path, tensors: Tensors) -> None:
    """Write a whole checkpoint under mergekit's names, with the base's config."""
    directory.mkdir(parents=True, exist_ok=True)
    named = {mergekit_name(name): tensor for name, tensor in tensors.items()}
    save_file(named, directory / "model.safetensors", metadata={"format": "pt"})
    shutil.copyfile(base_directory(room) / "config.json", directory / "config.json")


def recipe(path: Path, method: str, checkpoints: Sequence[Path], *, normalize: bool = False) -> Path:
    """Write a recipe: weight 1, density 0.01 per tensor where the method takes one, float32. JSON is YAML.

    Args:
        path: File to write.
        method: mergekit's name of it.
        checkpoints: The base, then the fine-tunes, as absolute paths: relative ones with one slash are hub ids to it.
        normalize: Divide by the weights of the fine-tunes that count at an entry.
    """
    density = {"density": DENSITY} if method in SPARSE else {}
    base, *tuned = map(str, checkpoints)
    value = {
        "merge_method": method,
        "base_model": base,
        "models": [{"model": model, "parameters": {"weight": 1.0, **density}} for model in tuned],
        "parameters": {"normalize": normalize},
        "dtype": "float32",
    }
    path.write_text(json.dumps(value, indent=1))
    return path


def program(python: Path) -> str:
    """mergekit's program in the environment of a Python."""
    return str(python.parent / "mergekit-yaml")


def command(python: Path, written: Path, out: Path) -> list[str]:
    """The command that merges by a recipe: only weights and config are written."""
    return [program(python), str(written), str(out), "--no-write-model-card", "--no-copy-tokenizer", "--quiet"]


def largest_difference(out: Path, wanted: Tensors) -> float:
    """How far what mergekit wrote is from tensors under the base's names, at most."""
    merged = {name: tensor for file in sorted(out.glob("*.safetensors")) for name, tensor in load_file(file).items()}
    distances = [_distance(merged[mergekit_name(name)], tensor) for name, tensor in wanted.items()]
    return max(distances)


def _distance(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).abs().max())
