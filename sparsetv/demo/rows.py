"""What the demo measures for one task."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """Sizes in bytes and test accuracies in [0, 1] of one task.

    Attributes:
        task: Its name.
        file_bytes: Size of the packed file.
        checkpoint_bytes: Size of the fine-tuned checkpoint's weights.
        base: Accuracy of the base's body under this task's fine-tuned head.
        finetuned: Accuracy of the fine-tuned model.
        grafted: Accuracy of the base with this task's file alone.
        stitched: Accuracy of the base with the files of all tasks.
    """

    task: str
    file_bytes: int
    checkpoint_bytes: int
    base: float
    finetuned: float
    grafted: float
    stitched: float
