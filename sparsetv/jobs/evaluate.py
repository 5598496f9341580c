"""How good a base, a fine-tune or a stitched directory is on a task's data."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.compose.base import Base, base_of
from sparsetv.compose.directory import open_stitched
from sparsetv.compose.record import is_stitched
from sparsetv.errors import NotFoundError, ProbeError, UsageError
from sparsetv.hub.ids import find_id
from sparsetv.jobs.models import find_processor, task_model, task_processor
from sparsetv.progress import Progress, counter
from sparsetv.task_vector import SparseTaskVector
from sparsetv.taskfile import read_task

if TYPE_CHECKING:
    from torch import nn

    from sparsetv.evaluation.classify import Accuracy


def evaluate(
    source: str | Path,
    data: str | Path,
    *,
    task: str | Path | None = None,
    max_length: int = 128,
    progress: Progress | None = None,
) -> "Accuracy":
    """Accuracy of a sequence classifier on JSON lines.

    Args:
        source: A checkpoint directory, stitched or not.
        data: JSON lines with `text` (or `text_a` and `text_b`) and `label`.
        task: Whose head to use: the name of a task on a stitched directory, or a task file. Needed where the
            checkpoint itself is no classifier.
        max_length: Longer inputs are cut to so many tokens.
        progress: Reports examples done.

    Raises:
        ProbeError: The model cannot be built.
        NotFoundError: Data, directory or task do not exist.
    """
    from sparsetv.evaluation.classify import accuracy  # noqa: PLC0415  torch only where a model runs
    from sparsetv.examples.reading import read_examples  # noqa: PLC0415

    examples = read_examples(data)
    if examples[0].kind == "completion":
        raise UsageError(f"{data}: prompts with completions have no accuracy; give texts or images with labels")
    model, processor = load(Path(source), task, images=examples[0].kind == "image")
    report = counter(progress, "evaluate", len(examples))
    return accuracy(model, processor, examples, max_length=max_length, progress=report)


def load(source: Path, task: str | Path | None, *, images: bool = False) -> "tuple[nn.Module, Any]":
    """(classifier, tokenizer or image processor) of a directory, under a task's head where one is named."""
    chosen = _find_task(source, task)
    if chosen is None:
        return _plain_model(source, images=images), find_processor(source, images=images)
    return task_model(_weights(source, chosen), chosen, None), task_processor(_files(source), chosen, images=images)


def _find_task(source: Path, task: str | Path | None) -> SparseTaskVector | None:
    if not is_stitched(source):
        return None if task is None else read_task(task)
    stitched = open_stitched(source)
    members = {member.name: member for member in stitched.record.members}
    if task is None:
        if len(members) > 1:
            raise UsageError(f"{source}: holds {', '.join(members)}; name one with --task")
        return None
    if str(task) in members:
        return stitched.task(members[str(task)])
    if Path(task).is_file() or find_id(task) is not None:
        return read_task(task)
    raise NotFoundError(f"{source}: has no task {str(task)!r}; it has {', '.join(members) or 'none'}")


def _weights(source: Path, task: SparseTaskVector) -> Base:
    """The directory's weights under base names."""
    if is_stitched(source):
        stitched = open_stitched(source)
        members = stitched.record.members
        if len(members) == 1 and members[0].name != task.name:
            raise UsageError(f"{source}: holds the model of {members[0].name}, not of {task.name}")
        if len(members) == 1:
            return stitched.merged_base()
    return base_of(open_checkpoint(source), {})


def _plain_model(source: Path, *, images: bool) -> "nn.Module":
    import transformers  # noqa: PLC0415

    from sparsetv.models import quiet  # noqa: PLC0415

    open_checkpoint(source)
    with quiet():
        try:
            kinds = transformers.AutoModelForImageClassification, transformers.AutoModelForSequenceClassification
            loader: Any = kinds[0] if images else kinds[1]
            model, info = loader.from_pretrained(source, output_loading_info=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise ProbeError(f"{source}: cannot be loaded as a sequence classifier ({error})") from None
    if info["missing_keys"]:
        missing = min(info["missing_keys"])
        raise ProbeError(f"{source}: has no {missing}, so it is no classifier; name a task with --task")
    model.eval()
    plain: nn.Module = model
    return plain


def _files(source: Path) -> dict[str, Path]:
    """Files beside the weights, by name."""
    directory = open_checkpoint(source).location.directory or source
    return {path.name: path for path in directory.iterdir() if path.is_file()}
