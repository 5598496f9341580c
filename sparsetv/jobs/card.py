"""Model cards, as the hub wants them: what a task file, or a stitched directory, is and how to use it."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsetv.checkpoint.locate import read_config
from sparsetv.compose.record import Record, is_stitched, read_record
from sparsetv.container.reader import Opened, decode, open_bytes
from sparsetv.container.writer import encode
from sparsetv.errors import NotFoundError, UsageError
from sparsetv.hub.ids import PLAIN, find_id
from sparsetv.jobs.card_text import MARK, is_repo, stitched_text, task_text
from sparsetv.jobs.inspect import summarise
from sparsetv.packing.files import CONFIG
from sparsetv.task_vector import SparseTaskVector
from sparsetv.taskfile import open_task

_PIPELINES = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForImageClassification": "image-classification",
    "CLIPModel": "zero-shot-image-classification",
}
"""The hub's word for what a model does, by the end of its class's name; where one class does many things, none."""


def card(
    source: str | Path | SparseTaskVector,
    *,
    accuracy: Mapping[str, float] | None = None,
    repo: str | None = None,
) -> str:
    """The model card of a task, or of a directory that `stitch` wrote: `README.md` with its metadata in front.

    Args:
        source: A task file, a hub id, a task in memory, or a stitched directory.
        accuracy: Accuracies that were measured, by data set; nothing is measured here.
        repo: Where a task file is, or will be, on the hub, for the commands that the card shows.

    Raises:
        NotFoundError: There is nothing, or a directory that `stitch` did not write.
        FormatError: The file is broken.
        UsageError: An accuracy outside 0 to 1.
    """
    measured = check_accuracy(accuracy or {})
    if isinstance(source, SparseTaskVector):
        return task_card(open_bytes(encode(source).tobytes(), what=source.name), measured, place=repo)
    path = Path(source)
    if path.is_dir():
        if not is_stitched(path):
            raise NotFoundError(f"{path}: `sparsetv stitch` did not write it; name a stitched directory or a task file")
        return _stitched_card(read_record(path), read_config(path), measured)
    found = find_id(source)
    return task_card(open_task(source), measured, place=str(found or "") or repo)


def check_accuracy(accuracy: Mapping[str, float]) -> Mapping[str, float]:
    """Return accuracies by data set, or raise UsageError where one is no share of 1."""
    for name, value in accuracy.items():
        if not (math.isfinite(value) and 0 <= value <= 1):
            raise UsageError(f"{name}: accuracy {value} is outside 0 to 1; write 91 % as 0.91")
    return accuracy


def task_card(opened: Opened, accuracy: Mapping[str, float], *, place: str | None) -> str:
    """The card of a task file that is open.

    Args:
        opened: The file.
        accuracy: By data set.
        place: What the card's commands call the file; None for its usual name.
    """
    task = decode(opened)
    summary = summarise(opened, path=place or PLAIN, task=task)
    config = task.files.get(CONFIG)
    data = _data(
        task.name,
        base=summary.base["repo"],
        relation="adapter",
        pipeline=_pipeline(_architectures(config)),
        tags=["sparsetv", "task-vector", "sparse"],
        accuracy=accuracy,
    )
    return _card(data, task_text(summary, accuracy))


def _stitched_card(record: Record, config: Mapping[str, Any], accuracy: Mapping[str, float]) -> str:
    relation = {0: None, 1: "finetune"}.get(len(record.members), "merge")
    tags = ["sparsetv", "task-vector", *(["merge"] if relation == "merge" else [])]
    title = " + ".join(member.name for member in record.members) or "base"
    data = _data(
        title,
        base=record.repo,
        relation=relation,
        pipeline=_pipeline(config.get("architectures")),
        tags=tags,
        accuracy=accuracy,
        library="transformers",
    )
    return _card(data, stitched_text(title, record, accuracy))


def _data(
    name: str,
    *,
    base: str | None,
    relation: str | None,
    pipeline: str | None,
    tags: list[str],
    accuracy: Mapping[str, float],
    library: str = "sparsetv",
) -> Any:
    from huggingface_hub import EvalResult, ModelCardData  # noqa: PLC0415  0.2 s

    results = [
        EvalResult(
            task_type=pipeline or "other",
            dataset_type=data,
            dataset_name=data,
            metric_type="accuracy",
            metric_value=value,
        )
        for data, value in sorted(accuracy.items())
    ]
    known = base if base is not None and is_repo(base) else None
    extra: Any = {"base_model_relation": relation} if known and relation else {}
    return ModelCardData(
        base_model=known,
        library_name=library,
        pipeline_tag=pipeline,
        tags=tags,
        eval_results=results or None,
        model_name=name if results else None,
        **extra,
    )


def _card(data: Any, text: str) -> str:
    from huggingface_hub import ModelCard  # noqa: PLC0415

    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n{MARK}\n"))


def _architectures(config: bytes | None) -> Any:
    """`architectures` of a carried configuration; None where there is none that can be read."""
    if config is None:
        return None
    try:
        value = json.loads(config.decode("utf-8"))
    except (ValueError, RecursionError):  # a card needs no architecture
        return None
    return value.get("architectures") if isinstance(value, dict) else None


def _pipeline(architectures: Any) -> str | None:
    if not isinstance(architectures, list) or len(architectures) != 1 or not isinstance(architectures[0], str):
        return None
    return next((pipeline for end, pipeline in _PIPELINES.items() if architectures[0].endswith(end)), None)
