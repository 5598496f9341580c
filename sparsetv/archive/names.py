"""Which files an archive may hold (ARCHIVE 2.5): weights, and plain text that nothing runs."""

from sparsetv.container.names import check_component
from sparsetv.errors import FormatError

WEIGHTS = ".safetensors"
_SUFFIXES = (
    ".json", ".jsonl", ".txt", ".md", ".model", ".tiktoken", ".vocab", ".bpe", ".jinja", ".csv", ".tsv", ".yaml",
    ".yml", ".toml",
)  # fmt: skip
_PLAIN = {".gitattributes", "LICENSE", "NOTICE", "README"}


def check_weights_name(name: str) -> str:
    """Return the name of a weight file, or raise FormatError where no archive may hold it."""
    check_component(name, what="file name")
    if not name.endswith(WEIGHTS):
        raise FormatError(f"file name {name!r}: weights of an archive end in {WEIGHTS}")
    return name


def check_other_name(name: str) -> str:
    """Return the name of a file that is no weights, or raise FormatError where no archive may hold it."""
    check_component(name, what="file name")
    if name not in _PLAIN and not name.endswith(_SUFFIXES):
        raise FormatError(f"file name {name!r} is of no kind that archives hold ({', '.join(_SUFFIXES)})")
    return name
