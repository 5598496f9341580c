"""Law 3: however tasks came and went, a stitched directory is a fresh stitch of those that are on it."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ALL, Tensors, bits, floats, pack_pair, read_checkpoint, tree, weights, write_checkpoint
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sparsetv.errors import BaseMismatchError, NonFiniteError, NotFoundError, OutputError, UsageError
from sparsetv.jobs.options import PackOptions, StitchOptions
from sparsetv.jobs.pack import pack
from sparsetv.jobs.stitch import add, remove, stitch
from sparsetv.localize.scope import Scope
from sparsetv.task_vector import SparseTaskVector

pytestmark = pytest.mark.usefixtures("no_sync")

BODY = Scope("globs", ("bert.encoder.*",))
BASE_FILES = {
    "config.json": b'{"model_type": "none", "num_labels": 0}\n',
    "tokenizer.json": b"base tokenizer",
    "vocab.txt": b"a\nb\n",
    "README.md": b"the base",
}


def base_tensors() -> Tensors:
    """Three dtypes, an integer buffer, special numbers."""
    generator = torch.Generator().manual_seed(0)
    return {
        "bert.embeddings.weight": torch.randn(5, 4, generator=generator),
        "bert.encoder.layer.0.half": torch.randn(4, 4, generator=generator).half(),
        "bert.encoder.layer.0.brain": torch.randn(6, 3, generator=generator).bfloat16(),
        "bert.encoder.layer.1.full": torch.randn(3, 5, generator=generator),
        "bert.encoder.layer.1.signs": floats([0x8000_0000, 0, 1, 0x8000_0001, 0x3F80_0000]),
        "bert.ids": torch.arange(6).reshape(1, 6),
        "bert.pooler.weight": torch.randn(4, 4, generator=generator),
    }


def moved(seed: int) -> Tensors:
    """The base after some training of everything."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + torch.randn(tensor.shape, generator=generator).to(tensor.dtype) / 4
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in base_tensors().items()
    }


def renamed(tensors: Tensors, prefix: str) -> Tensors:
    return {prefix + name.removeprefix("bert."): tensor for name, tensor in tensors.items()}


def finetunes() -> dict[str, tuple[Tensors, dict[str, bytes]]]:
    """One fine-tune per way in which a fine-tune can differ from its base; `-2` are other contents of the same name."""
    generator = torch.Generator().manual_seed(99)
    head = {"classifier.weight": torch.randn(2, 4, generator=generator), "classifier.bias": torch.zeros(2).half()}
    grown = moved(3)
    extra_rows = torch.randn(2, 4, generator=generator)
    grown["bert.embeddings.weight"] = torch.cat([grown["bert.embeddings.weight"], extra_rows])
    without = {name: tensor for name, tensor in moved(4).items() if name != "bert.pooler.weight"}
    tied = moved(5)
    tied["lm_head.weight"] = tied["bert.embeddings.weight"].clone()
    changed_buffer = moved(8)
    changed_buffer["bert.ids"] = torch.arange(6).reshape(1, 6) + 2
    reshaped = moved(9)
    reshaped["bert.pooler.weight"] = torch.randn(3, 3, generator=generator)
    config = b'{"model_type": "none", "num_labels": 2}\n'
    return {
        "plain": (moved(1), {}),
        "plain-2": (moved(11), {}),
        "headed": ({**moved(2), **head}, {"config.json": config, "tokenizer.json": b"own tokenizer"}),
        "headed-2": ({**moved(12), **head}, {"config.json": config + b" ", "merges.txt": b"new file"}),
        "grown": (grown, {"config.json": config, "added_tokens.json": b"{}", "vocab.txt": b"a\nb\nc\n"}),
        "without": (without, {"config.json": config}),
        "tied": (tied, {}),
        "inner": (renamed(moved(6), ""), {"config.json": config}),
        "wrapped": (renamed(moved(7), "module.bert."), {}),
        "buffer": (changed_buffer, {}),
        "reshaped": (reshaped, {"config.json": config}),
    }


