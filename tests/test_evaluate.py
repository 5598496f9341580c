"""Accuracy on tiny data against counts by hand, and against a model that is run on one example at a time."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import transformers
from hostile import outcome, run
from tiny import VOCABULARY, lines, texts, write_base, write_classifier
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sparsetv.errors import FormatError, NotFoundError, ProbeError, UsageError
from sparsetv.examples.reading import Example, read_examples
from sparsetv.jobs.evaluate import evaluate
from sparsetv.jobs.options import PackOptions, StitchOptions
from sparsetv.jobs.pack import pack
from sparsetv.jobs.stitch import remove, stitch
from sparsetv.localize.scope import Scope
from sparsetv.taskfile import write_task


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evaluate")
    base = write_base(path / "base")
    write_classifier(path / "random", base, classes=4, seed=5)
    write_classifier(path / "one", base, classes=2, always=1, names=("bad", "good"))
    write_classifier(path / "two", base, classes=3, always=2, names=("no", "maybe", "yes"), seed=2)
    for name in ("one", "two", "random"):
        task = pack(base, path / name, options=PackOptions(0.2, Scope("blocks")))
        write_task(path / f"{name}.stv", task)
    return path


def predictions(path: Path, examples: Sequence[tuple[str, str | None]]) -> list[int]:
    """What a model says to each example on its own: ids by hand, no batch, no padding."""
    model = transformers.BertForSequenceClassification.from_pretrained(path).eval()
    found = []
    for text, pair in examples:
        first = [2, *(VOCABULARY.index(word) for word in text.split()), 3]
        second = [] if pair is None else [*(VOCABULARY.index(word) for word in pair.split()), 3]
        kinds = torch.tensor([[0] * len(first) + [1] * len(second)])
        with torch.inference_mode():
            found.append(int(model(torch.tensor([first + second]), token_type_ids=kinds).logits.argmax()))
    return found


def test_accuracy_by_hand(room: Path, tmp_path: Path) -> None:
    data = lines(tmp_path / "d.jsonl", [{"text": "w1 w2", "label": label} for label in (1, 0, 1, 1, 0)])
    result = evaluate(room / "one", data)
    assert (result.correct, result.total, result.value) == (3, 5, 0.6)


def test_labels_by_name(room: Path, tmp_path: Path) -> None:
    data = lines(tmp_path / "d.jsonl", [{"text": "w1", "label": name} for name in ("good", "bad", "good", "good")])
    assert evaluate(room / "one", data).value == 0.75


def test_batches_change_nothing(room: Path, tmp_path: Path) -> None:
    """150 texts of mixed length, in batches with padding: every prediction is the one made alone."""
    examples = [(text, None) for text in texts(150)]
    expected = predictions(room / "random", examples)
    assert len(set(expected)) >= 2
    values = [{"text": text, "label": label} for (text, _), label in zip(examples, expected, strict=True)]
    assert evaluate(room / "random", lines(tmp_path / "d.jsonl", values)).value == 1.0
    values[7]["label"] = (expected[7] + 1) % 4
    assert evaluate(room / "random", lines(tmp_path / "d.jsonl", values)).correct == 149


def pairs() -> list[tuple[str, str]]:
    return list(zip(texts(80)[:40], texts(80)[40:], strict=True))


def test_pairs_of_texts(room: Path, tmp_path: Path) -> None:
    expected = predictions(room / "random", pairs())
    assert expected != predictions(room / "random", [(text, None) for text, _ in pairs()])
    values = [{"text_a": a, "text_b": b, "label": label} for (a, b), label in zip(pairs(), expected, strict=True)]
    assert evaluate(room / "random", lines(tmp_path / "d.jsonl", values)).value == 1.0


def test_pairs_beside_single_texts_keep_their_second_text(room: Path, tmp_path: Path) -> None:
    examples: list[tuple[str, str | None]] = [*pairs(), *((text, None) for text in texts(20))]
    expected = predictions(room / "random", examples)
    values = [
        {"text": a, "label": label} if b is None else {"text_a": a, "text_b": b, "label": label}
        for (a, b), label in zip(examples, expected, strict=True)
    ]
    data = lines(tmp_path / "d.jsonl", values)
    error = outcome(lambda: evaluate(room / "random", data))
    if error is None:
        assert evaluate(room / "random", data).value == 1.0
    else:  # to refuse the mixture is as good as to handle it
        assert "text_b" in str(error)


def test_long_texts_are_cut(room: Path, tmp_path: Path) -> None:
    data = lines(tmp_path / "d.jsonl", [{"text": "w1 " * 500, "label": 1}])
    assert evaluate(room / "one", data, max_length=10).value == 1.0


def test_a_length_beyond_the_model_s_positions_is_cut_or_refused(room: Path, tmp_path: Path) -> None:
    """The default of 128 tokens is more than this model's 24 positions."""
    data = lines(tmp_path / "d.jsonl", [{"text": "w1 " * 500, "label": 1}])
    error = outcome(lambda: evaluate(room / "one", data))
    assert error is None or "max-length" in str(error)


