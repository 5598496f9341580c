"""From what a user names to files on this machine: directory, file or hub id; and what is refused, with advice."""

import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from sparsetv.errors import CheckpointError, FormatError, LimitError, NotFoundError
from sparsetv.wire import canonical
from sparsetv.wire.small import read_small

INDEX_BYTES = 10 << 20
"""LIMITS 5: largest shard index that is read."""

INDEX_DEPTH = 6
"""LIMITS 5: deepest nesting of a shard index."""

JSON_FILE_BYTES = 10 << 20
"""LIMITS 5: largest `config.json`."""

PART_BYTES = 255
"""LIMITS 5: longest part of a path that file systems look up."""

PATH_BYTES = 2048
"""LIMITS 5: longest path below a checkpoint's directory."""

_SHOWN = 120
"""Characters of a name that a message shows."""

INDEX_NAME = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_HUB_ID = re.compile(r"^[\w.-]{1,96}/[\w.-]{1,96}(@[\w./-]+)?$")
_PATTERNS = ["*.safetensors", "*.json", "*.txt", "*.model", "*.md", "*.tiktoken", "*.jinja"]
_QUANTIZED = "base and fine-tune must be unquantized; use the checkpoint that was quantized"


@dataclass(frozen=True, slots=True)
class Location:
    """Where a checkpoint lies.

    Attributes:
        directory: Directory with configuration and tokenizer; None for a lone file.
        shards: Weight files in order of their names.
        weight_map: Shard name per tensor as the index says; empty without an index.
        repo, commit: Hub repository and resolved commit, if it came from the hub.
    """

    directory: Path | None
    shards: tuple[Path, ...]
    weight_map: dict[str, str]
    repo: str | None = None
    commit: str | None = None


def locate(source: str | Path) -> Location:
    """Find the weight files of a checkpoint.

    Args:
        source: A directory, a `.safetensors` file, or a hub id `org/name@revision` that is no local path.

    Raises:
        NotFoundError: Nothing is there.
        CheckpointError: What is there is no full, unquantized safetensors checkpoint.
        FormatError: The shard index is broken.
    """
    path = Path(source)
    if path.exists():
        return _directory(path) if path.is_dir() else _file(path)
    if _HUB_ID.match(str(source)):
        return _hub(str(source))
    raise NotFoundError(f"{source}: no such file or directory, and no hub id (org/name or org/name@revision)")


def _file(path: Path) -> Location:
    if not stat.S_ISREG(path.stat().st_mode):
        raise CheckpointError(f"{path}: not a regular file")
    if path.suffix in {".bin", ".pt", ".pth", ".ckpt", ".pkl"}:
        raise CheckpointError(f"{path}: a pickle, which can run code; `sparsetv convert {path} -o NEW`, and pass NEW")
    return Location(None, (path,), {})


def _directory(path: Path) -> Location:
    _check_config(path)
    single, index = path / _SINGLE, path / INDEX_NAME
    if single.is_file():
        return Location(path, (single,), {})
    if index.is_file():
        weight_map = read_index(index)
        shards = tuple(_shard(path, name) for name in sorted(set(weight_map.values())))
        return Location(path, shards, weight_map)
    if (path / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{path}: a LoRA adapter, not a full checkpoint; merge it first "
            "(peft: `model.merge_and_unload().save_pretrained(DIR)`) and pass DIR"
        )
    others = sorted(item for item in path.glob("*.safetensors") if item.is_file())
    if len(others) == 1:
        return Location(path, (others[0],), {})
    if others:
        raise CheckpointError(f"{path}: {len(others)} safetensors files and no {INDEX_NAME}; name one file")
    raise _no_weights(path)


def _no_weights(path: Path) -> CheckpointError | NotFoundError:
    if any(path.glob("pytorch_model*.bin")) or any(path.glob("*.pt")):
        return CheckpointError(
            f"{path}: only pickled weights (.bin), which can run code; `sparsetv convert {path} -o NEW`, and pass NEW"
        )
    return NotFoundError(f"{path}: no {_SINGLE}, no {INDEX_NAME} and no other safetensors file")


