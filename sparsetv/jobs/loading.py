"""The ordinary transformers model of a base with tasks on it, in one call."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsetv.checkpoint.reading import Checkpoint, open_checkpoint
from sparsetv.dtypes import TORCH_NAMES
from sparsetv.errors import CheckpointError, NamesError, ProbeError, ShapeError, UsageError
from sparsetv.jobs.options import StitchOptions
from sparsetv.jobs.stitch import stitch
from sparsetv.jobs.tasks import Source, read_tasks
from sparsetv.scales import TOGETHER
from sparsetv.task_vector import SparseTaskVector

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WAYS = ("memory", "files")
"""How a model was made: loaded and changed in place, or stitched into a temporary directory and loaded from there."""


def from_pretrained(
    base: str | Path,
    *,
    tasks: Sequence[Source],
    head: str | None = None,
    options: StitchOptions | None = None,
    model_class: "type[PreTrainedModel] | None" = None,
    **kwargs: Any,
) -> "PreTrainedModel":
    """Load a base with tasks on it: what `stitch` and `from_pretrained` of its directory give, without a directory.

    The base is loaded as transformers loads it, and kept entries are written into its parameters; no second copy of the
    weights is made. Where that cannot give the very same bits (added vocabulary rows, another dtype than the
    checkpoint's, scales that run the models, names that cannot be followed), the tasks are stitched into a temporary
    directory and loaded from there.

    Args:
        base: Directory or hub id, sharded or not.
        tasks: Task files, tasks in memory, or tasks of a store.
        head: Whose class and head the model has; a single task's own without it, and of several the base's class.
        options: How tasks combine, as for `stitch`.
        model_class: The class, instead of the one that the configuration names.
        kwargs: Passed on to transformers' `from_pretrained`, such as `device_map`, `dtype` or `attn_implementation`.

    Returns:
        The model, in evaluation mode; nothing of sparsetv is left in it.

    Raises:
        BaseMismatchError: A task belongs to another base.
        ProbeError: No class is known, or transformers cannot build it.
        UsageError: `head` is not among the tasks, or code of a model's repository was asked for.

    Cost:
        The time and memory of loading the base, and 16 bytes per kept entry for a moment.
    """
    return load_with(base, tasks=tasks, head=head, options=options, model_class=model_class, **kwargs)[0]


def load_with(
    base: str | Path,
    *,
    tasks: Sequence[Source],
    head: str | None = None,
    options: StitchOptions | None = None,
    model_class: "type[PreTrainedModel] | None" = None,
    **kwargs: Any,
) -> "tuple[PreTrainedModel, str]":
    """The model that `from_pretrained` gives, and the way of `WAYS` by which it was made."""
    if kwargs.get("trust_remote_code"):
        raise UsageError("code of a model's repository is never run; pass the class with model_class=")
    checkpoint = open_checkpoint(base)
    if checkpoint.location.directory is None:
        raise CheckpointError(f"{base}: a lone weight file has no configuration; name its directory")
    asked = _Asked(checkpoint, read_tasks(tasks), head, options or StitchOptions(), model_class, kwargs)
    if asked.fits_memory:
        try:
            return asked.in_memory(), "memory"
        except (NamesError, ShapeError):  # a name or tensor that cannot be followed entry by entry
            pass
    return asked.through_files(), "files"


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is to be loaded."""

    base: Checkpoint
    tasks: Sequence[SparseTaskVector]
    head: str | None
    options: StitchOptions
    model_class: "type[PreTrainedModel] | None"
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def headed(self) -> SparseTaskVector | None:
        """Whose head and class the model has; None for the base's class.

        Raises:
            UsageError: The head that is asked for is none of the tasks'.
        """
        if self.head is None:
            return self.tasks[0] if len(self.tasks) == 1 else None
        found = [task for task in self.tasks if task.name == self.head]
        if not found:
            raise UsageError(f"head {self.head!r} is not among {', '.join(task.name for task in self.tasks) or 'none'}")
        return found[0]

    @property
    def fits_memory(self) -> bool:
        """Whether writing into the loaded base gives the bits that files would."""
        stored = {TORCH_NAMES[dtype] for name in self.base.names if (dtype := self.base.dtype(name)) in TORCH_NAMES}
        wanted = self.kwargs.get("dtype", self.kwargs.get("torch_dtype"))
        as_stored = wanted in (None, "auto") or {str(wanted).removeprefix("torch.")} >= stored
        rows = any(extra.kind == "rows" for task in self.tasks for extra in task.extras.values())
        quantized = self.kwargs.get("quantization_config") is not None
        return as_stored and not rows and not quantized and self.options.scale not in TOGETHER

    def in_memory(self) -> "PreTrainedModel":
        """Load the base, and write the tasks into it."""
        from sparsetv.live.model import attach  # noqa: PLC0415  torch only where a model is built

        how = self.options
        model = self._load(Path(str(self.base.location.directory)), self.headed)
        live = attach(model, *self.tasks, rule=how.rule, scale=how.scale, min_tasks=how.min_tasks, verify=how.verify)
        named = {task.name: how.weights.get(task.name, 1.0) for task in self.tasks}
        unknown = sorted(how.weights.keys() - named.keys())
        if unknown:
            raise UsageError(f"a weight names {unknown[0]!r}, but the tasks are {', '.join(named) or 'none'}")
        headed = self.headed
        live.activate(*named, weights=named, head=headed.name if headed else None)
        return model

    def through_files(self) -> "PreTrainedModel":
        """Stitch into a temporary directory, and load that."""
        source = self.base.source
        with tempfile.TemporaryDirectory(prefix="sparsetv-") as room:
            stitch(source, self.tasks, Path(room) / "model", options=self.options)
            headed = None if len(self.tasks) == 1 else self.headed
            model = self._load(Path(room) / "model", headed)
            if headed is not None:
                _put_head(model, headed)
            return model

    def _load(self, directory: Path, headed: SparseTaskVector | None) -> "PreTrainedModel":
        """What transformers makes of a directory, under a task's configuration where one is named."""
        from sparsetv.models import find_class, parse_config, quiet  # noqa: PLC0415

        content = None if headed is None else headed.files.get("config.json")
        own = (directory / "config.json").read_bytes() if (directory / "config.json").is_file() else b"{}"
        config = parse_config(content or own)
        named = {"ignore_mismatched_sizes": headed is not None, **self.kwargs}
        named.pop("trust_remote_code", None)
        if content is not None:
            import transformers  # noqa: PLC0415

            named.setdefault("config", transformers.AutoConfig.for_model(**config))
        if "dtype" not in named and "torch_dtype" not in named:
            named["dtype"] = "auto"
        with quiet(), _building(directory):
            chosen: Any = self.model_class or find_class(config)
            model: PreTrainedModel = chosen.from_pretrained(directory, trust_remote_code=False, **named)
        return model.eval()


def _put_head(model: "PreTrainedModel", task: SparseTaskVector) -> None:
    from sparsetv.live.heads import Heads, find_head  # noqa: PLC0415
    from sparsetv.places.state import unwrap  # noqa: PLC0415

    state = unwrap(model)
    Heads(state).put(find_head(state, task))


@contextmanager
def _building(directory: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, ImportError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ProbeError(f"{directory}: transformers cannot build it ({reason}); check class and options") from error
