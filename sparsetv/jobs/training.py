"""Checkpoints of a transformers Trainer as task files, each as soon as it is saved."""

import logging
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sparsetv.errors import SparseTVError
from sparsetv.jobs.options import PackOptions
from sparsetv.jobs.pack import pack_to

_log = logging.getLogger("sparsetv")


class PackCallback(TrainerCallback):  # type: ignore[misc]  # transformers is not followed here
    """Packs every checkpoint that a Trainer saves, against the base that training began from.

    Files are named `NAME-STEP.stv`. A checkpoint that cannot be packed is told in the log of `sparsetv`, with what to
    do, and training goes on; the checkpoint is still there. Only the process of rank 0 packs.

    Args:
        base: Directory, `.safetensors` file or hub id of the base.
        output: Directory of the task files, made if it is missing; the Trainer's own where it is None.
        name: Name of the task; its files are called so.
        options: How to choose and store entries. The probe runs the models on the processor; `probe=False` saves its
            time while training waits.
        strict: Raise where a checkpoint cannot be packed.

    Attributes:
        written: Task files by step.
        failed: Errors by step.
    """

    def __init__(
        self,
        base: str | Path,
        *,
        output: str | Path | None = None,
        name: str = "task",
        options: PackOptions | None = None,
        strict: bool = False,
    ) -> None:
        self._base, self._output, self._name = base, output, name
        self._options, self._strict = options or PackOptions(probe=False), strict
        self.written: dict[int, Path] = {}
        self.failed: dict[int, SparseTVError] = {}

    def on_save(  # the Trainer's own signature
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Pack the checkpoint that was just saved."""
        if not state.is_world_process_zero:
            return
        step, folder = state.global_step, Path(self._output or args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        target, source = folder / f"{self._name}-{step}.stv", Path(args.output_dir) / f"checkpoint-{step}"
        try:
            pack_to(target, self._base, source, name=f"{self._name}-{step}", options=self._options)
        except SparseTVError as error:
            self.failed[step] = error
            if self._strict:
                raise
            _log.error("step %d is not packed: %s", step, error)
        else:
            self.written[step] = target
