"""A store as its users see it: tasks by name."""

from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Self

from sparsetv.atomic import sync
from sparsetv.causes import cause
from sparsetv.errors import FormatError, OutputError, UsageError
from sparsetv.leftovers import is_temporary
from sparsetv.store.base import StoreBase, check_base
from sparsetv.store.config import Config, check_store, read_config, write_config
from sparsetv.store.layout import LOCK, OBJECTS, REFS, check_name, is_store, kind_of, no_task, select
from sparsetv.store.locking import writing
from sparsetv.store.objects import Incoming, incoming, put_object, start_grace
from sparsetv.store.reading import known_base, object_path, open_object, read_object
from sparsetv.store.refs import Ref, check_revision, drop_ref, find_ref, read_ref, read_refs, ref_names, write_ref
from sparsetv.task_vector import SparseTaskVector


@dataclass(frozen=True, slots=True)
class Entry:
    """One task of a store.

    Attributes:
        name: Its name in the store.
        density: Fraction of the scope that is kept.
        nnz: Number of kept entries.
        size: Bytes of its file.
        revision: How often the name was given to a file.
        digest: Identity of its content.
    """

    name: str
    density: float
    nnz: int
    size: int
    revision: int
    digest: str


@dataclass(frozen=True, slots=True)
class Library:
    """A store on disk; every method looks at the disk anew, so several processes may use one.

    Writers hold the store's lock and fail where they do not get it; readers take none. Whatever dies at whatever
    moment, each name stands for what it did before or for what it was to stand for.
    """

    root: Path

    @classmethod
    def create(cls, root: Path, *, base: StoreBase | None = None, wait: float = 0.0) -> Self:
        """Make a directory a store.

        Args:
            root: The directory: new, empty, or left by an attempt that died.
            base: Base of all tasks; without it the first task decides.
            wait: Seconds to wait for another writer.

        Raises:
            UsageError: It is a store.
            OutputError: It holds other things, or cannot be written.
        """
        _check_new(root)
        try:
            root.mkdir(exist_ok=True)
            sync(root.parent)
        except OSError as error:
            raise OutputError(f"{root}: cannot be made a store: {cause(error)}") from error
        with writing(root, wait=wait):
            _check_new(root)
            for part in (OBJECTS, REFS):
                (root / part).mkdir(exist_ok=True)
            # Last, because with it the directory is a store; what an attempt that died before left is used again.
            write_config(root, Config(base))
        return cls(root)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a store.

        Raises:
            NotFoundError: The directory is no store.
        """
        check_store(Path(path))
        return cls(Path(path))

    def known_base(self) -> StoreBase | None:
        """The base of all tasks; None before there is one."""
        return known_base(self.root, read_config(self.root))

    def names(self) -> tuple[str, ...]:
        """Names of all tasks, ascending."""
        read_config(self.root)
        return ref_names(self.root)

    def select(self, *patterns: str) -> tuple[str, ...]:
        """The names that patterns choose, ascending; a pattern is a name, or a glob in which case matters.

        Raises:
            NotFoundError: A pattern matches nothing.
        """
        return select(self.names(), patterns, where=self.root)

    def ref(self, name: str) -> Ref:
        """The ref of a task.

        Raises:
            NotFoundError: There is no task of that name.
        """
        names = self.names()
        if name not in names:
            raise no_task(self.root, name, names)
        return read_ref(self.root, name)

    def path_of(self, name: str) -> Path:
        """The file of a task; its bytes never change."""
        return object_path(self.root, self.ref(name))

    def read(self, name: str) -> SparseTaskVector:
        """Read and check a task; it has its name in the store, whatever its file says.

        Raises:
            NotFoundError: There is no task of that name.
            FormatError: Its file is not the one that was added.
        """
        return read_object(self.root, self.ref(name))

    def list(self) -> tuple[Entry, ...]:
        """All tasks, names ascending; no file is decoded."""
        return tuple(self._entry(ref) for ref in read_refs(self.root, self.names()))

    def _entry(self, ref: Ref) -> Entry:
        manifest = open_object(self.root, ref).manifest
        entries = sum(prod(manifest.base.shapes[index]) for index in manifest.scope)
        size = object_path(self.root, ref).stat().st_size
        return Entry(ref.name, manifest.nnz / entries if entries else 0.0, manifest.nnz, size, ref.revision, ref.digest)

    def add(
        self,
        source: str | Path | SparseTaskVector,
        name: str | None = None,
        *,
        replace: bool = False,
        expected_revision: int | None = None,
        wait: float = 0.0,
    ) -> Ref:
        """Add a task: all of it is checked, its bytes are kept, then its name is given to them.

        The same file under the same name changes nothing. The base of the first task becomes the store's.

        Args:
            source: A task file, or a task in memory.
            name: Its name in the store; that in the file where it is None.
            replace: Whether a task of that name may be replaced.
            expected_revision: Revision that the name must be at; 0 for a name that must be free.
            wait: Seconds to wait for another writer.

        Raises:
            FormatError: The file is broken.
            BaseMismatchError: It belongs to another base.
            UsageError: There is a task of that name, or no task can have it.
            BusyError: Another process holds the lock, or changed the name.
        """
        read_config(self.root)
        item = incoming(source)
        chosen = check_name(item.name if name is None else name)
        with writing(self.root, wait=wait):
            config = read_config(self.root)
            base = known_base(self.root, config)
            check_base(self.root, base, item.base, what=str(source) if isinstance(source, str | Path) else chosen)
            old = find_ref(self.root, chosen)
            check_revision(self.root, chosen, old, expected=expected_revision)
            self._check_free(chosen, old, item, replace=replace)
            put_object(self.root, item)
            ref = self._swap(chosen, old, item)
            if config.base is None:
                write_config(self.root, Config(base or item.base))
        return ref

    def _check_free(self, name: str, old: Ref | None, item: Incoming, *, replace: bool) -> None:
        if old is not None and old.object != item.sha256 and not replace:
            raise UsageError(
                f"{self.root}: has a task {name!r} (revision {old.revision}, digest {old.digest[:12]}…), this one's "
                f"digest is {item.digest[:12]}…; replace it with --replace, or choose another name with --name"
            )
        alike = [other for other in ref_names(self.root) if other != name and other.casefold() == name.casefold()]
        if alike:
            raise UsageError(
                f"{self.root}: has a task {alike[0]!r}, whose file is the same as that of {name!r} where "
                "case does not count; choose another name with --name"
            )

    def _swap(self, name: str, old: Ref | None, item: Incoming) -> Ref:
        if old is None:
            ref = Ref(name, item.sha256, item.digest, 1, None)
        elif old.object == item.sha256:
            return old
        else:
            start_grace(self.root, old.object)
            ref = Ref(name, item.sha256, item.digest, old.revision + 1, old.object)
        write_ref(self.root, ref)
        return ref

    def remove(self, *patterns: str, expected_revision: int | None = None, wait: float = 0.0) -> tuple[str, ...]:
        """Drop the names that patterns choose, one after the other, and return them; `gc` removes their files later.

        Args:
            patterns: As in `select`.
            expected_revision: Revision that each of them must be at.
            wait: Seconds to wait for another writer.

        Raises:
            NotFoundError: A pattern matches nothing; no name is dropped.
            BusyError: Another process holds the lock, or changed one of the names.
        """
        with writing(self.root, wait=wait):
            names = self.select(*patterns)
            for name in names if expected_revision is not None else ():
                check_revision(self.root, name, find_ref(self.root, name), expected=expected_revision)
            self._record_base()
            for name in names:
                self._drop(name)
        return names

    def _record_base(self) -> None:
        """Write down the base before the last task that tells it may go."""
        config = read_config(self.root)
        base = known_base(self.root, config)
        if config.base is None and base is not None:
            write_config(self.root, Config(base))

    def _drop(self, name: str) -> None:
        with suppress(FormatError):  # a broken ref can be removed, too; that is how a store is repaired
            start_grace(self.root, read_ref(self.root, name).object)
        drop_ref(self.root, name)


def _check_new(root: Path) -> None:
    if not root.parent.is_dir():
        raise OutputError(f"{root}: directory {root.parent} does not exist; create it first")
    if not root.exists():
        return
    if not root.is_dir():
        raise OutputError(f"{root}: is a file; name a directory")
    if is_store(root):
        raise UsageError(f"{root}: is a store; add tasks to it, or name another directory")
    strange = sorted(path.name for path in root.iterdir() if not _is_ours(path))
    if strange:
        raise OutputError(f"{root}: holds {strange[0]}, which is no part of a store; name a new directory")


def _is_ours(path: Path) -> bool:
    """Whether an attempt to make a store that died can have left it."""
    if path.name in (OBJECTS, REFS):
        return kind_of(path) == "directory" and not any(path.iterdir())
    return kind_of(path) == "regular file" and (path.name == LOCK or is_temporary(path.name))
