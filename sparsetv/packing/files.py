"""Files of the fine-tune's directory that travel with the task."""

from pathlib import Path

from sparsetv.checkpoint.reading import Checkpoint
from sparsetv.errors import LimitError

CONFIG = "config.json"
MOST_BYTES = 64 << 20
"""Largest file that is carried."""

_TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
    "vocab.json", "merges.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "chat_template.jinja",
    "preprocessor_config.json", "processor_config.json", "generation_config.json",
)  # fmt: skip


def collect_files(base: Checkpoint, finetuned: Checkpoint) -> dict[str, bytes]:
    """The fine-tune's configuration, and its tokenizer and processor files where they differ from the base's.

    Raises:
        LimitError: A file is larger than 64 MiB.
    """
    directory = finetuned.location.directory
    if directory is None:
        return {}
    files = {}
    for name in (CONFIG, *_TOKENIZER):
        content = _read(directory, name)
        if content is not None and (name == CONFIG or content != _read(base.location.directory, name)):
            files[name] = content
    return dict(sorted(files.items()))


def _read(directory: Path | None, name: str) -> bytes | None:
    if directory is None or not (directory / name).is_file():
        return None
    size = (directory / name).stat().st_size
    if size > MOST_BYTES:
        raise LimitError(f"{directory / name}: {size} bytes, limit {MOST_BYTES}; is it what its name says?")
    return (directory / name).read_bytes()
