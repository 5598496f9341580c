"""Suites: the digits that are made on the spot, and those that are written down."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from benchmarks import choices_data
from sparsetv.bench.digits import make_digits
from sparsetv.bench.run import Selection, bench
from sparsetv.bench.suite import Suite, read_suite
from sparsetv.demo import train
from sparsetv.demo.accuracy import accuracy
from sparsetv.demo.data import TASKS, load
from sparsetv.demo.model import read_classifier
from sparsetv.errors import NotFoundError, OutputError
from sparsetv.evaluation.choices import MEASURES, Choice, read_choices
from sparsetv.examples.encoding import encode
from sparsetv.examples.hub import split_name
from sparsetv.examples.reading import COLUMNS, read_examples
from sparsetv.jobs.evaluate import evaluate
from sparsetv.report.summary import boards
from sparsetv.results import read_results


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


WRITTEN = ("sentences", "roberta12", "clip8", "gpt2xl3")


@pytest.mark.parametrize("name", WRITTEN)
def test_written_suites_are_read(name: str) -> None:
    suite = read_suite(SUITES / f"{name}.toml")
    assert suite.name == name
    assert suite.about
    for task in suite.tasks:
        assert task.train != task.test != ""
        repository, _, split = split_name(task.test)
        assert task.test.endswith(".jsonl") or (repository.count("/") == 1 and split in task.test)
        assert set(task.settings) <= {"columns", "template", "names", "measure"}
        assert set(task.columns) <= set(COLUMNS)
        assert task.kind != "zero-shot" or all("{}" in text for text in task.settings["template"])
        assert task.kind != "choices" or task.settings["measure"] in MEASURES


def test_every_suite_is_tested() -> None:
    assert sorted(path.stem for path in SUITES.glob("*")) == sorted(WRITTEN)


@pytest.mark.parametrize("name", WRITTEN)
def test_published_figures_are_of_tasks_and_agree_with_their_averages(name: str) -> None:
    suite = read_suite(SUITES / f"{name}.toml")
    names = {task.name for task in suite.tasks}
    for experiment, methods in suite.paper.items():
        for method, values in methods.items():
            assert set(values) <= (set(suite.groups) if experiment == "groups" else {*names, "average"})
            assert all(0 < value <= 1 for value in values.values())
            if set(values) > names:
                mean = sum(values[own] for own in names) / len(names)
                assert values["average"] == pytest.approx(mean, abs=1.1e-3), method


def test_figures_that_no_copy_of_the_paper_shows_are_left_out() -> None:
    paper = read_suite(SUITES / "roberta12.toml").paper
    assert [method for method, values in paper["merge"].items() if len(values) < 13] == ["TIES"]
    assert "SNLI" not in paper["merge"]["TIES"]
    assert paper["merge"]["Localize-and-Stitch (dataless)"]["TREC"] == 0.462
    assert paper["grafted"]["Panigrahi et al."]["QQP"] == 0.693
    assert read_suite(SUITES / "clip8.toml").paper == {}


# The data of gpt2xl3


def test_benchmarks_and_surrogates_become_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def question(number: int, answer: int, subject: str = "us_history") -> dict[str, Any]:
        choices = [f"{letter}{number}" for letter in "stuv"]
        return {"question": f"Q{number}", "subject": subject, "choices": choices, "answer": answer}

    sets: dict[str, list[dict[str, Any]]] = {
        "cais/mmlu:all:test": [question(1, 2)],
        "cais/mmlu:all:dev": [question(2, 0), question(3, 1, "law"), question(4, 3)],
        "allenai/ai2_arc:ARC-Challenge:test": [
            {"question": "Why?", "choices": {"text": ["so", "no"], "label": ["1", "2"]}, "answerKey": "2"}
        ],
        "truthfulqa/truthful_qa:multiple_choice:validation": [
            {"question": "Who?", "mc2_targets": {"choices": ["I", "you", "we"], "labels": [1, 0, 1]}}
        ],
        "tatsu-lab/alpaca:train": [{"instruction": "Add.", "input": "1 1", "output": "2"}],
        "openai/gsm8k:main:train": [{"question": "1 + 1?", "answer": "2"}],
        "hotpotqa/hotpot_qa:distractor:train": [{"question": "Where?", "answer": "here"}],
    }
    monkeypatch.setattr(choices_data, "data_set", lambda name, columns, *, labelled: (("", row) for row in sets[name]))
    choices_data.main(["-o", str(tmp_path)])
    (mmlu,) = read_choices(tmp_path / "mmlu.jsonl")
    assert mmlu.prompt == (
        "The following are multiple choice questions (with answers) about us history.\n\n"
        "Q2\nA. s2\nB. t2\nC. u2\nD. v2\nAnswer: A\n\n"
        "Q4\nA. s4\nB. t4\nC. u4\nD. v4\nAnswer: D\n\n"
        "Q1\nA. s1\nB. t1\nC. u1\nD. v1\nAnswer:"
    )
    assert (mmlu.choices, mmlu.right) == ((" A", " B", " C", " D"), (False, False, True, False))
    (arc,) = read_choices(tmp_path / "arc.jsonl")
    assert arc == Choice("Question: Why?\nAnswer:", (" so", " no"), (False, True))
    (truth,) = read_choices(tmp_path / "truthfulqa.jsonl")
    assert truth.prompt.endswith("in Barcelona, Spain.\n\nQ: Who?\nA:")
    assert (truth.choices, truth.right) == ((" I", " you", " we"), (True, False, True))
    (alpaca,) = read_examples(tmp_path / "alpaca.jsonl")
    assert alpaca.text == "### Instruction:\nAdd.\n\n### Input:\n1 1\n\n### Response:\n"
    assert alpaca.completion == "2"
    assert read_examples(tmp_path / "gsm8k.jsonl")[0].completion == " 2"
    assert read_examples(tmp_path / "hotpotqa.jsonl")[0].text == "Question: Where?\nAnswer:"
    suite = read_suite(SUITES / "gpt2xl3.toml", data=tmp_path)
    assert all(Path(task.train).is_file() and Path(task.test).is_file() for task in suite.tasks)
    sets.clear()
    choices_data.main(["-o", str(tmp_path)])  # what is there is not made again


def test_the_digits_run_through_the_experiments(digits: tuple[Suite, Path], tmp_path: Path) -> None:
    """In a small form: two tasks, few test images, methods that take seconds."""
    suite, _ = digits
    choice = Selection(tasks=["parity", "loops"], methods=["average", "ties", "stitch-5-scaled"], limit=60)
    rows = read_results(bench("merge", suite, tmp_path, choice=choice)).rows
    (board,) = boards(rows, by=("method",))
    assert board.tasks == ("parity", "loops")
    assert [line.key[0] for line in board.lines] == ["base", "finetuned", "average", "ties", "stitch-5-scaled"]
    assert all(0 < (line.average.value or 0) <= 1 for line in board.lines)
    sizes = bench(
        "storage", suite, tmp_path, choice=Selection(tasks=["loops"], kinds=["1% exact", "lossless"], limit=60)
    )
    exact, lossless = read_results(sizes).rows
    assert exact["file_bytes"] < lossless["file_bytes"] < lossless["checkpoint_bytes"]
