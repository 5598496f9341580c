"""Job four: a library of many tasks of one base, on disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.errors import UsageError
from sparsetv.fingerprint import fingerprint
from sparsetv.jobs.inspect import Summary, inspect
from sparsetv.jobs.options import StitchOptions
from sparsetv.progress import Progress, counter
from sparsetv.store.base import StoreBase, base_from
from sparsetv.store.fsck import Report, fsck
from sparsetv.store.gc import GRACE, Collected, collect
from sparsetv.store.library import Library
from sparsetv.store.refs import Ref

if TYPE_CHECKING:
    import torch

    from sparsetv.live.composer import Composer


@dataclass(frozen=True, slots=True)
class Shown:
    """One task of a store: its ref, and what its file holds."""

    ref: Ref
    summary: Summary


@dataclass(frozen=True, slots=True)
class Store(Library):
    """A directory that holds many tasks of one base by name.

    >>> store = Store.init("tasks", base="roberta-base")  # doctest: +SKIP
    >>> store.add("sst2.stv")  # doctest: +SKIP
    >>> store.read("sst2")  # doctest: +SKIP
    """

    @classmethod
    def init(
        cls, path: str | Path, base: str | Path | None = None, *, progress: Progress | None = None, wait: float = 0.0
    ) -> "Store":
        """Make a new or empty directory a store.

        Args:
            path: The directory.
            base: Directory, `.safetensors` file or hub id that all tasks are packed against; without it the first task
                decides.
            progress: Reports bytes of the base hashed.
            wait: Seconds to wait for another writer.

        Raises:
            UsageError: It is a store.
            OutputError: It holds other things, or cannot be written.
        """
        return cls.create(Path(path), base=None if base is None else _identify(base, progress), wait=wait)

    @property
    def base(self) -> str | None:
        """What to open to get the base: a path, or a hub id; None where no task file told."""
        known = self.known_base()
        return None if known is None else known.source

    def show(self, name: str) -> Shown:
        """A task's ref, and what its file holds; nothing is decoded.

        Raises:
            NotFoundError: There is no task of that name.
            FormatError: Its file is missing or broken.
        """
        return Shown(self.ref(name), inspect(self.path_of(name), decoded=False))

    def compose(
        self,
        *patterns: str,
        base: str | Path | None = None,
        options: StitchOptions | None = None,
        device: "torch.device | str" = "cpu",
    ) -> "Composer":
        """A composer over the base's tensors, in memory, with tasks of the store in force.

        Args:
            patterns: Names of tasks, or globs.
            base: The base, where the store does not know it or it has moved.
            options: How tasks combine.
            device: Where the tensors shall be.

        Raises:
            NotFoundError: A pattern matches nothing, or the base is not there.
            BaseMismatchError: It is another base.
            UsageError: The store does not know its base.
        """
        import torch  # noqa: PLC0415  torch only where tensors are made

        from sparsetv.live.bits import FLOATS  # noqa: PLC0415
        from sparsetv.live.composer import Composer  # noqa: PLC0415
        from sparsetv.models import to_torch  # noqa: PLC0415

        source = base if base is not None else self.base
        if source is None:
            raise UsageError(f"{self.root}: does not know where its base is; pass base=")
        names, checkpoint, chosen = self.select(*patterns), open_checkpoint(source), options or StitchOptions()
        tensors = {
            name: to_torch(checkpoint.raw(name), checkpoint.dtype(name), checkpoint.shape(name)).to(
                torch.device(device)
            )
            for name in checkpoint.names
            if checkpoint.dtype(name) in FLOATS
        }
        composer = Composer(
            tensors, rule=chosen.rule, scale=chosen.scale, min_tasks=chosen.min_tasks, source=str(source)
        )
        for name in names:
            composer.load(self.read(name))
        composer.activate({name: chosen.weights.get(name, 1.0) for name in names})
        return composer

    def gc(self, *, grace: float = GRACE, dry_run: bool = False, wait: float = 0.0) -> Collected:
        """Remove what no name stands for any more; see `sparsetv.store.gc.collect`."""
        return collect(self.root, grace=grace, dry_run=dry_run, wait=wait)

    def fsck(self) -> Report:
        """Read everything and report all that is wrong; see `sparsetv.store.fsck.fsck`."""
        return fsck(self.root)


def _identify(source: str | Path, progress: Progress | None) -> StoreBase:
    checkpoint = open_checkpoint(source)
    report = counter(progress, "hash the base", checkpoint.total_bytes)
    identities = [checkpoint.identity(name, report) for name in checkpoint.names]
    checkpoint.check_unchanged()
    place = checkpoint.location
    found = fingerprint(identities, touched=(), repo=place.repo, commit=place.commit)
    return base_from(found, source=None if place.repo else str(Path(source).resolve()))
