"""Every checkpoint of a real Trainer becomes a task file against the base."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers import ALL
from test_live_model import TEXT, assert_same, parameters

import sparsetv
from sparsetv import PackCallback, PackOptions
from sparsetv.errors import NotFoundError
from sparsetv.models import quiet

pytest.importorskip("accelerate", reason="the Trainer needs accelerate")
pytestmark = [pytest.mark.usefixtures("no_sync"), pytest.mark.filterwarnings("ignore::UserWarning:torch.*")]


class Examples(torch.utils.data.Dataset[dict[str, Any]]):
    """Eight sequences of two classes."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {"input_ids": torch.arange(6) + number % 4, "labels": torch.tensor(number % 2)}


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    torch.manual_seed(0)
    with quiet():
        transformers.BertModel(transformers.BertConfig(**TEXT)).save_pretrained(tmp_path / "base")
        yield tmp_path / "base"


def train(base: Path, room: Path, callback: PackCallback) -> None:
    model = transformers.BertForSequenceClassification.from_pretrained(base, num_labels=2)
    arguments = transformers.TrainingArguments(
        output_dir=str(room), max_steps=4, save_steps=2, per_device_train_batch_size=4, learning_rate=1e-2,
        use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="steps", logging_strategy="no", seed=1,
    )  # fmt: skip
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=Examples(), callbacks=[callback])
    trainer.train()


def test_each_checkpoint_is_a_task_that_gives_it_back(base: Path, tmp_path: Path) -> None:
    options = PackOptions(density=1.0, scope=ALL, probe=False)
    callback = PackCallback(base, output=tmp_path / "tasks", name="toy", options=options)
    train(base, tmp_path / "run", callback)
    assert {step: path.name for step, path in callback.written.items()} == {2: "toy-2.stv", 4: "toy-4.stv"}
    assert not callback.failed
    digests = set()
    for step, path in callback.written.items():
        task = sparsetv.read_task(path)
        digests.add(task.digest())
        found = sparsetv.from_pretrained(base, tasks=[task])
        saved = tmp_path / "run" / f"checkpoint-{step}"
        wanted = transformers.BertForSequenceClassification.from_pretrained(saved)
        assert_same(parameters(found), parameters(wanted))
    assert len(digests) == 2


def test_what_cannot_be_packed_does_not_end_training(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = PackCallback(tmp_path / "nowhere")
    with caplog.at_level(logging.ERROR, logger="sparsetv"):
        train(base, tmp_path / "run", callback)
    assert callback.failed.keys() == {2, 4}
    assert not callback.written
    assert "step 2 is not packed: " in caplog.text
    assert (tmp_path / "run" / "checkpoint-4" / "model.safetensors").is_file()


def test_strict_ends_it(base: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere: no such file or directory"):
        train(base, tmp_path / "run", PackCallback(tmp_path / "nowhere", strict=True))


def test_only_rank_0_packs(base: Path, tmp_path: Path) -> None:
    callback = PackCallback(base, output=tmp_path / "tasks")
    state = transformers.TrainerState(is_world_process_zero=False, global_step=2)
    arguments = transformers.TrainingArguments(output_dir=str(tmp_path / "run"), report_to=[], use_cpu=True)
    callback.on_save(arguments, state, transformers.TrainerControl())
    assert not (tmp_path / "tasks").exists()
