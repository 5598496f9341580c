"""A planned checkpoint to the bytes of an archive, chunk by chunk (ARCHIVE)."""

import hashlib
from collections.abc import Callable, Generator, Iterator
from functools import partial

from sparsetv import __version__
from sparsetv.archive import layout
from sparsetv.archive.chunk import encode_chunk
from sparsetv.archive.cutting import chunks, split
from sparsetv.archive.elements import kind_of
from sparsetv.archive.limits import FILES, HEADERS_BYTES
from sparsetv.archive.manifest import VERSION, BaseTensor, FileEntry, Manifest, TensorEntry, from_json, to_json
from sparsetv.archive.plan import OtherPlan, Plan, TensorPlan, WeightsPlan
from sparsetv.arrays import Bytes
from sparsetv.container.envelope import seal_manifest
from sparsetv.container.frames import compress, compress_hard, longest_text
from sparsetv.errors import LimitError
from sparsetv.fingerprint import TensorIdentity
from sparsetv.threads import in_order

Count = Callable[[int], None]


class Writer:
    """Makes one archive: first all `parts`, in order, then the `head` that stands before them."""

    def __init__(self, plan: Plan, *, name: str, identities: Callable[[str], TensorIdentity], count: Count) -> None:
        """Nothing is read yet.

        Args:
            plan: What to archive.
            name: Name of the task.
            identities: Hashes of base tensors by name; asked for each needed one when all else is done.
            count: Told the bytes of weights done.
        """
        if len(plan.files) > FILES:
            raise LimitError(f"{len(plan.files)} files, limit {FILES}; move some out of the directory")
        headers = sum(len(file.header) for file in plan.files if isinstance(file, WeightsPlan))
        if headers > HEADERS_BYTES:
            raise LimitError(
                f"headers of weight files of {headers} bytes in all, limit {HEADERS_BYTES}; save fewer tensors"
            )
        self._plan, self._name, self._identities, self._count = plan, name, identities, count
        self._index = {base: number for number, base in enumerate(plan.needed())}
        self._data_bytes = 0
        self._hash = hashlib.sha256()
        self._manifest_frame = b""

    def parts(self) -> Iterator[bytes]:
        """Everything behind the header: the data, then the manifest."""
        files = []
        for file in self._plan.files:
            files.append((yield from self._file(file)))
        manifest = Manifest(
            name=self._name,
            files=tuple(files),
            base=tuple(self._base(name) for name in self._index),
            data_sha256=self._hash.hexdigest(),
            writer=f"sparsetv/{__version__}",
            repo=self._plan.base.location.repo,
            commit=self._plan.base.location.commit,
        )
        self._manifest_frame, value = seal_manifest(to_json(manifest))
        from_json(value)
        yield self._manifest_frame

    def head(self) -> bytes:
        """Length prefix and header; only once all parts are made."""
        return layout.header(
            data_bytes=self._data_bytes,
            manifest_bytes=len(self._manifest_frame),
            manifest_sha256=hashlib.sha256(self._manifest_frame).hexdigest(),
            version=VERSION,
        )

    def _file(self, file: WeightsPlan | OtherPlan) -> Generator[bytes, None, FileEntry]:
        if isinstance(file, WeightsPlan):
            return (yield from self._weights(file))
        content = file.path.read_bytes()
        size, sha256 = len(content), hashlib.sha256(content).hexdigest()
        if file.in_base:
            return FileEntry("base", file.name, size, sha256)
        frame = compress(content)
        yield self._put(frame)
        return FileEntry("stored", file.name, size, sha256, stored=len(frame))

    def _weights(self, file: WeightsPlan) -> Generator[bytes, None, FileEntry]:
        whole = hashlib.sha256(file.header)
        size = len(file.header)
        frame = compress_hard(file.header)
        if size > longest_text(len(frame)):
            raise LimitError(f"{file.name}: a header of {size} bytes that says next to nothing; save the file again")
        yield self._put(frame)
        sizes: list[list[int]] = [[] for _ in file.tensors]
        for number, raw, coded in in_order(self._jobs(file)):
            whole.update(raw.data)
            size += len(raw)
            sizes[number].append(len(coded))
            self._count(len(raw))
            yield self._put(coded)
        tensors = tuple(
            TensorEntry(None if tensor.base is None else self._index[tensor.base], tuple(lengths))
            for tensor, lengths in zip(file.tensors, sizes, strict=True)
        )
        header = (len(file.header), len(frame))
        return FileEntry("weights", file.name, size, whole.hexdigest(), header, tensors=tensors)

    def _jobs(self, file: WeightsPlan) -> Iterator[Callable[[], tuple[int, Bytes, bytes]]]:
        for number, tensor in enumerate(file.tensors):
            shape = None if tensor.base is None else self._plan.base.shape(tensor.base)
            base = None if tensor.base is None else self._plan.base.raw(tensor.base)
            for first, count, shared in chunks(*split(tensor.entry, shape)):
                yield partial(_encode, number, tensor, base if shared else None, first, count)

    def _base(self, name: str) -> BaseTensor:
        identity = self._identities(name)
        return BaseTensor(name, identity.dtype, identity.shape, identity.sha256.hex())

    def _put(self, data: bytes) -> bytes:
        self._hash.update(data)
        self._data_bytes += len(data)
        return data


def _encode(number: int, tensor: TensorPlan, base: Bytes | None, first: int, count: int) -> tuple[int, Bytes, bytes]:
    """Number of the tensor, bytes of one chunk as they are and coded."""
    kind = kind_of(tensor.entry.dtype)
    place = slice(first * kind.width, (first + count) * kind.width)
    raw = tensor.data[place]
    known = None if base is None else base[place].view(kind.bits)
    return number, raw, encode_chunk(known, raw.view(kind.bits), kind)
