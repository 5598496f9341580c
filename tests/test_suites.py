"""Suites: the digits that are made on the spot."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from sparsetv.bench.digits import make_digits
from sparsetv.bench.suite import Suite, read_suite
from sparsetv.demo import train
from sparsetv.demo.accuracy import accuracy
from sparsetv.demo.data import TASKS, load
from sparsetv.demo.model import read_classifier
from sparsetv.errors import NotFoundError, OutputError
from sparsetv.examples.encoding import encode
from sparsetv.examples.reading import read_examples
from sparsetv.jobs.evaluate import evaluate


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Train for so few epochs that it takes seconds, yet teaches enough to tell tasks apart."""
    patch.setattr(train, "PRETRAINING", replace(train.PRETRAINING, epochs=1))
    patch.setattr(train, "FINE_TUNING", replace(train.FINE_TUNING, epochs=2))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Suite, Path]:
    room = tmp_path_factory.mktemp("digits") / "new"
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        return make_digits(room), room


def test_digits_are_a_suite_in_the_demo_s_order(digits: tuple[Suite, Path]) -> None:
    suite, room = digits
    names = tuple(task.name for task in TASKS)
    assert (suite.name, suite.base, suite.merged) == ("digits", str(room / "base"), names)
    assert tuple(task.name for task in suite.tasks) == names
    assert {task.name: task for task in read_suite(room).tasks} == {task.name: task for task in suite.tasks}
    assert set(sum(suite.groups.values(), ())) <= set(names)


def test_digits_on_disk_are_the_demo_s_tensors_and_labels(digits: tuple[Suite, Path]) -> None:
    suite, room = digits
    data = load()
    processor = transformers.AutoImageProcessor.from_pretrained(room / "digit")
    model = read_classifier(room / "digit")
    for task in TASKS:
        for source, split in ((suite.task(task.name).train, data.train), (suite.task(task.name).test, data.test)):
            examples = read_examples(source)
            labels = [example.label for example in examples]
            assert labels == task.label(split.images, split.digits).tolist()
    (batch,) = encode(model, processor, read_examples(suite.task("digit").test), batch_size=400)
    assert batch["pixel_values"].dtype == torch.float32
    assert torch.equal(batch["pixel_values"], data.test.images)


@pytest.mark.parametrize("name", ["digit", "left-heavy"])
def test_digits_have_the_demo_s_accuracy(name: str, digits: tuple[Suite, Path]) -> None:
    suite, room = digits
    (task,) = [task for task in TASKS if task.name == name]
    test = load().test
    wanted = accuracy(read_classifier(room / name), test.images, task.label(test.images, test.digits))
    assert evaluate(room / name, suite.task(name).test).value == wanted > 0.3


def test_digits_that_are_complete_are_left_alone(digits: tuple[Suite, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    suite, room = digits
    before = {path: path.stat().st_mtime_ns for path in room.rglob("*") if path.is_file()}
    shorten(monkeypatch)
    monkeypatch.setattr(train, "fit", None)
    assert make_digits(room) == suite
    assert {path: path.stat().st_mtime_ns for path in room.rglob("*") if path.is_file()} == before


def test_digits_write_over_nothing_of_others(
    digits: tuple[Suite, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, room = digits
    for path in room.iterdir():
        if path.name != "tasks":
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "tasks").mkdir()
    shorten(monkeypatch)
    with pytest.raises(OutputError, match=r"tasks: it exists, and holds no digits\.json"):
        make_digits(tmp_path)


@pytest.mark.parametrize("package", ["PIL", "sklearn"])
def test_digits_name_the_extra_they_need(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(NotFoundError, match=rf"need the package {package}.*pip install 'sparsetv\[demo\]'"):
        make_digits(tmp_path)


def test_a_model_of_one_channel_gets_grey_whatever_the_file_holds(digits: tuple[Suite, Path], tmp_path: Path) -> None:
    _, room = digits
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(np.stack([grey] * 3, axis=-1)).save(tmp_path / "colour.png")
    (tmp_path / "d.jsonl").write_text('{"image": "colour.png", "label": 0}\n')
    processor = transformers.AutoImageProcessor.from_pretrained(room / "digit")
    (batch,) = encode(read_classifier(room / "digit"), processor, read_examples(tmp_path / "d.jsonl"), batch_size=1)
    assert torch.equal(batch["pixel_values"], torch.tensor(grey / 64 - 1, dtype=torch.float32)[None, None])


SUITES = Path(__file__).parent.parent / "benchmarks" / "suites"


def test_the_suite_of_sentences_finds_models_and_data_in_two_folders(tmp_path: Path) -> None:
    for folder in ("models/base", "models/TREC-sgd", "data/TREC"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data/TREC/test.jsonl").touch()
    suite = read_suite(SUITES / "sentences.toml", models=tmp_path / "models", data=tmp_path / "data")
    assert suite.base == str(tmp_path / "models/base")
    assert suite.merged == ("CR", "SST2", "SUBJ", "TREC")
    assert (suite.max_length, suite.precision) == (64, "bf16")
    assert suite.groups == {"similar": ("SST2", "CR"), "dissimilar": ("SST2", "TREC", "SUBJ")}
    alone = suite.task("TREC-sgd")
    assert alone.finetuned == str(tmp_path / "models/TREC-sgd")
    assert (alone.test, alone.note) == (str(tmp_path / "data/TREC/test.jsonl"), "SGD")