def test_a_tokenizer_without_padding_is_no_crash(room: Path, tmp_path: Path) -> None:
    config = transformers.GPT2Config(
        vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=24, num_labels=2, bos_token_id=0, eos_token_id=0
    )
    transformers.GPT2ForSequenceClassification(config).save_pretrained(tmp_path / "gpt")
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 1, "w1": 2, "w2": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(tmp_path / "gpt")
    data = lines(tmp_path / "d.jsonl", [{"text": "w1 w2", "label": 1}, {"text": "w1", "label": 0}])
    error = outcome(lambda: evaluate(tmp_path / "gpt", data))
    assert error is None or "pad" in str(error)


# Stitched directories


def test_a_single_task_s_directory_is_its_model(room: Path, tmp_path: Path) -> None:
    stitch(room / "base", [room / "one.stv"], tmp_path / "out")
    data = lines(tmp_path / "d.jsonl", [{"text": "w1", "label": "good"}, {"text": "w2", "label": "bad"}])
    assert evaluate(tmp_path / "out", data).value == 0.5
    assert evaluate(tmp_path / "out", data, task="one").value == 0.5
    with pytest.raises(NotFoundError, match=r"out: has no task 'two'; it has one"):
        evaluate(tmp_path / "out", data, task="two")
    with pytest.raises(UsageError, match=r"out: holds the model of one, not of two"):
        evaluate(tmp_path / "out", data, task=room / "two.stv")


def test_the_heads_of_a_directory_of_several_tasks(room: Path, tmp_path: Path) -> None:
    stitch(room / "base", [room / "one.stv", room / "two.stv"], tmp_path / "out")
    data = lines(tmp_path / "d.jsonl", [{"text": "w1", "label": label} for label in (2, 2, 1, 2)])
    assert evaluate(tmp_path / "out", data, task="two").value == 0.75
    named = lines(tmp_path / "n.jsonl", [{"text": "w1", "label": label} for label in ("good", "bad", "bad")])
    assert evaluate(tmp_path / "out", named, task="one").correct == 1
    assert evaluate(tmp_path / "out", data, task=room / "two.stv").value == 0.75
    with pytest.raises(UsageError, match=r"out: holds (one, two|two, one); name one with --task"):
        evaluate(tmp_path / "out", data)
    with pytest.raises(NotFoundError, match=r"out: has no task 'three'; it has"):
        evaluate(tmp_path / "out", data, task="three")


def test_merged_weights_are_what_is_run(room: Path, tmp_path: Path) -> None:
    """A grafted model with the task's own head, against the same weights loaded without sparsetv."""
    options = StitchOptions(scale="none")
    stitch(room / "base", [room / "random.stv"], tmp_path / "single", options=options)
    examples = [(text, None) for text in texts(60)]
    expected = predictions(tmp_path / "single", examples)
    assert expected != predictions(room / "random", examples)
    values = [{"text": text, "label": label} for (text, _), label in zip(examples, expected, strict=True)]
    data = lines(tmp_path / "d.jsonl", values)
    assert evaluate(tmp_path / "single", data).value == 1.0
    assert evaluate(tmp_path / "single", data, task="random").value == 1.0


def test_a_base_under_a_task_s_head(room: Path, tmp_path: Path) -> None:
    data = lines(tmp_path / "d.jsonl", [{"text": "w1", "label": label} for label in (2, 0)])
    assert evaluate(room / "base", data, task=room / "two.stv").value == 0.5
    with pytest.raises(ProbeError, match=r"base: has no \S+, so it is no classifier; name a task with --task"):
        evaluate(room / "base", data)
    stitch(room / "base", [room / "one.stv"], tmp_path / "out")
    remove(tmp_path / "out", ["one"])
    assert evaluate(tmp_path / "out", data, task=room / "two.stv").value == 0.5


