"""`sparsetv-store.json`: what makes a directory a store, and which base its tasks belong to."""

from dataclasses import dataclass
from pathlib import Path

from sparsetv import atomic
from sparsetv.errors import FormatError, NotFoundError
from sparsetv.store.base import StoreBase, base_from_json
from sparsetv.store.layout import CONFIG, is_store, regular
from sparsetv.wire import canonical
from sparsetv.wire.fields import Fields
from sparsetv.wire.small import read_small

_FORMAT = "sparsetv-store"
_VERSION = 1

CONFIG_BYTES = 1 << 26
"""LIMITS 5: largest file of this kind; it names every tensor of the base."""

CONFIG_DEPTH = 6
"""LIMITS 5: its deepest nesting."""


@dataclass(frozen=True, slots=True)
class Config:
    """The store's own file: the base of its tasks, None until there is one."""

    base: StoreBase | None = None

    def to_bytes(self) -> bytes:
        """Canonical JSON and a newline."""
        base = None if self.base is None else self.base.to_json()
        return canonical.dumps({"format": _FORMAT, "version": _VERSION, "base": base}, what=CONFIG) + b"\n"


def check_store(root: Path) -> None:
    """Raise NotFoundError where a directory is no store."""
    if not is_store(root):
        raise NotFoundError(f"{root}: no {CONFIG}, so it is no store; make one with `sparsetv store init`")


def read_config(root: Path) -> Config:
    """Read and check a store's file.

    Raises:
        NotFoundError: The directory is no store.
        FormatError: The file is broken, or of a newer version.
    """
    check_store(root)
    path = regular(root, CONFIG)
    fields = Fields(
        canonical.loads(read_small(path, most=CONFIG_BYTES), what=str(path), depth=CONFIG_DEPTH), where=str(path)
    )
    found = fields.text("format"), fields.integer("version")
    if found[0] != _FORMAT or not 1 <= found[1] <= _VERSION:
        raise FormatError(
            f"{path}: expected a {_FORMAT} of version {_VERSION}, found {found[0]!r} of {found[1]}; update sparsetv"
        )
    base = fields.take("base")
    fields.done()
    return Config(None if base is None else base_from_json(Fields(base, where=f"{path}.base")))


def write_config(root: Path, config: Config) -> None:
    """Put the store's file in place, the old one or the new one; the lock is held, and no link stands there."""
    atomic.write_file(root / CONFIG, [config.to_bytes()])
