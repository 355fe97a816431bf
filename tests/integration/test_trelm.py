"""TRELM over processes and kills: the same losses and paths, and the same bytes of the checkpoint.

What a pre-training stands on is made once and copied to each test. Tolerance of two processes against one: 1e-5 of each
loss; draws are equal by construction, and what differs is the order in which float32 gradients are added.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kbench.config.compose import compose
from kbench.config.trelm import Mode
from kbench.errors import ConfigError, UserError
from kbench.methods.trelm import FAMILIES, Trelm
from kbench.runs.prepare import prepare

from ..conftest import LINKED, command, in_process
from .test_kill import start, wait_for

# two batches in an epoch, of which the short one leaves one of two processes without rows
WORDS = ["method=trelm", "data=toy_lama", "data.test_size=24", "log_every=1", *LINKED]
WORDS += ["pretrain.global_batch_size=32", "pretrain.max_steps=6", "pretrain.epochs=6", "hardware.checkpoint_minutes=0"]
WORDS += ["hardware.threads=1"]  # as this process
KILLED = [*WORDS, "pretrain.max_steps=30", "pretrain.epochs=30", "method.memory.store=mapped"]
SAME = ("loss", "loss/words", "loss/knowledge", "grad_norm")
EQUAL = ("operations", "tokens", "memory_share", "path/neurons", "path/overlap", "path/layer_0", "path/layer_1")


def points(outputs: Path) -> list[dict[str, Any]]:
    (path,) = outputs.glob("trelm/*/*/*/s1/metrics.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if line["scope"] == "pretrain" and "loss" in line]


def checkpoint(outputs: Path) -> Path:
    (path,) = outputs.glob("stages/pretrained/*/manifest.json")
    return path.parent


def seeded(whole: Path, folder: Path) -> Path:
    """Outputs with all that the pre-training stands on, and nothing of itself."""
    shutil.copytree(whole / "stages", folder / "outputs/stages", ignore=lambda *_: {"pretrained"})
    return folder / "outputs"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs of one process that nothing disturbed."""
    outputs = tmp_path_factory.mktemp("whole")
    in_process(WORDS, outputs, checkpoint_seconds=0.0)
    return outputs


def moved_rows(outputs: Path) -> list[list[int]]:
    """The neurons of each layer that some path of the training had."""
    from kbench.backbones.load import load_masked_lm
    from kbench.engine.seeding import derive

    (start_,) = outputs.glob("stages/tiny/*/config.json")
    before = load_masked_lm(start_.parent, seed=derive(derive(1, "pretrain"), "model")).state_dict()
    after = load_file(checkpoint(outputs) / "model.safetensors")
    names = [f"bert.encoder.layer.{layer}.intermediate.dense.weight" for layer in range(2)]
    return [(after[name] != before[name]).any(-1).nonzero().flatten().tolist() for name in names]


@pytest.mark.parametrize("store", ["rows", "sharded"])
def test_two_processes_have_the_losses_and_the_paths_of_one(whole: Path, tmp_path: Path, store: str) -> None:
    outputs = seeded(whole, tmp_path)
    done = command(
        [*WORDS, "hardware=cpu_x2", "hardware.checkpoint_minutes=0", f"method.memory.store={store}"], tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = outputs.glob("trelm/*/*/*/s1/result.json")
    assert json.loads(result.read_text())["environment"]["processes"] == 2
    one, two = points(whole), points(outputs)
    assert len(one) == len(two) == 6
    for ours, theirs in zip(one, two, strict=True):
        assert {name: theirs[name] for name in SAME} == pytest.approx({name: ours[name] for name in SAME}, rel=1e-5)
        assert {name: theirs[name] for name in EQUAL} == {name: ours[name] for name in EQUAL}
    assert 0 < sum(map(len, moved_rows(whole))) < 2 * 256 and moved_rows(outputs) == moved_rows(whole)
    weights = [load_file(checkpoint(folder) / "model.safetensors") for folder in (whole, outputs)]
    assert checkpoint(whole).name == checkpoint(outputs).name and weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, atol=1e-4, rtol=0, msg=name)


