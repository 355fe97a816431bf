"""The resource's vectors from the disk and anew, readers that were kept, and where a word's tokens end."""

from __future__ import annotations

import json
import random
import shutil
import string
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModel

from kbench import registry
from kbench.config.compose import compose
from kbench.engine import loop, spill
from kbench.engine.feed import Feed
from kbench.engine.predict import PASS_TOKENS
from kbench.engine.seeding import derive
from kbench.errors import BackboneError, InterruptedRunError
from kbench.methods.exported import OPTIONS, RESOURCE, WEIGHTS, Exported
from kbench.methods.resource import Cached, Live
from kbench.runs.prepare import MODEL, prepare

from ..conftest import QUICK, bench_of, in_process, points, small_bert

KINDS = ["toy", "toy_pos", "toy_inference", "toy_choice"]  # texts, words, pairs, choices
CPU = torch.device("cpu")
of_each = pytest.mark.parametrize("data", KINDS)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT that is told which text of a pair a token is of; its tokens are letters."""
    letters = [mark + letter for mark in ("", "##") for letter in string.ascii_lowercase]
    folder = small_bert(tmp_path_factory.mktemp("told"), letters, seed=4, initializer_range=0.2)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)) + "\n")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    return folder


def method_of(outputs: Path, data: str, *overrides: str) -> Any:
    """KR2 on a small toy set, before anything of it is made."""
    words = ["method=kr2", f"data={data}", "data.train_size=24", "data.test_size=12", *overrides, f"outputs={outputs}"]
    run = prepare(compose(words))
    method: Any = registry.load("method", "kr2")
    return method(run.config.method, bench_of(run))


# What is stored.


def naive_ids(bench: Any, split: str) -> list[tuple[list[int], list[int]]]:
    """Ids and types of each sequence, one text at a time."""
    records, tokenizer, longest = bench.records, bench.tokenizer, bench.data.max_length
    begin, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    is_told = "token_type_ids" in tokenizer("a")
    found = []
    for row in records.pieces(split) if records.layout.value != "text" else records.texts(split):
        if records.layout.value == "text":
            ids = tokenizer(row)["input_ids"]
            found.append((ids, [0] * len(ids)))
        elif records.layout.value == "words":
            pieces = [piece for word in row for piece in tokenizer(word, add_special_tokens=False)["input_ids"]]
            found.append(([begin, *pieces, end], [0] * (len(pieces) + 2)))
        else:
            first, *seconds = ([begin, *tokenizer(text, add_special_tokens=False)["input_ids"], end] for text in row)
            for second in seconds:
                found.append((first + second[1:], [0] * len(first) + [int(is_told)] * (len(second) - 1)))
    assert all(len(ids) <= longest for ids, _ in found)
    return found


@torch.no_grad()
def naive_states(resource: Any, split: str, seed: int = 1) -> Iterator[list[Tensor]]:
    """All hidden states of each sequence, which stands alone and is not padded."""
    folder = resource.bench.backbone_folder
    torch.manual_seed(derive(seed, "resource"))
    model = AutoModel.from_config(AutoConfig.from_pretrained(folder)).eval()
    if (folder / "model.safetensors").exists():
        model = AutoModel.from_pretrained(folder).eval()
    for ids, types in naive_ids(resource.bench, split):
        given = {"input_ids": torch.tensor([ids]), "token_type_ids": torch.tensor([types])}
        yield [state[0] for state in model(**given, output_hidden_states=True).hidden_states]


def naive_fused(states: list[Tensor], fusion: str) -> Tensor:
    if fusion.startswith("layer:"):
        return states[int(fusion[-1])]
    if fusion == "learned":
        return torch.stack([torch.stack([state[token] for state in states]) for token in range(len(states[0]))])
    chosen = states[-4:] if fusion == "avg_last4" else states
    total = torch.zeros_like(states[0])
    for state in chosen:
        total += state
    return total / len(chosen)


def stored_at(method: Any, split: str) -> np.ndarray:
    """The array of a split on the disk, built where it is absent."""
    folder = method.bench.store.get(method.resource.features_stage())
    found: np.ndarray = np.load(folder / f"{split}.npy")
    return found


CASES = [*((data, "avg_last4", "tiny_large", (96,)) for data in KINDS)]
CASES += [("toy_inference", "avg_all", "told", (32,)), ("toy_choice", "layer:1", "told", (32,))]
CASES += [("toy_pos", "layer:1", "null", (64,)), ("toy_pos", "layer:0", "null", (64,))]
CASES += [("toy_choice", "learned", "null", (3, 64))]


@pytest.mark.parametrize(("data", "fusion", "resource", "shape"), CASES)
def test_each_token_has_the_vector_it_has_alone(
    data: str, fusion: str, resource: str, shape: tuple[int, ...], outputs: Path, told: Path
) -> None:
    words = [f"method.resource={told if resource == 'told' else resource}", "data.max_length=200"]
    method = method_of(outputs, data, f"method.fusion={fusion}", "method.stored=fp32", *words)
    for split in method.bench.records.splits:
        stored, place = stored_at(method, split), 0
        assert stored.dtype == np.float32 and stored.shape[1:] == shape
        for states in naive_states(method.resource, split):
            expected = naive_fused(states, fusion)
            found = torch.from_numpy(stored[place : place + len(expected)])
            assert torch.allclose(found, expected, atol=1e-5, rtol=0)
            place += len(expected)
        assert place == len(stored) > 100, "every token, and nothing else"
    types = {kind for _, types in naive_ids(method.resource.bench, "test") for kind in types}
    assert types == ({0, 1} if resource == "told" else {0})


@pytest.mark.parametrize(("stored", "dtype", "error"), [("fp16", "float16", 2**-11), ("bf16", "bfloat16", 2**-8)])
def test_halves_are_stored_as_halves(stored: str, dtype: str, error: float, outputs: Path) -> None:
    method = method_of(outputs, "toy_pos", f"method.stored={stored}")
    assert stored_at(method, "train").dtype.itemsize == 2
    source = method.resource.cached("train")
    rows = np.arange(len(source.encoded))
    found = source.batch(rows, CPU)["resource"]
    assert found.dtype == getattr(torch, dtype)
    worst = 0.0
    for row, states in enumerate(naive_states(method.resource, "train")):
        expected = naive_fused(states, "avg_all")
        given = found[row, : len(expected)].float()
        worst = max(worst, float(((given - expected).abs() / expected.abs().clamp_min(0.01)).max()))
    assert error / 8 < worst < 1.1 * error


@pytest.mark.parametrize("stored", ["fp16", "bf16", "fp32"])
@of_each
def test_the_disk_and_the_model_give_the_same_batch(data: str, stored: str, outputs: Path) -> None:
    method = method_of(outputs, data, f"method.stored={stored}", "method.drop_special=true")
    cached, live = method.resource.cached("train"), method.resource.live("train")
    assert isinstance(cached, Cached) and isinstance(live, Live)
    tolerance = {"fp16": 2**-10, "bf16": 2**-7, "fp32": 1e-5}[stored]
    for chosen in ([3], [7, 0, 7, 21, 23], list(range(23, -1, -1))):
        ours, theirs = (source.batch(np.array(chosen), CPU) for source in (cached, live))
        assert set(ours) == set(theirs) == {"resource", "resource_mask"}
        assert torch.equal(ours["resource_mask"], theirs["resource_mask"])
        assert ours["resource"].shape == theirs["resource"].shape == (*ours["resource_mask"].shape, 64)
        assert ours["resource"].dtype == theirs["resource"].dtype
        read = ours["resource_mask"].bool()
        a, b = ours["resource"][read].float(), theirs["resource"][read].float()
        assert len(a) > 3 and torch.allclose(a, b, rtol=tolerance, atol=tolerance / 4)
        assert not torch.allclose(a, b.roll(1, 0), rtol=tolerance, atol=tolerance / 4)


@of_each
def test_special_tokens_are_read_unless_they_are_dropped(data: str, outputs: Path) -> None:
    dropped, kept = (method_of(outputs, data, f"method.drop_special={word}") for word in ("true", "false"))
    tokenizer = dropped.resource.bench.tokenizer
    special = {tokenizer.cls_token_id, tokenizer.sep_token_id}
    sequences = naive_ids(dropped.bench, "test")
    count = len(sequences) // 12
    assert count == (4 if data == "toy_choice" else 1)
    rows = np.array([5, 2, 11])
    masks = [method.beside("test").batch(rows, CPU)["resource_mask"].reshape(-1) for method in (dropped, kept)]
    chosen = [sequences[row * count + choice][0] for row in rows for choice in range(count)]
    width = max(map(len, chosen))
    whole = [[1] * len(ids) + [0] * (width - len(ids)) for ids in chosen]
    without = [[int(token not in special) for token in ids] + [0] * (width - len(ids)) for ids in chosen]
    assert masks[0].tolist() == [counts for mask in without for counts in mask]
    assert masks[1].tolist() == [counts for mask in whole for counts in mask]
    specials = 3 if data in ("toy_inference", "toy_choice") else 2
    assert all(len(ids) - sum(mask) == specials for ids, mask in zip(chosen, without, strict=True))


def test_another_model_or_seed_has_vectors_of_its_own_and_other_switches_have_not(outputs: Path) -> None:
    plain = method_of(outputs, "toy_pos").resource.features_stage().key
    for word in ("resource=tiny_large", "resource_seed=2", "fusion=layer:1", "fusion=learned", "stored=bf16"):
        assert method_of(outputs, "toy_pos", f"method.{word}").resource.features_stage().key != plain, word
    for word in ("drop_special=true", "inject_at=inputs_embeds", "cache=on", "depth=1"):
        assert method_of(outputs, "toy_pos", f"method.{word}").resource.features_stage().key == plain, word
    assert method_of(outputs, "toy_pos", "seed=2").resource.features_stage().key == plain, "shared by all seeds"


def test_the_resource_stands_outside_of_what_is_trained(outputs: Path) -> None:
    method = method_of(outputs, "toy_pos", "method.resource=tiny_large", "method.cache=off", "data.max_length=30")
    method.prepare({})
    model = method.bench.model(7, seed=0)
    own = {name for name, _ in model.named_parameters()}
    student = method.student(model).train()
    extra = {f"inject.0.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
    assert {name for name, _ in student.named_parameters()} == {f"model.{name}" for name in own} | extra
    feed = method.bench.lessons(np.arange(8), method.columns(), beside=method.beside("train"))
    before = {name: value.clone() for name, value in method.resource.model.state_dict().items()}
    method.loss(student, feed.batch(np.arange(8), CPU))["cross_entropy"].backward()
    resource = method.resource.model
    assert student.training and not any(module.training for module in resource.modules())
    assert all(weight.grad is None and not weight.requires_grad for weight in resource.parameters())
    assert all(torch.equal(value, before[name]) for name, value in resource.state_dict().items())
    ours = {id(weight) for weight in student.state_dict(keep_vars=True).values()}
    assert ours.isdisjoint(id(weight) for weight in resource.state_dict(keep_vars=True).values())
    reached = {name for name, weight in student.named_parameters() if weight.grad is not None}
    assert extra <= reached and len(reached) > 30


# Runs from the disk and anew.


@pytest.mark.parametrize(("data", "more"), [("toy_pos", []), ("toy_inference", ["method.fusion=learned"])])
def test_a_run_is_the_same_from_the_disk_and_anew(data: str, more: list[str], tmp_path: Path) -> None:
    quick = ["method=kr2", f"data={data}", *QUICK[1:], "train.epochs=1", "keep_scores=[test]", *more]
    kept, anew = (in_process([*quick, f"method.cache={word}"], tmp_path / word) for word in ("on", "off"))
    assert kept[0].key == anew[0].key
    assert kept[0].folder.relative_to(tmp_path / "on") == anew[0].folder.relative_to(tmp_path / "off")
    assert list((tmp_path / "on" / "stages").glob("resource_features/*/test.npy"))
    assert not list((tmp_path / "off" / "stages").glob("resource_features"))
    losses = [[point["loss"] for point in points(run, "train")] for run, _ in (kept, anew)]
    assert len(losses[0]) == 3
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)
    scores = [np.load(run.scores("test")) for run, _ in (kept, anew)]
    assert np.abs(scores[0] - scores[1]).max() < 0.02 * np.abs(scores[0]).max()
    assert kept[1].metrics["test"]["accuracy"] == pytest.approx(anew[1].metrics["test"]["accuracy"], abs=0.05)


def test_a_stopped_run_that_keeps_no_vectors_continues_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["method=kr2", "data=toy_pos", *QUICK[1:], "train.epochs=1", "method.cache=off", "keep_scores=[test]"]
    whole, _ = in_process(words, tmp_path / "whole")
    stop, read = threading.Event(), loop._read

    def stop_at_first(*arguments: Any) -> dict[str, float]:
        stop.set()
        return read(*arguments)

    monkeypatch.setattr(loop, "_read", stop_at_first)
    with pytest.raises(InterruptedRunError, match="after step 2 of 3"):
        in_process(words, tmp_path / "stopped", stop=stop)
    monkeypatch.setattr(loop, "_read", read)
    run, _ = in_process(words, tmp_path / "stopped")
    assert [point["loss"] for point in points(run, "train")] == [point["loss"] for point in points(whole, "train")]
    assert run.scores("test").read_bytes() == whole.scores("test").read_bytes()


# A build that was killed.


class Told:
    """A report that raises, or asks to stop, at one batch of the features."""

    def __init__(self, at: int = 0, stop: threading.Event | None = None):
        self.at, self.stop = at, stop
        self.batches: list[tuple[str, int, int]] = []

    def progress(self, scope: str, step: int, total: int, values: Any) -> None:
        self.batches.append((scope, step, total))
        if len(self.batches) == self.at:
            if self.stop is None:
                raise KeyboardInterrupt
            self.stop.set()

    def note(self, text: str) -> None: ...


@pytest.mark.parametrize("in_split", ["train", "test"])
@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize(
    ("tokens", "words"), [(200, ["toy_choice"]), (50, ["toy_pos", "method.fusion=learned", "method.stored=bf16"])]
)
def test_a_killed_build_continues_after_its_finished_batches(
    tokens: int, words: list[str], stopped: bool, in_split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "_FLUSH_SECONDS", -1.0)
    monkeypatch.setitem(PASS_TOKENS, "cpu", tokens)

    def built(outputs: Path, told: Told) -> Path:
        method = method_of(outputs, *words)
        if told.stop is not None:
            method.bench.runtime.stop = told.stop
        bench = method.resource.bench
        bench.report = told
        return Path(bench.store.get(method.resource.features_stage()))

    undisturbed = Told()
    whole = built(tmp_path / "whole", undisturbed)
    total = undisturbed.batches[0][2]
    assert total > 3
    assert undisturbed.batches[:total] == [("features of train", step, total) for step in range(1, total + 1)]
    at = 3 if in_split == "train" else total + 3  # what another split has is not lost
    assert undisturbed.batches[at - 1][0] == f"features of {in_split}"
    killed = Told(at, threading.Event() if stopped else None)
    with pytest.raises(InterruptedRunError if stopped else KeyboardInterrupt):
        built(tmp_path / "killed", killed)
    assert not list((tmp_path / "killed" / "stages" / "resource_features").glob("*/manifest.json"))
    done = at if stopped else at - 1  # the batch that is being told of is not yet on the disk
    assert killed.batches == undisturbed.batches[:at]
    again = Told()
    continued = built(tmp_path / "killed", again)
    assert again.batches == undisturbed.batches[done:]
    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted(path.name for path in continued.iterdir()) == ["manifest.json", "test.npy", "train.npy"]
    for name in ("test.npy", "train.npy"):
        assert (whole / name).read_bytes() == (continued / name).read_bytes()


# Whether vectors are kept.


def test_auto_keeps_what_the_limit_has_room_for(outputs: Path) -> None:
    size = method_of(outputs, "toy_pos").resource.bytes()
    written = method_of(outputs, "toy_pos")
    assert size == sum(stored_at(written, split).nbytes for split in ("train", "test"))
    assert method_of(outputs, "toy_pos", "method.fusion=learned").resource.bytes() == 3 * size
    assert method_of(outputs, "toy_pos", "method.stored=fp32").resource.bytes() == 2 * size
    cases = [("auto", 0.0, False), ("auto", size / 1e9, True), ("auto", (size - 1) / 1e9, False)]
    cases += [("on", 0.0, True), ("off", 10.0, False)]
    for cache, limit, kept in cases:
        method = method_of(outputs, "toy_pos", f"method.cache={cache}", f"method.cache_gigabytes={limit!r}")
        assert isinstance(method.beside("test"), Cached if kept else Live), (cache, limit)


READS = """
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from kbench.data.encode import Encoded
from kbench.methods.resource import Cached


