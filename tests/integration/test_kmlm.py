"""KMLM from graph to predictions: processes, kills, one checkpoint for all evaluations, a folder transformers loads.

Tolerance of two processes against one: 1e-4 in every weight. Samples, masks and dropout are equal by construction
(micro batches are equally large); what differs is the order in which float32 gradients are added.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from kbench.config.compose import compose
from kbench.runs.prepare import config_hash

from ..conftest import PRETRAIN, SMALL_GRAPH, SMALL_MULTI, command, in_process, plain_text, points
from .test_kill import start, wait_for

QUICK = ["data.train_size=48", "data.test_size=24", "train.epochs=1", "train.max_steps=3", "log_every=1"]
KMLM = ["method=kmlm", *SMALL_MULTI, *SMALL_GRAPH, *PRETRAIN]


def stages(outputs: Path, name: str) -> list[Path]:
    """The finished folders of a stage."""
    return sorted(path.parent for path in (outputs / "stages" / name).glob("*/manifest.json"))


def stage(outputs: Path, name: str) -> Path:
    (found,) = stages(outputs, name)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """What the files of a stage hold, but for the manifest, which has times."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kmlm")


@pytest.fixture(scope="module")
def made(outputs: Path) -> Any:
    """A run on XLR and its result, in this process."""
    return in_process(["data=toy_xlr", *KMLM, *QUICK], outputs)


# Processes and kills.


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a command that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    done = command(LONGER, folder, timeout=900)
    assert done.returncode == 0, done.stderr
    return folder


# a global batch of two micro batches, which processes share; a checkpoint after each step, to be killed after
LONGER = ["data=toy_xlr", *KMLM, *QUICK, "pretrain.max_steps=12", "pretrain.global_batch_size=32"]
LONGER += ["pretrain.epochs=2", "hardware.checkpoint_minutes=0"]


