"""Experiments over a tiny suite: every method and experiment runs, goes on where it stopped, and says what is true."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from tiny import lines, texts

import sparsetv
from sparsetv.bench.kinds import options_of
from sparsetv.bench.lab import Lab
from sparsetv.bench.methods import METHODS
from sparsetv.bench.retention import Probe
from sparsetv.bench.run import EXPERIMENTS, Selection, bench
from sparsetv.bench.subject import Subject
from sparsetv.bench.suite import Suite, read_suite
from sparsetv.cli import group
from sparsetv.cli.bench import EXPERIMENTS as SHOWN
from sparsetv.errors import BusyError, FormatError, NotFoundError, OutputError, UsageError
from sparsetv.examples.encoding import encode
from sparsetv.jobs.outputs import locked
from sparsetv.results import read_results

IMPOSSIBLE = {"stitch-budget-joint"}
"""Of so small a model 1 % is less than its head and tokenizer."""

NAMES = ("tuned", "other", "third")


@pytest.fixture(scope="module")
def folder(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as `read_suite` takes it: base/, fine-tunes, tasks/NAME/{train,test}.jsonl."""
    room = tmp_path_factory.mktemp("suite")
    for name in ("base", *NAMES):
        shutil.copytree(trained / name, room / name)
    for name in NAMES:
        (room / "tasks" / name).mkdir(parents=True)
        classes = 3 if name == "tuned" else 2
        rows = [{"text": text, "label": number % classes} for number, text in enumerate(texts(48))]
        lines(room / "tasks" / name / "train.jsonl", rows[:24])
        lines(room / "tasks" / name / "test.jsonl", rows[24:])
    return room


@pytest.fixture
def suite(folder: Path) -> Suite:
    return replace(read_suite(folder), max_length=16, groups={"two": ("tuned", "other")})


def rows_of(path: Path) -> list[dict[str, object]]:
    return list(read_results(path).rows)


def test_a_directory_is_a_suite(folder: Path) -> None:
    suite = read_suite(folder)
    assert suite.merged == tuple(sorted(NAMES))
    assert suite.task("tuned").test == str(folder / "tasks" / "tuned" / "test.jsonl")
    assert [task.name for task in suite.only(["t*"]).tasks] == ["third", "tuned"]
    with pytest.raises(NotFoundError, match="has no task 'x'"):
        suite.only(["x"])