def pack_all(path: Path) -> dict[str, SparseTaskVector]:
    """All fine-tunes packed; the name of `NAME-2` is `NAME`."""
    write_checkpoint(path / "packing base", base_tensors(), files=BASE_FILES)
    tasks = {}
    for key, (tensors, files) in finetunes().items():
        write_checkpoint(path / "tuned" / key, tensors, files=files)
        options = PackOptions(density=0.4, scope=BODY)
        name = key.removesuffix("-2")
        tasks[key] = pack(path / "packing base", path / "tuned" / key, name=name, options=options)
    return tasks


def write_base(path: Path, kind: str) -> Path:
    """The base in one of the forms that checkpoints have."""
    tensors = base_tensors()
    if kind == "file":
        write_checkpoint(path / "lone", tensors)
        return path / "lone" / "model.safetensors"
    split = None if kind == "single" else {name: number % 3 for number, name in enumerate(tensors)}
    return write_checkpoint(path / "base", tensors, split=split, files=BASE_FILES)


class _Shared:
    """Packed once per test run: packing is not what is under test."""

    folder: tempfile.TemporaryDirectory[str] | None = None
    tasks: dict[str, SparseTaskVector]

    @classmethod
    def get(cls) -> dict[str, SparseTaskVector]:
        if cls.folder is None:
            cls.folder = tempfile.TemporaryDirectory()
            cls.tasks = pack_all(Path(cls.folder.name))
        return cls.tasks


KEYS = sorted(finetunes())
WEIGHTS = st.sampled_from([None, 1.0, 0.5, -0.25])


class Directory(RuleBasedStateMachine):
    """Adds, removes, replaces and reweights tasks on one directory and compares with a fresh stitch."""

    @initialize(
        kind=st.sampled_from(["single", "sharded", "file"]),
        combination=st.sampled_from(["mean", "sum", "ties", "consensus"]),
        scale=st.sampled_from(["auto", "none", "graft", 0.8]),
        start=st.lists(st.sampled_from([key for key in KEYS if not key.endswith("-2")]), unique=True, max_size=3),
    )
    def begin(self, kind: str, combination: str, scale: str | float, start: list[str]) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name)
        self.base = write_base(self.path, kind)
        self.combination, self.scale = combination, scale
        self.live = {key: key for key in start}
        self.weights = dict.fromkeys(start, 1.0)
        stitch(self.base, [_Shared.get()[key] for key in start], self.path / "state", options=self.options())

    def options(self) -> StitchOptions:
        return StitchOptions(rule=self.combination, scale=self.scale, weights=self.weights)

    @rule(key=st.sampled_from(KEYS), weight=WEIGHTS)
    def put(self, key: str, weight: float | None) -> None:
        """Add a task, or replace or reweight the one of its name."""
        name = key.removesuffix("-2")
        given_weights = {} if weight is None else {name: weight}
        self.live[name] = key
        self.weights[name] = self.weights.get(name, 1.0) if weight is None else weight
        add(self.path / "state", [_Shared.get()[key]], weights=given_weights)

    @rule(keys=st.lists(st.sampled_from(["plain", "headed", "grown", "tied"]), min_size=2, max_size=3, unique=True))
    def put_several(self, keys: list[str]) -> None:
        add(self.path / "state", [_Shared.get()[key] for key in keys])
        for key in keys:
            self.live[key] = key
            self.weights.setdefault(key, 1.0)

    @precondition(lambda self: bool(self.live))
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        names = data.draw(st.lists(st.sampled_from(sorted(self.live)), min_size=1, unique=True))
        remove(self.path / "state", names)
        for name in names:
            del self.live[name], self.weights[name]

    @precondition(lambda self: len(self.live) > 1)
    @rule()
    def take_all(self) -> None:
        remove(self.path / "state", sorted(self.live))
        self.live, self.weights = {}, {}

    @invariant()
    def equals_a_fresh_stitch(self) -> None:
        stitch(
            self.base,
            [_Shared.get()[key] for key in self.live.values()],
            self.path / "fresh",
            options=self.options(),
        )
        assert tree(self.path / "state") == tree(self.path / "fresh")

    @invariant()
    def empty_is_the_base(self) -> None:
        if self.live:
            return
        root = self.base if self.base.is_dir() else self.base.parent
        found = tree(self.path / "state")
        ours = {name for name in found if name.startswith(("sparsetv/", "sparsetv.json"))}
        assert {name: found[name] for name in found.keys() - ours} == tree(root)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()


