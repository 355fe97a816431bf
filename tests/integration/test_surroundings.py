"""No network, other folders, an installed wheel, trackers, a kept model."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import zipfile

import pytest

from kbench.errors import UserError

from ..conftest import QUICK, REPOSITORY, command, in_process


def test_a_run_opens_no_connection(tmp_path, monkeypatch):
    """With every connection refused a run succeeds, and an absent hub model is a message at once."""

    def refuse(*arguments, **more):
        raise AssertionError("a run asked for the network")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    _, result = in_process(["method=finetune", *QUICK], tmp_path)
    assert result.metrics["test"]["accuracy"] >= 0
    with pytest.raises(UserError, match="kbench fetch backbone=bert_base"):
        in_process(["method=finetune", *QUICK, "backbone=bert_base"], tmp_path)


def test_a_kept_model_is_a_plain_transformers_folder_with_the_same_predictions(tmp_path):
    import numpy as np
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    run, _ = in_process(["method=finetune", *QUICK, "keep_model=true"], tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(run.folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(run.folder / "model")
    rows = [json.loads(line) for line in (run.folder / "predictions.jsonl").read_text().splitlines()][:8]
    with torch.no_grad():
        for row in rows:
            inputs = tokenizer(row["text"], return_tensors="pt", truncation=True, max_length=64)
            logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[0]
            np.testing.assert_allclose(logits.numpy(), row["scores"], atol=1e-4)
            assert model.config.id2label[int(logits.argmax())] == row["predicted"]
    assert not (run.folder / "checkpoints").exists()


def test_a_head_is_fresh_even_where_the_folder_has_one(tmp_path):
    """A kept model serves as a backbone: its encoder is taken, its head is not, whatever its number of classes."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from kbench.backbones.load import load_model

    run, _ = in_process(["method=finetune", *QUICK, "keep_model=true"], tmp_path)
    folder = run.folder / "model"
    trained = AutoModelForSequenceClassification.from_pretrained(folder)
    for classes in (6, 3):
        first, again, other = (
            load_model(folder, AutoModelForSequenceClassification, classes=classes, seed=seed) for seed in (1, 1, 2)
        )
        for name, weight in trained.bert.state_dict().items():
            assert torch.equal(first.bert.state_dict()[name], weight)
        assert first.classifier.weight.shape[0] == classes
        assert torch.equal(first.classifier.weight, again.classifier.weight)
        assert not torch.equal(first.classifier.weight, other.classifier.weight)
        assert classes != 6 or not torch.equal(first.classifier.weight, trained.classifier.weight)


def test_a_tokenizer_setting_is_part_of_a_folders_identity(tmp_path):
    from kbench.backbones.locate import locate

    run, _ = in_process(["method=finetune", *QUICK, "keep_model=true"], tmp_path)
    run.config.backbone.path = str(run.folder / "model")
    before = locate(run.config.backbone).identity
    settings = run.folder / "model" / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace("{", '{"do_lower_case": false,', 1))
    assert locate(run.config.backbone).identity != before


def test_a_model_is_kept_when_asked_for_later(tmp_path):
    words = ["method=finetune", *QUICK]
    assert command(words, tmp_path).returncode == 0
    assert command([*words, "keep_model=true"], tmp_path).returncode == 0
    assert list(tmp_path.glob("outputs/finetune/toy/tiny/*/s1/model/model.safetensors"))
    assert "already" in command([*words, "keep_model=true"], tmp_path).stdout


def test_wandb_offline_and_tensorboard_mirror_the_log(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = ["method=finetune", *QUICK, "tracker=wandb", "tracker.names=[wandb,tensorboard]"]
    done = command(words, tmp_path, WANDB_API_KEY="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is off" not in done.stdout
    (folder,) = tmp_path.glob("outputs/finetune/toy/tiny/*/s1")
    (record,) = folder.glob("wandb/offline-run-*/*.wandb")
    raw = record.read_bytes()
    assert b"train/loss" in raw and b"test/accuracy" in raw
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    curve = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = {point["step"]: point["loss"] for point in curve if "loss" in point}
    mirrored = {event.step: event.value for event in events.Scalars("train/loss")}
    assert mirrored == pytest.approx(losses, rel=1e-6)


def test_a_tracker_that_fails_does_not_stop_the_run(tmp_path):
    (tmp_path / "wandb.py").write_text("raise RuntimeError('no such thing')\n")
    words = ["method=finetune", *QUICK, "tracker=wandb"]
    done = command(words, tmp_path, PYTHONPATH=os.pathsep.join([str(tmp_path), str(REPOSITORY)]))
    assert done.returncode == 0, done.stderr
    assert "tracker wandb cannot start and is off" in done.stdout


def test_an_installed_wheel_works_outside_the_repository(tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    made = subprocess.run([*build, str(REPOSITORY)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    (wheel,) = tmp_path.glob("*.whl")
    place = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def kbench(*words: str) -> str:
        done = command(list(words), elsewhere, PYTHONPATH=str(place))
        assert done.returncode == 0, done.stderr
        return done.stdout

    code = "import kbench, kbench.conf; print(kbench.__file__, kbench.conf.__file__)"
    where = subprocess.run(
        [sys.executable, "-c", code],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert where.count(str(place)) == 2
    assert "agnews" in kbench("ls", "data")
    assert "muki/table1" in kbench("ls", "tables")
    assert "tau: 0.2" in kbench("method=muki", "data=toy", "--cfg", "job")
    assert "files    outputs/finetune" in kbench("method=finetune", *QUICK)


def test_launchers_of_hydra_work(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["-m", "method=finetune,ensemble", *QUICK, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = command(words, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(tmp_path.glob("outputs/*/toy/tiny/*/s1/result.json"))) == 2