# The command, and data that is none


def test_the_command_prints_accuracy(room: Path, tmp_path: Path) -> None:
    data = lines(tmp_path / "d.jsonl", [{"text": "w1", "label": label} for label in (1, 0, 1)])
    assert run("evaluate", room / "one", "--data", data).stdout == "accuracy 0.6667 (2 of 3)\n"
    found = json.loads(run("evaluate", room / "one", "--data", data, "--json").stdout)
    assert found == {"accuracy": 2 / 3, "correct": 2, "total": 3}


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (2, "label 2 lies outside the model's 2 classes"),
        (-1, "label -1 lies outside the model's 2 classes"),
        ("great", "label 'great' is none of the model's: bad, good"),
    ],
)
def test_labels_that_the_model_lacks_are_refused(label: object, message: str, room: Path, tmp_path: Path) -> None:
    data = lines(tmp_path / "d.jsonl", [{"text": "w1", "label": label}])
    with pytest.raises(UsageError, match=message):
        evaluate(room / "one", data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"text": "a", "label": 1}\n{', r"d.jsonl:2: not JSON"),
        ('\n\n{"text": "a"}', r"d.jsonl:3: needs a `label`, an integer or a string"),
        ('{"text": "a", "label": true}', r"d.jsonl:1: needs a `label`"),
        ('{"text": "a", "label": 1.0}', r"d.jsonl:1: needs a `label`"),
        ('{"text": "a", "label": null}', r"d.jsonl:1: needs a `label`"),
        ('{"text": 5, "label": 1}', r"d.jsonl:1: needs a string `text`, or strings `text_a` and `text_b`"),
        ('{"text_a": "a", "label": 1}', r"d.jsonl:1: needs a string `text`, or strings"),
        ("[1]", r"d.jsonl:1: needs a `label`"),
        ("3", r"d.jsonl:1: needs a `label`"),
        ("", r"d.jsonl: no examples"),
        ("\n \n", r"d.jsonl: no examples"),
        ("version https://git-lfs.github.com/spec/v1", r"d.jsonl:1: not JSON"),
        ("[" * 100_000, r"d.jsonl:1: "),
        ('{"text": "a", "label": ' + "1" * 5000 + "}", r"d.jsonl:1: "),
    ],
)
def test_data_that_is_none_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(text)
    with pytest.raises(FormatError, match=message):
        read_examples(tmp_path / "d.jsonl")


@pytest.mark.parametrize("text", [b"\xff\xfe{}", b'{"text": "\xe9", "label": 1}\n', b"\x1f\x8b\x08\0"])
def test_data_that_is_not_unicode_is_refused(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_bytes(text)
    with pytest.raises(FormatError, match=r"d\.jsonl"):
        read_examples(tmp_path / "d.jsonl")


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_lines_end_at_line_feeds_only(separator: str, tmp_path: Path) -> None:
    """JSON allows U+2028, U+2029 and U+0085 inside strings; real text has them."""
    escaped = json.dumps(f"a{separator}b", ensure_ascii=False)
    (tmp_path / "d.jsonl").write_text(f'{{"text": {escaped}, "label": 1}}\r\n', newline="")
    assert read_examples(tmp_path / "d.jsonl") == [Example(f"a{separator}b", None, 1)]


def test_data_and_models_that_are_not_there(room: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none.jsonl: no such file"):
        evaluate(room / "one", tmp_path / "none.jsonl")
    data = lines(tmp_path / "d.jsonl", [{"text": "w1", "label": 1}])
    with pytest.raises(NotFoundError, match=r"nowhere: no such file or directory, and no hub id"):
        evaluate(tmp_path / "nowhere", data)
    with pytest.raises(NotFoundError, match=r"none.stv: no such file"):
        evaluate(room / "base", data, task=tmp_path / "none.stv")


def test_a_model_without_a_tokenizer_is_refused(room: Path, tmp_path: Path) -> None:
    """transformers makes up an empty tokenizer for some classes: every word would be unknown."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((room / "one" / name).read_bytes())
    data = lines(tmp_path / "d.jsonl", [{"text": "w1", "label": 1}])
    with pytest.raises(ProbeError, match=r"bare: has no tokenizer") as caught:
        evaluate(bare, data)
    assert "\n" not in str(caught.value)