def test_a_fine_tune_s_data_may_lie_under_the_name_before_its_hyphen(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "s")
    shutil.copytree(folder / "tuned", tmp_path / "s" / "tuned-sgd")
    assert read_suite(tmp_path / "s").task("tuned-sgd").test.endswith("tasks/tuned/test.jsonl")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = 1", "needs \\[\\[tasks\\]\\]"),
        ("x = ", "no suite"),
        ('name = "s"\nbase = "b"\nwhat = 1\n[[tasks]]\nname = "a"', "has 'what'"),
        ('name = "s"\nbase = "b"\n[[tasks]]\nname = "a"\n[[tasks]]\nname = "a"', "one name"),
        ('name = "s"\nbase = "b"\nmerged = ["z"]\n[[tasks]]\nname = "a"', "'z' is none of"),
        ('name = "s"\nbase = "b"\n[[tasks]]\nname = "../a"', "cannot be a task's name"),
        ('name = "s"\nbase = "b"\n[[tasks]]\nname = "a"\nmetric = "loss"', "metric is one of"),
        ('base = "b"\n[[tasks]]\nname = "a"', "'name' must be a text"),
        ('name = "s"\nbase = "b"\ntasks = ["a"]', "needs \\[\\[tasks\\]\\]"),
        (f'name = "s"\nbase = "b"\n[[tasks]]\nname = "{"a" * 200}"', "cannot be a task's name"),
        ('name = "s"\nbase = "b"\n[[tasks]]\nname = "a\\u0000"', "cannot be a task's name"),
        ('name = "s"\nbase = "b"\n[[tasks]]\nname = "a"\nsettings = 1', "'settings' must be a table"),
        ('name = "s"\nbase = "b"\n[[tasks]]\nname = "a"\nsettings = { columns = 1 }', "'columns' must be a table"),
        ('name = "s"\nbase = "b"\n[[tasks]]\nname = "a"\nsettings = { temple = 1 }', "settings has 'temple'"),
        *(
            (f'name = "s"\nbase = "b"\n{line}\n[[tasks]]\nname = "a"', message)
            for line, message in [
                ('scope = "blocks"', "'scope' must be a list of texts"),
                ('merged = "a"', "'merged' must be a list of texts"),
                ('merged = ["a", "a"]', "'merged' names 'a' twice"),
                ("groups = [1]", "'groups' must be a table"),
                ('groups = { x = ["b"] }', "'groups.x': 'b' is none of"),
                ("paper = 1", "'paper' must be a table"),
                ('max_length = "64"', "'max_length' must be a whole number, 1 or more"),
                ("max_length = 0", "'max_length' must be a whole number, 1 or more"),
                ("seed = -1", "'seed' must be a whole number, 0 or more"),
                ('precision = "fp16"', "must be one of fp32, bf16"),
            ]
        ),
    ],
)
def test_files_that_are_no_suite_say_why(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "s.toml"
    path.write_text(text)
    with pytest.raises(FormatError, match=message):
        read_suite(path)


def test_a_directory_of_models_that_is_not_there_is_said_to_be_so(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such directory"):
        read_suite(folder, models=tmp_path / "gone")


def test_paths_of_a_suite_are_relative_to_given_folders(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text('name = "s"\nbase = "base"\n[[tasks]]\nname = "tuned"\ndata = "tuned"\nmetric = "f1"')
    suite = read_suite(path, models=folder, data=folder / "tasks")
    assert suite.base == str(folder / "base")
    assert suite.tasks[0].train == str(folder / "tasks" / "tuned" / "train.jsonl")
    assert suite.tasks[0].metric == "f1"


def test_every_experiment_of_the_command_exists() -> None:
    assert tuple(EXPERIMENTS) == SHOWN


@pytest.fixture(scope="module")
def merged(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of every method."""
    suite = replace(read_suite(folder), max_length=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sparsetv.bench.running.ENTROPY_STEPS", 3)
        return bench("merge", suite, tmp_path_factory.mktemp("merge"))


def test_every_method_runs(merged: Path) -> None:
    rows = rows_of(merged)
    for method in ("base", "finetuned", *sorted(METHODS.keys() - IMPOSSIBLE)):
        mine = {row["of"]["task"]: row for row in rows if row["of"]["method"] == method}  # type: ignore[index]
        assert set(mine) >= set(NAMES)
        assert all(0 <= float(str(mine[name]["value"])) <= 1 and mine[name]["examples"] == 24 for name in NAMES)
        if method in METHODS:
            assert mine[""]["label"] == METHODS[method].label
            assert mine[""]["data"] == METHODS[method].data


def test_results_name_no_path_of_the_machine(merged: Path, folder: Path) -> None:
    assert str(folder.parent) not in merged.read_text()
    header = read_results(merged).header
    assert header["suite"]["base"]["name"] == "base"
    assert {task["name"]: task["test"] for task in header["suite"]["tasks"]}["tuned"] == "tuned/test.jsonl"


def test_a_known_measurement_is_not_made_again(merged: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = merged.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(Subject, "score", fail)
    bench("merge", replace(read_suite(folder), max_length=16), merged.parent)
    assert merged.read_bytes() == before


def test_results_of_other_settings_are_refused(merged: Path, folder: Path) -> None:
    with pytest.raises(OutputError, match="another settings"):
        bench("merge", replace(read_suite(folder), max_length=16), merged.parent, choice=Selection(limit=3))
    with pytest.raises(OutputError, match="another suite"):
        bench("merge", replace(read_suite(folder), max_length=17), merged.parent)


def test_the_paper_s_average_stands_beside_ours(suite: Suite, tmp_path: Path) -> None:
    paper = {"merge": {"Simple averaging": {"average": 0.563}}, "groups": {"TIES": {"two": 0.875}}}
    quoted, methods = replace(suite, paper=paper), Selection(methods=["average", "ties"])
    for experiment, wanted in (
        ("merge", {"average": 0.563, "ties": None}),
        ("groups", {"average": None, "ties": 0.875}),
    ):
        rows = rows_of(bench(experiment, quoted, tmp_path, choice=methods))
        told = {row["of"]["method"]: row["published"] for row in rows if not row["of"]["task"]}  # type: ignore[index]
        assert told == wanted


def test_figures_of_time_are_not_continued_on_another_machine(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = Selection(methods=["average"])
    bench("runtime", suite, tmp_path, choice=choice)
    monkeypatch.setattr("sparsetv.bench.lab.machine", lambda: {"processor": "another", "cores": 1})
    with pytest.raises(OutputError, match="another settings"):
        bench("runtime", suite, tmp_path, choice=choice)


def test_masks_learned_from_other_examples_are_other_files(suite: Suite, tmp_path: Path) -> None:
    task = suite.task("tuned")
    train = tmp_path / "train.jsonl"
    shutil.copy(task.train, train)
    lab = Lab(replace(suite, tasks=(replace(task, train=str(train)),)), tmp_path / "o")
    before = lab.file("tuned", "5% learned")
    train.write_text(train.read_text().replace('"label": 0', '"label": 1'))
    assert lab.file("tuned", "5% learned") != before


def test_results_of_other_examples_are_refused(suite: Suite, tmp_path: Path) -> None:
    test = tmp_path / "test.jsonl"
    shutil.copyfile(suite.task("tuned").test, test)
    tasks = (replace(suite.task("tuned"), test=str(test)), suite.task("other"))
    two, choice = replace(suite, tasks=tasks, merged=("tuned", "other")), Selection(methods=["average"])
    bench("merge", two, tmp_path / "o", choice=choice)
    test.write_text("".join(test.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(OutputError, match="another data"):
        bench("merge", two, tmp_path / "o", choice=choice)


def test_one_run_at_a_time_writes_the_same_results(suite: Suite, tmp_path: Path) -> None:
    with locked(tmp_path / "storage.jsonl"), pytest.raises(BusyError, match=r"storage\.jsonl: another process"):
        bench("storage", suite, tmp_path, choice=Selection(tasks=["tuned"], kinds=["5% exact"]))
    assert bench("storage", suite, tmp_path, choice=Selection(tasks=["tuned"], kinds=["5% exact"])).is_file()


def test_a_folder_of_results_that_cannot_be_made_is_named(suite: Suite, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file: cannot be a folder of results"):
        bench("storage", suite, tmp_path / "file")


def test_scales_are_fitted_to_data_whose_columns_have_other_names(suite: Suite, tmp_path: Path) -> None:
    tasks = []
    for name in ("tuned", "other"):
        rows = [json.loads(line) for line in Path(suite.task(name).train).read_text().splitlines()]
        renamed = lines(tmp_path / f"{name}.jsonl", [{"sentence": row["text"], "label": row["label"]} for row in rows])
        tasks.append(replace(suite.task(name), train=str(renamed), settings={"columns": {"text": "sentence"}}))
    renamed_suite, plain = replace(suite, tasks=tuple(tasks), merged=("tuned", "other")), Lab(suite, tmp_path / "a")
    found = METHODS["stitch-5-fit"].make(Lab(renamed_suite, tmp_path / "b"), ("tuned", "other")).deltas["tuned"]
    wanted = METHODS["stitch-5-fit"].make(plain, ("tuned", "other")).deltas["tuned"]
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_fitting_without_data_is_refused(suite: Suite, tmp_path: Path) -> None:
    bare = replace(suite, tasks=tuple(replace(task, train="") for task in suite.tasks))
    with pytest.raises(UsageError, match="names no train data"):
        bench("merge", bare, tmp_path, choice=Selection(methods=["stitch-5-fit"]))


def test_the_first_examples_are_those_of_all_and_no_others_are_encoded(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Lab(suite, tmp_path).subject("tuned")
    wanted = subject.batches("train", size=4)[:2]
    encoded: list[int] = []

    def counting(*args: Any, **how: Any) -> Any:
        encoded.append(len(args[2]))
        return encode(*args, **how)

    monkeypatch.setattr("sparsetv.bench.subject.encode", counting)
    found = subject.batches("train", most=8, size=4)
    assert encoded == [8]
    for one, other in zip(found, wanted, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_fine_tune_that_has_none_right_has_no_ratio(suite: Suite, tmp_path: Path) -> None:
    lab = Lab(suite, tmp_path)
    assert lab.normalised({"tuned": lab.subject("tuned").ceiling, "other": 0.0}) == 0.5
    lab.subject("other").ceiling = 0.0
    assert lab.normalised({"tuned": 0.5, "other": 0.0}) is None


def test_the_average_is_the_average_of_the_checkpoints(suite: Suite, folder: Path, tmp_path: Path) -> None:
    lab = Lab(suite, tmp_path)
    deltas = METHODS["average"].make(lab, NAMES).deltas["tuned"]
    base = load_file(folder / "base" / "model.safetensors")
    tuned = [load_file(folder / name / "model.safetensors") for name in NAMES]
    for name, tensor in base.items():
        wanted = sum(one[f"bert.{name}"].double() for one in tuned) / 3 if f"bert.{name}" in tuned[0] else None
        if wanted is not None:
            torch.testing.assert_close(tensor.double() + deltas[name].double(), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", ["stitch-5", "stitch-5-scaled", "stitch-1-joint"])
def test_stitching_in_the_benchmark_is_stitch(suite: Suite, tmp_path: Path, method: str) -> None:
    lab = Lab(suite, tmp_path)
    found = METHODS[method].make(lab, NAMES)
    kind, scale = found.settings["kind"], found.settings["scale"]
    files = [lab.file(name, kind) for name in NAMES]
    assert found.stored_bytes == sum(file.stat().st_size for file in files)
    out = tmp_path / "out"
    sparsetv.stitch(suite.base, [str(file) for file in files], out, options=sparsetv.StitchOptions(scale=scale))
    stitched, base = load_file(out / "model.safetensors"), load_file(Path(suite.base) / "model.safetensors")
    for name, tensor in base.items():
        change = found.deltas["tuned"].get(name)
        wanted = stitched[name] - tensor
        assert torch.equal(torch.zeros_like(wanted) if change is None else change, wanted)


def test_scores_are_those_of_evaluate(suite: Suite, folder: Path, tmp_path: Path) -> None:
    subject = Lab(suite, tmp_path).subject("tuned")
    wanted = sparsetv.evaluate(folder / "tuned", suite.task("tuned").test, max_length=16).value
    assert subject.ceiling == wanted
    assert subject.score(subject.deltas()) == wanted
    assert subject.row(None) == {"value": round(wanted, 6), "metric": "accuracy", "examples": 24}


def test_what_a_body_was_set_to_can_be_read_back(suite: Suite, tmp_path: Path) -> None:
    subject = Lab(suite, tmp_path).subject("other")
    subject.set(None)
    deltas, moved = subject.deltas(), subject.moved()
    assert moved.keys() == deltas.keys()
    for name, delta in deltas.items():
        torch.testing.assert_close(moved[name], delta, rtol=0, atol=1e-6)
    subject.set({})
    assert all(not tensor.any() for tensor in subject.moved().values())
    assert set(subject.head) == {"classifier.weight", "classifier.bias"}


def test_validation_examples_are_training_examples(suite: Suite, tmp_path: Path) -> None:
    subject = Lab(suite, tmp_path).subject("tuned")
    train = {example.text for example in subject.questions("train").examples}
    chosen = [example.text for example in subject.questions("validation").examples]
    assert chosen
    assert set(chosen) <= train


def test_storage_is_what_the_file_system_says(suite: Suite, tmp_path: Path) -> None:
    kinds = ("1% exact", "5% sign", "60% budget", "lossless")
    path = bench("storage", suite, tmp_path, choice=Selection(kinds=kinds, tasks=["tuned"]))
    lab, found = Lab(suite, tmp_path), {row["of"]["kind"]: row for row in rows_of(path)}  # type: ignore[index]
    assert tuple(found) == kinds
    for kind, row in found.items():
        assert row["file_bytes"] == lab.file("tuned", kind).stat().st_size
        assert row["checkpoint_bytes"] == (Path(suite.task("tuned").finetuned) / "model.safetensors").stat().st_size
        assert float(str(row["seconds"])) > 0
    summary = sparsetv.inspect(lab.file("tuned", "5% sign"))
    assert found["5% sign"]["kept"] == summary.kept_entries
    assert found["5% sign"]["bits"] == {part: round(bits, 3) for part, bits in summary.bits.items()}


def test_files_of_other_weights_are_not_taken(suite: Suite, folder: Path, tmp_path: Path) -> None:
    """A fine-tune that was trained again has other files, though it has its old name."""
    again = tmp_path / "tuned"
    shutil.copytree(folder / "third", again)
    first = Lab(suite, tmp_path / "o")
    second = Lab(replace(suite, tasks=(replace(suite.task("tuned"), finetuned=str(again)),)), tmp_path / "o")
    assert first.packed("tuned", "5% exact").digest() != second.packed("tuned", "5% exact").digest()
    assert first.packed("tuned", "5% exact").digest() == Lab(suite, tmp_path / "o").packed("tuned", "5% exact").digest()
    other = Lab(replace(suite, scope=("all",)), tmp_path / "o")
    assert other.packed("tuned", "5% exact").recipe.preset == "all"


def test_what_cannot_be_measured_is_left_out_unless_it_was_asked_for(suite: Suite, tmp_path: Path) -> None:
    said: list[str] = []
    path = bench("storage", suite, tmp_path, choice=Selection(tasks=["tuned"]), say=said.append)
    assert any("0.15% budget: left out" in line for line in said)
    assert "0.15% budget" not in path.read_text()
    with pytest.raises(sparsetv.SparseTVError, match="budget"):
        bench("storage", suite, tmp_path, choice=Selection(tasks=["tuned"], kinds=["0.15% budget"]))


def test_recovery_of_everything_is_the_fine_tune(suite: Suite, tmp_path: Path) -> None:
    path = bench("recovery", suite, tmp_path, choice=Selection(kinds=["100% exact", "5% exact"], tasks=["tuned"]))
    found = {(row["of"]["kind"], row["of"]["scale"]): row["value"] for row in rows_of(path)}  # type: ignore[index]
    assert found["100% exact", "none"] == found["finetuned", ""]
    assert {scale for kind, scale in found if kind == "5% exact"} == {"none", "l2", "match"}


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        ("1% exact", lambda o: (o.density, o.values, o.budget) == (0.01, "exact", None)),
        ("0.15% budget", lambda o: o.budget == "0.15%"),
        ("5% sign per tensor", lambda o: (o.allocation, o.values) == ("tensor", "sign")),
        ("5% exact bare", lambda o: o.probe is False),
        ("1% learned 8 shots", lambda o: (o.localizer, o.learn.shots) == ("learned", 8)),
        ("1% refit", lambda o: o.refit is not None and str(o.learn.data) == "random"),
    ],
)
def test_kinds_are_options(suite: Suite, kind: str, check: Callable[[sparsetv.PackOptions], bool]) -> None:
    assert check(options_of(kind, suite, suite.task("tuned")))


@pytest.mark.parametrize("kind", ["exact", "1% what", "x% exact", "1 exact"])
def test_what_is_no_kind_is_refused(suite: Suite, kind: str) -> None:
    with pytest.raises(UsageError, match="no kind of file"):
        options_of(kind, suite, suite.task("tuned"))


def test_learning_without_data_is_refused(suite: Suite) -> None:
    with pytest.raises(UsageError, match="learns from training data"):
        options_of("1% learned", suite, replace(suite.task("tuned"), train=""))


def test_continual_addition_takes_one_step_per_task(suite: Suite, tmp_path: Path) -> None:
    methods = ("arithmetic-tuned", "continual", "stitch-5-scaled")
    path = bench("continual", suite, tmp_path, choice=Selection(methods=methods))
    for method in methods:
        rows = [row for row in rows_of(path) if row["of"]["method"] == method]  # type: ignore[index]
        assert [row["tasks"] for row in rows] == [list(suite.merged[:2]), list(suite.merged)]
        assert [set(row["values"]) for row in rows] == [set(suite.merged[:2]), set(suite.merged)]  # type: ignore[call-overload]
    last = next(row for row in rows_of(path) if row["of"] == {"method": "stitch-5-scaled", "step": 3})
    lab = Lab(suite, tmp_path / "afresh")
    deltas = METHODS["stitch-5-scaled"].make(lab, suite.merged).deltas["tuned"]
    assert last["values"]["tuned"] == round(lab.subject("tuned").score(deltas), 6)  # type: ignore[index]


@pytest.mark.parametrize(
    ("experiment", "choice", "keys"),
    [
        ("groups", Selection(methods=["average", "stitch-5"]), {"set", "method", "task"}),
        ("density", Selection(methods=["stitch", "stitch-scaled"]), {"set", "density", "method", "task"}),
        ("retention", Selection(methods=["average", "stitch-5"]), {"method", "held_out"}),
        ("runtime", Selection(methods=["average", "stitch-5-scaled"]), {"what"}),
    ],
)
def test_experiments_run(suite: Suite, tmp_path: Path, experiment: str, choice: Selection, keys: set[str]) -> None:
    rows = rows_of(bench(experiment, suite, tmp_path, choice=choice))
    assert rows
    assert all(set(row["of"]) == keys for row in rows)  # type: ignore[call-overload]


def test_masks_from_more_and_more_examples(suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsetv.bench.sweeps.SHOTS", (2,))
    rows = rows_of(bench("shots", suite, tmp_path))
    assert {row["of"]["shots"] for row in rows} == {0, 2}  # type: ignore[index]


def test_the_probe_reads_the_base_s_features(suite: Suite, tmp_path: Path) -> None:
    """Against least squares by hand on features of single sentences."""
    subject = Lab(suite, tmp_path).subject("tuned")
    probe = Probe(subject)
    found = probe.score({})

    def features(part: str) -> tuple[torch.Tensor, torch.Tensor]:
        rows, labels = [], []
        subject.set({})
        for batch in subject.batches(part, shots=None, size=1):
            inputs = {key: tensor for key, tensor in batch.items() if key != "labels"}
            with torch.inference_mode():
                states = subject.model(**inputs, output_hidden_states=True).hidden_states[-1][0]
            rows.append(torch.cat([states.double().mean(dim=0), torch.ones(1, dtype=torch.float64)]))
            labels.append(int(batch["labels"]))
        return torch.stack(rows), torch.tensor(labels)

    (x, y), (test, wanted) = features("train"), features("test")
    ridge = (1e-2 * x.square().sum(dim=0).mean()).sqrt() * torch.eye(x.shape[1], dtype=torch.float64)
    ones = torch.zeros(len(y), 3, dtype=torch.float64).scatter_(1, y[:, None], 1.0)
    weights = torch.linalg.lstsq(torch.cat([x, ridge]), torch.cat([ones, torch.zeros(x.shape[1], 3)])).solution
    assert found == pytest.approx(float(((test @ weights).argmax(dim=1) == wanted).double().mean()))


def test_experiments_refuse_what_they_cannot_do(suite: Suite, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown experiment"):
        bench("speed", suite, tmp_path)
    with pytest.raises(UsageError, match="unknown method 'x'"):
        bench("merge", suite, tmp_path, choice=Selection(methods=["x"]))
    with pytest.raises(UsageError, match="storage has no choice of methods"):
        bench("storage", suite, tmp_path, choice=Selection(methods=["ties"]))
    with pytest.raises(UsageError, match="two or more"):
        bench("merge", suite, tmp_path, choice=Selection(tasks=["tuned"]))
    with pytest.raises(UsageError, match="three tasks or more"):
        bench("retention", suite, tmp_path, choice=Selection(tasks=["tuned", "other"]))
    with pytest.raises(UsageError, match="no \\[groups\\]"):
        bench("groups", replace(suite, groups={}), tmp_path)


def test_the_command_runs_an_experiment(folder: Path, tmp_path: Path) -> None:
    words = [
        "bench",
        "storage",
        "--suite",
        str(folder),
        "--task",
        "tuned",
        "--kind",
        "5% exact",
        "-o",
        str(tmp_path / "o"),
    ]
    shown = CliRunner().invoke(group, words, catch_exceptions=False)
    assert shown.exit_code == 0
    assert shown.output.strip().endswith("storage.jsonl")
    (row,) = rows_of(tmp_path / "o" / "storage.jsonl")
    assert json.dumps(row["of"]) == '{"task": "tuned", "kind": "5% exact"}'