TestDirectory = Directory.TestCase
TestDirectory.settings = settings(max_examples=40, stateful_step_count=8)


@pytest.fixture(scope="module")
def tasks() -> dict[str, SparseTaskVector]:
    return _Shared.get()


@pytest.mark.parametrize("kind", ["single", "sharded"])
@pytest.mark.parametrize("key", KEYS)
def test_one_task_gives_its_own_model(tmp_path: Path, tasks: dict[str, SparseTaskVector], key: str, kind: str) -> None:
    """A single task on the base is the fine-tune itself: its names, head, rows and files; kept entries its bits.

    What wrapped the model while it trained is gone from the names: no class has it.
    """
    base = write_base(tmp_path, kind)
    task = tasks[key]
    stitch(base, [task], tmp_path / "merged", options=StitchOptions(scale="none"))
    found = read_checkpoint(tmp_path / "merged")
    tuned, files = finetunes()[key]
    tuned = {name.removeprefix("module."): tensor for name, tensor in tuned.items()}
    assert sorted(found) == sorted(tuned)
    assert {name: tensor.shape for name, tensor in found.items()} == {n: t.shape for n, t in tuned.items()}
    before = {_own_name(key, name): name for name in base_tensors()}
    for name, tensor in found.items():
        if name not in before or (key, name) in {("buffer", "bert.ids"), ("reshaped", "bert.pooler.weight")}:
            wanted = found["bert.embeddings.weight"] if name == "lm_head.weight" else tuned[name]
            np.testing.assert_array_equal(bits(tensor), bits(wanted), err_msg=name)
            continue
        original = bits(base_tensors()[before[name]])
        kept = task.tensors[before[name]].positions if before[name] in task.tensors else np.zeros(0, np.int64)
        original[kept] = bits(tuned[name])[kept]
        rows = bits(tuned[name])[len(original) :]
        np.testing.assert_array_equal(bits(tensor), np.concatenate([original, rows]), err_msg=name)
    for name, content in {**BASE_FILES, **files}.items():
        assert (tmp_path / "merged" / name).read_bytes() == content


def _own_name(key: str, name: str) -> str:
    prefix = {"inner": "", "wrapped": "bert."}.get(key, "bert.")
    return prefix + name.removeprefix("bert.")


def test_an_alias_follows_rows_that_were_added(tmp_path: Path) -> None:
    """A head tied to an embedding that grew has as many rows as the embedding."""
    base = {"wte.weight": torch.randn(4, 3), "h.0.w": torch.randn(3, 3)}
    tuned = {**base, "wte.weight": torch.cat([base["wte.weight"], torch.ones(2, 3)]), "h.0.w": base["h.0.w"] + 1}
    tuned["lm_head.weight"] = tuned["wte.weight"].clone()
    task = pack_pair(tmp_path, base, tuned, density=0.5, scope=Scope("blocks"))
    assert task.extras["lm_head.weight"].kind == "alias"
    stitch(tmp_path / "base", [task], tmp_path / "merged", options=StitchOptions(scale="none"))
    found = read_checkpoint(tmp_path / "merged")
    assert found["lm_head.weight"].tolist() == found["wte.weight"].tolist() == tuned["wte.weight"].tolist()
    remove(tmp_path / "merged", ["task"])
    assert weights(tmp_path / "merged") == weights(tmp_path / "base")


def test_an_alias_takes_the_bases_dtype(tmp_path: Path) -> None:
    base = {"wte.weight": torch.randn(4, 3), "h.0.w": torch.randn(3, 3)}
    tuned = {name: tensor.bfloat16() for name, tensor in base.items()}
    tuned["h.0.w"] = tuned["h.0.w"] + 1
    tuned["lm_head.weight"] = tuned["wte.weight"].clone()
    task = pack_pair(tmp_path, base, tuned, density=0.5, scope=Scope("blocks"))
    stitch(tmp_path / "base", [task], tmp_path / "merged", options=StitchOptions(scale="none"))
    found = read_checkpoint(tmp_path / "merged")
    assert found["lm_head.weight"].tolist() == base["wte.weight"].tolist()


