"""What a user reads after a mistake: one clear message, exit code 2, no traceback, nothing half made."""

from __future__ import annotations

import json

import pytest

from kbench.registry import choices

from ..conftest import QUICK, command

FINETUNE = ["method=finetune", *QUICK]


def refused(words, tmp_path, code=2, **environment):
    done = command(words, tmp_path, **environment)
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stderr


def test_two_mistakes_at_once(tmp_path):
    assert refused(["method=muky", "data=toy", "train.lrr=1"], tmp_path) == (
        "error: 2 problems in the configuration\n"
        "  method=muky  no such method; did you mean muki?\n"
        f"               there are: {', '.join(choices('method'))}\n"
        "  train.lrr    no such key; did you mean train.lr?\n"
        "               kbench --cfg job shows all\n"
    )
    assert not list(tmp_path.iterdir()), "nothing may be made"


def test_an_unknown_verb(tmp_path):
    assert refused(["reprduce", "muki/table1"], tmp_path) == (
        "error: no such verb: reprduce; did you mean reproduce?\n"
        "  verbs: reproduce, report, ls, show, build, export, fetch, doctor; "
        "a run is written GROUP=CHOICE, such as method=muki\n"
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["show", "method", "muky"], "no such method; did you mean muki?"),
        (["reproduce", "muki/table9"], "no such table; did you mean muki/table"),
        (["reproduce", "muki/table1", "data=toy", "--rows", "muki"], "no such row"),
        (["reproduce", "muki/table1", "data=toy", "train.lrr=1"], "no such key; did you mean train.lr?"),
        (["fetch", "data=agnew"], "no such data set; did you mean agnews?"),
        (["fetch", "agnews"], "write data=NAME or backbone=NAME"),
        (["method=finetune", "data=toy", "backbone.path=nowhere"], "there is no folder nowhere"),
        (["method=finetune", "data=agnews", "backbone=tiny", "data.path=nowhere"], "there is no folder nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_other_mistakes(words, expected, tmp_path):
    assert expected in refused(words, tmp_path)


def test_texts_longer_than_the_backbone_are_refused(tmp_path):
    from transformers import BertConfig, BertModel

    model = tmp_path / "model"
    BertModel(
        BertConfig(vocab_size=120, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    ).save_pretrained(model)
    (model / "vocab.txt").write_text("a\n")
    words = ["method=finetune", "data=toy", f"backbone.path={model}", "data.max_length=600"]
    # tiny's own positions are not those of the folder
    assert "data.max_length" in refused(words, tmp_path)


def test_a_backbone_whose_config_is_no_json_is_named(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name, text in {"config.json": "{half", "vocab.txt": "a", "model.safetensors": "x"}.items():
        (folder / name).write_text(text)
    assert "config.json  is no configuration" in refused(
        ["method=finetune", "data=toy", f"backbone.path={folder}"], tmp_path
    )


def test_absent_data_and_backbone_are_named_together_with_the_way_out(tmp_path):
    text = refused(["method=finetune", "data=agnews", "backbone=bert_base"], tmp_path, HF_HOME=str(tmp_path / "hub"))
    assert "kbench fetch backbone=bert_base" in text and "kbench fetch data=agnews" in text
    assert "data.path=FOLDER" in text and "backbone=minilm" in text


def test_a_folder_of_weights_that_are_pickles_is_refused(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "vocab.txt").write_text("a")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    text = refused(["method=finetune", "data=toy", f"backbone.path={folder}"], tmp_path)
    assert "no model.safetensors" in text and "pickle" in text


def agnews(tmp_path, train: bytes, test: bytes = b'"1","t","d"\n'):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "train.csv").write_bytes(train)
    (folder / "test.csv").write_bytes(test)
    return ["method=finetune", "data=agnews", "backbone=tiny", f"data.path={folder}"]


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        (b"", "train.csv  is empty"),
        (b'"1","title","text"\n"2","title"\n', "train.csv, line 2  has 2 columns"),
        (b'"1","title","text"\n"9","title","text"\n', "train.csv, line 2  unknown label '9'"),
        ('"1","title","text"\n"1","café","text"\n'.encode("latin-1"), "train.csv, line 2  is not UTF-8 (byte 0xe9)"),
    ],
    ids=["empty", "columns", "label", "encoding"],
)
def test_broken_files_are_named_with_their_line(train, expected, tmp_path):
    text = refused(agnews(tmp_path, train), tmp_path)
    assert expected in text
    records = tmp_path / "outputs" / "stages" / "records"
    assert not [p for p in records.iterdir() if p.is_dir() and p.suffix != ".work"], "nothing may be published"


def test_many_broken_rows_are_five_lines(tmp_path):
    text = refused(agnews(tmp_path, b'"9","title","text"\n' * 500, b'"8","t","d"\n' * 500), tmp_path)
    assert text.startswith("error: 5 problems\n") and len(text.splitlines()) < 20


def test_a_broken_yaml_of_ones_own_is_named_with_its_line(tmp_path):
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "broken.yaml").write_text("name: broken\nlabels: [a, b\nmetrics: x\n")
    text = refused(["--config-dir", "mine", "method=finetune", "data=broken"], tmp_path)
    assert "broken.yaml, line 3" in text


def test_a_diverging_run_says_so_and_fails(tmp_path):
    words = [*FINETUNE, "train.lr=1e30", "train.clip=0", "train.warmup=0", "data.train_size=48"]
    text = refused(words, tmp_path, code=1)
    assert "is no longer a number" in text and "lower learning rate" in text
    (status,) = tmp_path.rglob("status.json")
    assert json.loads(status.read_text())["state"] == "diverged"
    assert not list(tmp_path.rglob("result.json"))


def test_a_full_disk_publishes_nothing_and_the_same_command_continues(tmp_path):
    """Files may not grow beyond 300 kB: the teacher's weights do not fit, the rest does."""
    import resource
    import subprocess
    import sys

    words = [sys.executable, "-m", "kbench", "method=teacher", *QUICK]
    limited = subprocess.run(
        words,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)),
    )
    assert limited.returncode == 1, limited.stdout + limited.stderr
    assert "the disk is full" in limited.stderr and "Traceback" not in limited.stderr
    teachers = tmp_path / "outputs" / "stages" / "teacher"
    assert not [p for p in teachers.iterdir() if p.is_dir() and p.suffix != ".work"]
    assert command(words[3:], tmp_path).returncode == 0