def test_a_killed_pretraining_whose_memory_is_in_files_ends_in_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    expected = seeded(whole, tmp_path / "undisturbed")
    in_process(KILLED, expected, checkpoint_seconds=0.0)
    outputs = seeded(whole, tmp_path)
    for moment in ("bank/undo-0*3", "checkpoints/step-0*1[0-9]"):
        process = start(tmp_path, KILLED)
        wait_for(outputs, f"stages/pretrained/*.work/{moment}", process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not list(outputs.glob("stages/pretrained/*/manifest.json")), "it ended before it was killed"
    done = command(KILLED, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pretrain continues after step" in done.stdout
    ours, theirs = checkpoint(outputs), checkpoint(expected)
    assert (ours / "model.safetensors").read_bytes() == (theirs / "model.safetensors").read_bytes()
    assert {path.name for path in ours.iterdir()} == {path.name for path in theirs.iterdir()}
    steps = [
        [json.loads(line)["step"] for line in (folder / "curve.jsonl").read_text().splitlines()]
        for folder in (ours, theirs)
    ]
    assert steps == [list(range(1, 31))] * 2, "each point of the curve stands once"
    same = ("loss", "operations", "tokens", "memory_share", "path/overlap")
    found = [[{name: point[name] for name in same} for point in points(one)] for one in (outputs, expected)]
    assert found[0] == found[1]


# What is refused before anything is made.


def folder_of(path: Path, family: str, headless: bool = False) -> Path:
    """A backbone's folder: random weights and a tokenizer of letters."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *(chr(code) for code in range(33, 127)), *(f"##{chr(code)}" for code in range(97, 123))]
    inner = Tokenizer(models.WordPiece({piece: place for place, piece in enumerate(pieces)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **dict(zip(names, special, strict=True)))
    tokenizer.save_pretrained(path)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    if family == "distilbert":
        shape = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
    config = AutoConfig.for_model(family, vocab_size=len(pieces), pad_token_id=0, **shape)
    auto: Any = AutoModel if headless else AutoModelForMaskedLM
    auto.from_config(config).save_pretrained(path)
    return path


@pytest.mark.parametrize(("family", "headless", "says"), [
    ("distilbert", False, "is of the family distilbert, into which nothing can be injected"),
    ("bert", True, "is an encoder without the head that guesses words"),
])  # fmt: skip
def test_a_backbone_that_nothing_can_be_injected_into_is_refused(
    tmp_path: Path, family: str, headless: bool, says: str
) -> None:
    folder = folder_of(tmp_path / family, family, headless)
    words = [word for word in WORDS if not word.startswith("backbone.")]
    with pytest.raises(UserError, match=says):
        in_process(
            [*words, "backbone=bert_base", f"backbone.path={folder}", "data.max_length=64"], tmp_path / "outputs"
        )
    assert not list((tmp_path / "outputs").glob("stages/corpus*")), "before anything is made"


def test_families_are_those_that_injection_and_head_know() -> None:
    from kbench.backbones.masked_lm import _HEADS
    from kbench.methods.injection import _FAMILIES

    assert set(FAMILIES) == set(_FAMILIES) == set(_HEADS)


def test_half_precision_is_refused_where_paths_learn(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pretrain\.precision +is fp16, whose loss scale"):
        prepare(compose([*WORDS, "hardware=gpu", "pretrain.precision=fp16", f"outputs={tmp_path}"]))


@pytest.mark.parametrize(
    ("word", "says"),
    [("mode=random", "only attribution finds a path for each"), ("granularity=path", "path has neurons alone")],
)
def test_a_path_for_each_relation_needs_attribution_of_neurons(tmp_path: Path, word: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"is relation, and .*{says}"):
        in_process([*WORDS, "method.routing.scope=relation", f"method.routing.{word}"], tmp_path)


@pytest.mark.parametrize("mode", [Mode.in_backward, Mode.amortised])
def test_several_processes_would_choose_different_paths_inside_a_backward_pass(whole: Path, mode: Mode) -> None:
    run = prepare(compose([*WORDS, f"method.routing.mode={mode.value}", f"outputs={whole}"]))
    method = Trelm(run.config.method, run.bench(runtime=SimpleNamespace(processes=2, device="cpu", check_stop=None)))
    if mode is Mode.in_backward:
        with pytest.raises(ConfigError, match=r"method\.routing\.mode +is in_backward, and 2 processes would choose"):
            method.stages()
    else:
        assert set(method.stages()) == {"pretrained"}


def test_roberta_learns_and_stays_roberta(whole: Path, tmp_path: Path) -> None:
    """Positions begin behind the padding's id, the head is lm_head, its matrix is the embeddings'."""
    from transformers import AutoModelForMaskedLM

    folder = folder_of(tmp_path / "roberta", "roberta")
    words = [word for word in WORDS if not word.startswith(("backbone.", "data"))]
    words += ["data=toy", "data.train_size=32", "data.test_size=16", "train.epochs=1", "data.max_length=64"]
    words += ["backbone=roberta_base", f"backbone.path={folder}", "pretrain.max_steps=3"]
    _, result = in_process([*words, "method.inject.level=sum", "pretrain.precision=bf16"], tmp_path / "outputs")
    found = checkpoint(tmp_path / "outputs")
    assert found.name == result.stages["pretrained"] and len(points(tmp_path / "outputs")) == 3
    _, told = AutoModelForMaskedLM.from_pretrained(found, output_loading_info=True, local_files_only=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    before = load_file(folder / "model.safetensors")
    after = load_file(found / "model.safetensors")
    assert before.keys() == after.keys()
    frozen = {name for name in before if torch.equal(before[name], after[name])}
    learned = {name.removeprefix("roberta.encoder.") for name in before.keys() - frozen}
    assert all(
        name.startswith("lm_head.") or "dense.weight" in name or "intermediate.dense.bias" in name for name in learned
    )
    assert "lm_head.dense.weight" in learned and "roberta.embeddings.word_embeddings.weight" in frozen