def test_an_alias_of_a_changed_buffer_gives_the_base_back(tmp_path: Path) -> None:
    base = {"ids": torch.arange(4).reshape(2, 2), "h.0.w": torch.randn(3, 3)}
    tuned: Tensors = {"ids": base["ids"] + 5, "h.0.w": base["h.0.w"] + 1, "more_ids": base["ids"] + 5}
    task = pack_pair(tmp_path, base, tuned, density=0.5, scope=Scope("blocks"))
    stitch(tmp_path / "base", [task], tmp_path / "merged", options=StitchOptions(scale="none"))
    found = read_checkpoint(tmp_path / "merged")
    assert found["ids"].tolist() == found["more_ids"].tolist() == tuned["ids"].tolist()
    remove(tmp_path / "merged", ["task"])
    assert weights(tmp_path / "merged") == weights(tmp_path / "base")


def test_several_tasks_keep_their_heads_apart(tmp_path: Path, tasks: dict[str, SparseTaskVector]) -> None:
    from safetensors.torch import load_file

    base = write_base(tmp_path, "single")
    stitch(base, [tasks["headed"], tasks["grown"], tasks["tied"]], tmp_path / "merged")
    assert sorted(read_checkpoint(tmp_path / "merged")) == sorted(base_tensors())
    heads = tmp_path / "merged" / "sparsetv" / "heads"
    assert sorted(path.name for path in heads.iterdir()) == ["grown", "headed", "tied"]
    tuned, files = finetunes()["headed"]
    head = load_file(heads / "headed" / "head.safetensors")
    assert {name: tensor.tolist() for name, tensor in head.items()} == {
        name: tensor.tolist() for name, tensor in tuned.items() if name.startswith("classifier")
    }
    assert {name: (heads / "headed" / name).read_bytes() for name in files} == files
    for name, content in BASE_FILES.items():
        assert (tmp_path / "merged" / name).read_bytes() == content


def test_replacing_keeps_the_weight(tmp_path: Path, tasks: dict[str, SparseTaskVector]) -> None:
    base = write_base(tmp_path, "single")
    stitch(base, [tasks["plain"]], tmp_path / "merged", options=StitchOptions(weights={"plain": 0.5}))
    record = add(tmp_path / "merged", [tasks["plain-2"]])
    assert [(member.name, member.weight) for member in record.members] == [("plain", 0.5)]
    record = add(tmp_path / "merged", [tasks["plain-2"]], weights={"plain": 0.75})
    assert [(member.name, member.weight) for member in record.members] == [("plain", 0.75)]


def test_files_that_a_user_puts_there_stay(tmp_path: Path, tasks: dict[str, SparseTaskVector]) -> None:
    stitch(write_base(tmp_path, "single"), [tasks["headed"]], tmp_path / "merged")
    (tmp_path / "merged" / "notes.txt").write_text("mine")
    add(tmp_path / "merged", [tasks["plain"]])
    remove(tmp_path / "merged", ["headed", "plain"])
    assert (tmp_path / "merged" / "notes.txt").read_text() == "mine"


def test_a_failed_change_leaves_the_directory_alone(tmp_path: Path, tasks: dict[str, SparseTaskVector]) -> None:
    base = write_base(tmp_path, "sharded")
    stitch(base, [tasks["plain"], tasks["grown"]], tmp_path / "merged")
    other = pack_pair(tmp_path / "other", {"w": torch.ones(3)}, {"w": torch.zeros(3)}, density=1.0)
    before = tree(tmp_path)
    with pytest.raises(NotFoundError, match="has no task 'absent'; it has "):
        remove(tmp_path / "merged", ["plain", "absent"])
    with pytest.raises(BaseMismatchError, match=r"task needs tensor w, which base .* lacks"):
        add(tmp_path / "merged", [other])
    with pytest.raises(UsageError, match="--weight names 'nobody'"):
        add(tmp_path / "merged", [tasks["headed"]], weights={"nobody": 1.0})
    with pytest.raises(NonFiniteError, match="overflows F16; use a smaller scale"):
        add(tmp_path / "merged", [tasks["headed"]], weights={"headed": 1e6})
    with pytest.raises(NotFoundError, match=r"no sparsetv\.json; only a directory that `sparsetv stitch` wrote"):
        add(base, [tasks["headed"]])
    assert without_locks(tree(tmp_path)) == without_locks(before)


