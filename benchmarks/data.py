"""The real base, fine-tunes and test sets of a local folder, as `unpack.py` lays them out."""

from dataclasses import dataclass
from pathlib import Path

ADAMW = ("CR", "SST2", "SUBJ", "TREC")
SGD = ("TREC-sgd",)


@dataclass(frozen=True, slots=True)
class Sentences:
    """Where things are: `models` holds `base`, `base-bf16` and the fine-tunes; `tasks` the test sets."""

    models: Path
    tasks: Path

    def base(self, suffix: str = "") -> Path:
        """The base checkpoint; suffix `-bf16` for the cast one."""
        return self.models / f"base{suffix}"

    def finetuned(self, name: str, suffix: str = "") -> Path:
        """A fine-tuned checkpoint."""
        return self.models / f"{name}{suffix}"

    def test(self, name: str) -> Path:
        """The test set of a fine-tune's task."""
        return self.tasks / name.removesuffix("-sgd") / "test.jsonl"