def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) // 1024


folder = Path(sys.argv[1])
tokenizer = SimpleNamespace(pad_token_id=0)
resource = SimpleNamespace(bench=SimpleNamespace(tokenizer=tokenizer), stored="fp16", drop_special=False)
source = Cached(resource, Encoded(folder, "train"), folder / "train.npy")
cpu, most, first = torch.device("cpu"), 0, 0
for start in range(0, 2000, 8):
    found = source.batch(np.arange(start, start + 8), cpu)["resource"]
    assert found.shape == (8, 100, 768)
    assert found[:, :, 0].eq(torch.arange(start, start + 8)[:, None]).all(), "what it says of each text"
    first = first or resident()
    most = max(most, resident())
print(most - first)
"""


def test_a_large_array_is_read_without_becoming_this_processs_memory(tmp_path: Path) -> None:
    rows, length = 2000, 100
    np.zeros(rows * length, dtype=np.int32).tofile(tmp_path / "train.ids")
    np.cumsum(np.full(rows, length, dtype=np.int64)).tofile(tmp_path / "train.ends")
    info = {"sequences": 1, "tokens": {"train": {"all": rows * length, "unknown": 0}}}
    (tmp_path / "encoded.json").write_text(json.dumps(info))
    shape = (rows * length, 768)
    array = np.lib.format.open_memmap(tmp_path / "train.npy", mode="w+", dtype=np.float16, shape=shape)
    array[:] = np.arange(rows, dtype=np.float16).repeat(length)[:, None]
    array.flush()
    assert array.nbytes > 300e6
    found = subprocess.run([sys.executable, "-c", READS, str(tmp_path)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) < 150


# Readers that were kept.

RUNS = {
    "words": ["data=toy_pos", "data.max_length=12", "method.fusion=layer:1"],
    "choices": ["data=toy_choice", "method.drop_special=true", "method.stored=bf16"],
    "pairs": [
        "data=toy_inference",
        "method.inject_at=inputs_embeds",
        "method.inject_norm=layernorm",
        "method.segment=1",
    ],
    "told": ["data=toy_choice", "method.resource=tiny", "backbone.path=TOLD"],
    "texts": ["data=toy", "data.test_size=72"],
    "entities": ["data=toy_entities", "method.fusion=avg_all", "method.inject_dropout=0.2"],
    "large": ["data=toy_pos", "method.resource=tiny_large", "method.fusion=learned", "method.fusion_weights=free"],
}


@pytest.fixture(scope="module")
def kept(outputs: Path, told: Path) -> Any:
    """Make a run that keeps its model, once: gives (run, rows of test)."""
    made: dict[str, Any] = {}

    def make(kind: str) -> Any:
        if kind not in made:
            words = ["method=kr2", *QUICK[1:], "train.epochs=1", "keep_model=true", "keep_scores=[test]"]
            words += [word.replace("TOLD", str(told)) for word in RUNS[kind]]
            run, _ = in_process(words, outputs)
            records = run.bench().records
            made[kind] = run, records.texts("test") if kind == "texts" else records.pieces("test")
        return made[kind]

    return make


@pytest.mark.parametrize("kind", RUNS)
def test_a_kept_reader_says_what_the_run_said(kind: str, kept: Any) -> None:
    run, rows = kept(kind)
    exported = Exported(run.folder / MODEL)
    expected = np.load(run.scores("test"))
    found = exported.scores(rows)
    assert found.shape == expected.shape and found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-4 < np.abs(expected - expected[::-1]).max()
    lines = [json.loads(line) for line in (run.folder / "predictions.jsonl").read_text().splitlines()]
    labels = exported.predict(rows)
    assert len(lines) == len(rows) > 40 and exported.labels == run.config.data.outputs()
    if kind == "words":
        assert any("_" in line["predicted"] for line in lines), "some words are cut off"
    given = [line["predicted"] for line in lines]
    if "words" in lines[0]:
        given = [[None if tag == "_" else tag for tag in tags] for tags in given]
    assert labels == given
    assert exported.predict(rows[3:5]) == labels[3:5]


def test_a_kept_reader_has_the_weights_of_its_projection_and_fusion(kept: Any) -> None:
    run, _ = kept("large")
    record = json.loads((run.folder / MODEL / OPTIONS).read_text())
    assert record["layers"] == [0, 1, 2, 3, 4] and record["reader"]["depth"] == 2 and record["reader"]["states"] == 5
    assert AutoConfig.from_pretrained(run.folder / MODEL / RESOURCE).hidden_size == 96
    assert not (kept("texts")[0].folder / MODEL / WEIGHTS).exists()
    assert AutoConfig.from_pretrained(kept("words")[0].folder / MODEL / RESOURCE).num_hidden_layers == 1


FILES = ["model.safetensors", "config.json", OPTIONS, WEIGHTS]
FILES += [f"{RESOURCE}/model.safetensors", f"{RESOURCE}/config.json", f"{RESOURCE}/tokenizer.json"]


@pytest.mark.parametrize("harm", FILES)
@pytest.mark.parametrize("how", ["gone", "cut"])
def test_a_broken_folder_is_said_to_be_broken(harm: str, how: str, kept: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(kept("large")[0].folder / MODEL, tmp_path / "model"))
    whole = (folder / harm).read_bytes()
    (folder / harm).unlink()
    if how == "cut":
        (folder / harm).write_bytes(whole[:40])
    with pytest.raises(BackboneError):
        Exported(folder)
    (folder / harm).write_bytes(whole)
    Exported(folder)


@pytest.mark.parametrize("harm", ["no reader", "no options", "other weights"])
def test_a_folder_of_something_else_is_no_reader(harm: str, kept: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(kept("large")[0].folder / MODEL, tmp_path / "model"))
    if harm == "no reader":
        folder = small_bert(tmp_path / "other", ["a"])
    if harm == "no options":
        (folder / OPTIONS).write_text("{}")
    if harm == "other weights":
        save_file({"fusion.scores": torch.zeros(5)}, folder / WEIGHTS)
    with pytest.raises(BackboneError):
        Exported(folder)


# Where a word's tokens end.


@pytest.mark.parametrize("longest", [64, 12, 4])
def test_units_and_their_stops_are_a_words_tokens(longest: int, outputs: Path) -> None:
    sizes = ["data.train_size=60", "data.test_size=20", "backbone.tiny.vocabulary=330", f"data.max_length={longest}"]
    run = prepare(compose(["method=finetune", "data=toy_pos", *sizes, f"outputs={outputs}"]))
    bench = bench_of(run)
    encoded, sentences = bench.encoded("train"), bench.records.pieces("train")
    total = int(encoded.unit_ends[-1])
    unread = np.random.default_rng(1).random(total) < 0.3
    rng, sizes_seen, cut_short, in_the_middle = random.Random(2), set(), 0, 0
    for left_out in (None, unread):
        chosen = rng.sample(range(60), 40)
        feed = Feed(encoded, np.array(chosen), 0, {"unit": np.arange(total)}, unread=left_out)
        for positions in ([0], rng.sample(range(40), 7), list(range(40))):
            expected = []  # unit, its row in the batch, ids of its tokens
            for line, position in enumerate(positions):
                row = chosen[position]
                room, unit = longest - 2, sum(len(words) for words in sentences[:row])
                for word in sentences[row]:
                    pieces = bench.tokenizer(word, add_special_tokens=False)["input_ids"]
                    if room > 0 and not (left_out is not None and left_out[unit]):
                        expected.append((unit, line, pieces[:room]))
                        cut_short += len(pieces) > room
                    in_the_middle += room > 0 and left_out is not None and bool(left_out[unit])
                    sizes_seen.add(len(pieces[: max(0, room)]))
                    room -= len(pieces)
                    unit += 1
            batch = feed.batch(np.array(positions), CPU)
            ids, width = batch["input_ids"].flatten().tolist(), batch["input_ids"].shape[1]
            found = [
                (unit, start // width, ids[start:stop])
                for unit, start, stop in zip(
                    batch["unit"].tolist(), batch["units"].tolist(), batch["unit_stops"].tolist(), strict=True
                )
            ]
            assert found == expected
    assert in_the_middle > 20 and sizes_seen >= {1, 2} and (cut_short > 0) == (longest < 64)