def without_locks(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if not name.endswith(".sparsetv-lock")}


def test_a_directory_that_is_not_ours_gets_no_lock_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(NotFoundError, match="only a directory that `sparsetv stitch` wrote"):
        remove(tmp_path / "mine", ["task"])
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_outputs_that_would_destroy_something_are_refused(tmp_path: Path, tasks: dict[str, SparseTaskVector]) -> None:
    base = write_base(tmp_path, "single")
    task = tasks["plain"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    (tmp_path / "a file").write_text("content")
    stitch(base, [task], tmp_path / "stitched")
    before = tree(tmp_path)
    for target, message in [
        (base, "is the base itself; choose another output directory"),
        (base / "inside", "lies inside the base; choose another output directory"),
        (tmp_path / "full", r"holds thesis\.tex, which sparsetv did not write; name a new directory"),
        (tmp_path / "a file", "is a file; name a directory"),
        (tmp_path / "no" / "parent", "does not exist; create it first"),
    ]:
        with pytest.raises(OutputError, match=message):
            stitch(base, [task], target)
    with pytest.raises(UsageError, match="has tasks on it already; use `sparsetv add`"):
        stitch(tmp_path / "stitched", [task], tmp_path / "twice")
    assert without_locks(tree(tmp_path)) == without_locks(before)


def test_a_base_inside_the_output_is_not_destroyed(tmp_path: Path, tasks: dict[str, SparseTaskVector]) -> None:
    base = write_base(tmp_path, "single")
    stitch(base, [tasks["plain"]], tmp_path / "merged")
    base.rename(tmp_path / "merged" / "base")
    before = tree(tmp_path / "merged" / "base")
    with pytest.raises(OutputError, match="base"):
        stitch(tmp_path / "merged" / "base", [tasks["headed"]], tmp_path / "merged")
    assert tree(tmp_path / "merged" / "base") == before


@pytest.mark.parametrize("length", [124, 125, 128])
def test_long_task_names_can_be_removed_again(tmp_path: Path, length: int) -> None:
    base = {"w": torch.ones(3)}
    tuned = write_checkpoint(tmp_path / "tuned", {"w": torch.zeros(3)})
    write_checkpoint(tmp_path / "base", base)
    name = "n" * length
    task = pack(tmp_path / "base", tuned, name=name, options=PackOptions(density=1.0, scope=ALL))
    stitch(tmp_path / "base", [task], tmp_path / "merged")
    remove(tmp_path / "merged", [name])
    assert weights(tmp_path / "merged") == weights(tmp_path / "base")


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), "bogus"])
def test_a_scale_that_no_task_can_use_is_refused_at_once(tmp_path: Path, scale: str | float) -> None:
    write_checkpoint(tmp_path / "base", {"w": torch.ones(3)})
    with pytest.raises(UsageError, match="scale"):
        stitch(tmp_path / "base", [], tmp_path / "merged", options=StitchOptions(scale=scale))


def test_a_shard_whose_tensors_the_fine_tune_lacks(tmp_path: Path) -> None:
    base = {"h.0.w": torch.ones(3, 3), "pooler.weight": torch.ones(2, 2)}
    write_checkpoint(tmp_path / "base", base, split={"h.0.w": 0, "pooler.weight": 1})
    task = pack_pair(tmp_path, base, {"h.0.w": torch.zeros(3, 3)}, density=1.0, scope=Scope("blocks"))
    stitch(tmp_path / "base", [task], tmp_path / "merged", options=StitchOptions(scale="none"))
    assert read_checkpoint(tmp_path / "merged")["h.0.w"].tolist() == torch.zeros(3, 3).tolist()
    remove(tmp_path / "merged", ["task"])
    assert weights(tmp_path / "merged") == weights(tmp_path / "base")