def _check_config(path: Path) -> None:
    config = read_config(path)
    if config.get("quantization_config"):
        method = config["quantization_config"]
        name = method.get("quant_method", "unknown method") if isinstance(method, dict) else "unknown method"
        raise CheckpointError(f"{path}: quantized ({name}); {_QUANTIZED}")


def read_config(path: Path) -> dict[str, Any]:
    """`config.json` of a checkpoint directory; empty where there is none.

    Raises:
        FormatError: It is no JSON object, or larger than 10 MiB.
    """
    file = path / "config.json"
    if not file.is_file():
        return {}
    try:
        value = json.loads(read_small(file, most=JSON_FILE_BYTES).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{file}: not JSON ({error}); fetch it again") from None
    if not isinstance(value, dict):
        raise FormatError(f"{file}: expected an object, found {type(value).__name__}; fetch it again")
    return value


def read_index(path: Path) -> dict[str, str]:
    """The weight map of a shard index.

    Raises:
        LimitError: The index is larger than 10 MiB.
        FormatError: It is broken, or names a file that a checkpoint may not name.
    """
    weight_map = read_map(path)
    for name, shard in weight_map.items():
        if not is_plain_shard(shard):
            named = f"{name[:_SHOWN]} names shard {repr(shard)[:_SHOWN]}"
            raise FormatError(f"{path}: {named}; a shard is a .safetensors file in this directory")
    return weight_map


def read_map(path: Path) -> dict[str, str]:
    """Shard by tensor name as an index says, whatever the shards are called.

    Raises:
        LimitError: The index is larger than 10 MiB.
        FormatError: It is broken.
    """
    if path.stat().st_size > INDEX_BYTES:
        raise LimitError(f"{path}: index of {path.stat().st_size} bytes, limit {INDEX_BYTES}")
    value = canonical.loads(path.read_bytes(), what=str(path), depth=INDEX_DEPTH, finite=False)
    weight_map = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise FormatError(f"{path}: no `weight_map` object; fetch it again")
    for name, shard in weight_map.items():
        if not isinstance(shard, str):
            named = f"{name[:_SHOWN]} names shard {repr(shard)[:_SHOWN]}"
            raise FormatError(f"{path}: {named}, which is no text; fetch it again")
    return weight_map


def is_plain_shard(shard: str) -> bool:
    """Whether a weight file's name stays inside its directory on every system."""
    return stays_inside(shard) and shard.endswith(".safetensors")


def stays_inside(name: str) -> bool:
    """Whether a path stays inside the directory that it is relative to, and is one that every system can look up."""
    path = PureWindowsPath(name)
    inside = bool(path.parts) and not path.drive and not path.root and ".." not in path.parts and "\0" not in name
    return inside and _bytes(name) <= PATH_BYTES and max(map(_bytes, path.parts)) <= PART_BYTES


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _shard(directory: Path, name: str) -> Path:
    path = directory / name
    if not path.is_file():
        raise NotFoundError(f"{directory}: shard {name} of the index is missing")
    real, root = os.path.realpath(path), os.path.realpath(directory)
    if os.path.basename(os.path.dirname(root)) == "snapshots":
        root = os.path.dirname(os.path.dirname(root))  # the hub's cache links from snapshots/ to blobs/ beside it
    if os.path.commonpath([real, root]) != root:
        raise CheckpointError(f"{directory}: shard {name} is a link that leaves the directory")
    return path


def _hub(source: str) -> Location:
    repo, _, revision = source.partition("@")
    from huggingface_hub import snapshot_download  # noqa: PLC0415  the hub client takes 0.2 s to import
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        path = Path(snapshot_download(repo, revision=revision or None, allow_patterns=_PATTERNS))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NotFoundError(f"{source}: no local path, and the hub did not give it ({reason})") from None
    found = _directory(path)
    return Location(found.directory, found.shards, found.weight_map, repo, path.name)