def test_two_processes_write_the_same_samples_and_nearly_the_same_weights(whole: Path, tmp_path: Path) -> None:
    done = command(["hardware=cpu_x2", *LONGER], tmp_path, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = whole / "outputs", tmp_path / "outputs"
    for name in ("graph", "cycles", "xlr", "samples", "name_tokens"):
        assert stage(one, name).name == stage(two, name).name
        ours, theirs = contents(stage(one, name)), contents(stage(two, name))
        assert ours and ours.keys() == theirs.keys()
        assert [path for path in ours if ours[path] != theirs[path]] == []
    weights = [load_file(stage(folder, "pretrained") / "model.safetensors") for folder in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    for name, values in weights[0].items():
        np.testing.assert_allclose(weights[1][name], values, atol=1e-4, err_msg=name)
    results = [json.loads(next(folder.glob("kmlm/*/*/*/s1/result.json")).read_text()) for folder in (one, two)]
    assert [result["environment"]["processes"] for result in results] == [1, 2]
    assert results[0]["key"] == results[1]["key"]


def test_a_killed_pretraining_continues_with_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    moments = ["stages/pretrained/*.work/checkpoints/step-0*2", "stages/pretrained/*.work/checkpoints/step-0*7"]
    for moment in moments:
        process = start(tmp_path, LONGER)
        wait_for(tmp_path / "outputs", moment, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert stages(tmp_path / "outputs", "pretrained") == []
    done = command(LONGER, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pretrain continues after step" in done.stdout
    ours, theirs = (contents(stage(folder / "outputs", "pretrained")) for folder in (whole, tmp_path))
    assert ours.keys() == theirs.keys() and [name for name in ours if ours[name] != theirs[name]] == []
    predictions = [next(folder.glob("outputs/kmlm/*/*/*/s1/predictions.jsonl")) for folder in (whole, tmp_path)]
    assert predictions[0].read_bytes() == predictions[1].read_bytes()
    curve = [json.loads(line) for line in (predictions[1].parent / "metrics.jsonl").read_text().splitlines()]
    steps = [point["step"] for point in curve if point["scope"] == "pretrain" and "loss" in point]
    assert steps == list(range(1, 13)), "each point of the curve stands once"


# One checkpoint.


def test_two_evaluations_share_one_checkpoint(made: Any, outputs: Path) -> None:
    _, first = made
    (folder,) = stages(outputs, "pretrained")
    before = (folder / "model.safetensors").stat().st_mtime_ns
    for data in ("toy_relx", "toy_probe"):
        run, result = in_process([f"data={data}", *KMLM, *QUICK], outputs)
        assert result.stages == first.stages == {"pretrained": folder.name}
        trained = points(run, "train") if data == "toy_relx" else []
        assert len(trained) == result.training.get("steps", 0)
        assert not (run.folder / "metrics.jsonl").exists() or not points(run, "pretrain"), (
            "nothing was pre-trained again"
        )
    assert stages(outputs, "pretrained") == [folder]
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_the_checkpoint_is_a_folder_that_transformers_loads(made: Any, outputs: Path) -> None:
    import torch
    from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

    folder = stage(outputs, "pretrained")
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(contents(folder))
    assert not list(folder.glob("checkpoints*"))
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model, told = AutoModelForMaskedLM.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"]
    batch = tokenizer(f"a {tokenizer.mask_token} b", return_tensors="pt")
    assert batch["input_ids"].tolist()[0].count(tokenizer.mask_token_id) == 1
    with torch.no_grad():
        logits = model.eval()(**{name: batch[name] for name in ("input_ids", "attention_mask")}).logits
    assert logits.shape[-1] == len(tokenizer) and torch.isfinite(logits).all()
    encoder, told = AutoModel.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    # BERT's pooler belongs to the sentence pairs of its first training: masked language models have none
    assert {name.partition(".")[0] for name in told["missing_keys"]} <= {"pooler"}
    with torch.no_grad():
        states = encoder.eval()(**{name: batch[name] for name in ("input_ids", "attention_mask")}).last_hidden_state
        ours = model.base_model(**{name: batch[name] for name in ("input_ids", "attention_mask")}).last_hidden_state
    assert torch.equal(states, ours)


def test_the_checkpoint_is_a_backbone(made: Any, outputs: Path) -> None:
    folder = stage(outputs, "pretrained")
    words = ["data=toy_xlr", "method=finetune", *SMALL_GRAPH, *QUICK, "backbone=tiny_multi", f"backbone.path={folder}"]
    run, _ = in_process([*words, "backbone.dropout=0.1"], outputs)
    kmlm_run, _ = made
    assert (run.folder / "predictions.jsonl").read_bytes() == (kmlm_run.folder / "predictions.jsonl").read_bytes()


def test_plain_text_is_learned_too_and_then_at_length(outputs: Path) -> None:
    words = ["data=toy_relx", *KMLM, *QUICK, *plain_text(outputs / "text"), "method.long_steps=2"]
    run, result = in_process(words, outputs)
    assert list(result.stages) == ["pretrained", "pretrained_long"]
    curve = points(run, "pretrain")
    assert {name for name in curve[0] if name.startswith("loss/")} == {
        "loss/plain",
        "loss/code_switched",
        "loss/reasoning",
    }
    assert [point["step"] for point in points(run, "pretrain_long")] == [1, 2]
    first, second = (
        load_file(outputs / "stages" / name / key / "model.safetensors") for name, key in result.stages.items()
    )
    assert first.keys() == second.keys() and any((first[name] != second[name]).any() for name in first)
    # the second phase is what a run starts from; without it the first is shared
    shorter = [*words, "method.long_steps=0"]
    again, other = in_process(shorter, outputs)
    assert other.stages == {"pretrained": result.stages["pretrained"]} and not points(again, "pretrain")
    assert (again.folder / "predictions.jsonl").read_bytes() != (run.folder / "predictions.jsonl").read_bytes()


# XLM-R.


@pytest.fixture(scope="module")
def xlmr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an XLM-R of random weights and a Unigram tokenizer of single letters, special tokens as XLM-R's."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaForMaskedLM

    folder = tmp_path_factory.mktemp("xlmr")
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    letters = (
        "▁ abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,|'-?()<>/_àáâäãåçèéêëìíîïñòóôöõøùúûüýÿšžœæ"
    )
    pieces = [(letter, -4.0) for letter in letters] + [("▁the", -3.0), ("▁a", -3.5)]
    inner = Tokenizer(models.Unigram([(name, 0.0) for name in special] + pieces + [("<mask>", 0.0)], unk_id=3))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", cls_token="<s>", eos_token="</s>", sep_token="</s>",
        unk_token="<unk>", pad_token="<pad>", mask_token="<mask>", model_max_length=512,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=514, type_vocab_size=1, pad_token_id=1, bos_token_id=0,
        eos_token_id=2, **shape,
    )  # fmt: skip
    XLMRobertaForMaskedLM(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("data", ["toy_relx", "toy_xlr"])
def test_it_pretrains_and_fine_tunes_xlmr(data: str, xlmr: Path, outputs: Path) -> None:
    from transformers import AutoModelForMaskedLM

    words = [f"data={data}", "method=kmlm", *SMALL_GRAPH, *PRETRAIN, *QUICK, "data.max_length=128"]
    _, result = in_process([*words, "backbone=xlmr_base", f"backbone.path={xlmr}"], outputs)
    folder = outputs / "stages" / "pretrained" / result.stages["pretrained"]
    model, told = AutoModelForMaskedLM.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    assert type(model).__name__ == "XLMRobertaForMaskedLM" and not told["missing_keys"]
    before = load_file(xlmr / "model.safetensors")
    after = load_file(folder / "model.safetensors")
    assert before.keys() == after.keys() and any((before[name] != after[name]).any() for name in before)
    assert 0 <= result.metrics["test"]["accuracy"] <= 1 and "xlmr_base" in result.setting.backbone
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["key"] == result.stages["pretrained"]


# Languages.


def test_predictions_say_their_language_and_metrics_are_those_of_each(made: Any) -> None:
    run, result = made
    lines = [json.loads(line) for line in (run.folder / "predictions.jsonl").read_text().splitlines()]
    assert [line["lang"] for line in lines] == [lang for lang in ("en", "xa", "xb", "xc") for _ in range(24)]
    rows = np.array([line["row"] for line in lines]).reshape(4, 24)
    assert (rows == rows[0]).all(), "the same questions in every language"
    assert len({line["context"] for line in lines}) > 48, "in other words"
    metrics = result.metrics["test"]
    assert list(metrics) == ["accuracy", *(f"accuracy/{lang}" for lang in ("en", "xa", "xb", "xc"))]
    for lang in ("en", "xa", "xb", "xc"):
        right = [line["predicted"] == line["gold"] for line in lines if line["lang"] == lang]
        assert metrics[f"accuracy/{lang}"] == pytest.approx(np.mean(right))
    assert metrics["accuracy"] == pytest.approx(
        np.mean([metrics[f"accuracy/{one}"] for one in ("en", "xa", "xb", "xc")])
    )


# What a run is.

ANOTHER = {
    "knowledge.seed=2": True,
    "knowledge.cycles.multi=first": True,
    "knowledge.languages=[en,xa]": True,
    "method.alpha=0.5": True,
    "method.pretrain_seed=2": True,
    "method.linkers=compat": True,
    "pretrain.lr=5e-4": True,
    "pretrain.max_steps=7": True,
    # machinery
    "knowledge.path=/elsewhere": False,
    "knowledge.folder=elsewhere": False,
    "knowledge.text.path=/elsewhere": False,
    "knowledge.licence=another": False,
}


@pytest.mark.parametrize(("word", "differs"), ANOTHER.items())
def test_what_decides_the_knowledge_decides_what_a_run_is(word: str, differs: bool) -> None:
    base = ["method=kmlm", "data=toy"]
    assert (config_hash(compose([*base, word])) != config_hash(compose(base))) is differs
    if not word.startswith("method."):
        plain = ["method=finetune", "data=toy"]
        assert config_hash(compose([*plain, word])) == config_hash(compose(plain)), "it reads none of this"


def test_questions_of_the_graph_make_its_knowledge_part_of_every_run() -> None:
    base = ["method=finetune", "data=toy_xlr"]
    assert config_hash(compose([*base, "knowledge.seed=2"])) != config_hash(compose(base))
    assert config_hash(compose([*base, "pretrain.lr=5e-4"])) == config_hash(compose(base))
