"""The hub's cache as `kbench fetch` leaves it: read without network, the same rows as from the original files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import BertConfig, BertForMaskedLM

from kbench.config.compose import compose

from ..conftest import command

ROWS = [(i % 4, f"Title {i}", f'A "quoted" text, number {i}\\with a break') for i in range(48)]


def hub(home: Path, kind: str, identity: str, revision: str) -> Path:
    folder = home / "hub" / f"{kind}s--{identity.replace('/', '--')}" / "snapshots" / revision
    folder.mkdir(parents=True)
    return folder


def test_a_fetched_data_set_and_backbone_need_no_network_and_give_the_same_rows_as_files(tmp_path):
    config = compose(["method=finetune", "data=agnews"])
    home = tmp_path / "home"
    data = hub(home, "dataset", config.data.hub.id, config.data.hub.revision) / "data"
    data.mkdir()
    table = pa.table({"text": [f"{title} {text}" for _, title, text in ROWS], "label": [label for label, _, _ in ROWS]})
    for split in ("train", "test"):
        pq.write_table(table, data / f"{split}-00000-of-00001.parquet")
    model = hub(home, "model", config.backbone.hub.id, config.backbone.hub.revision)
    words = [f"w{i}" for i in range(120)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (model / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    shape = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    torch.manual_seed(0)
    BertForMaskedLM(shape).save_pretrained(model)  # a pre-trained encoder has another head

    files = tmp_path / "files"
    files.mkdir()
    for split in ("train", "test"):
        with (files / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
            writer.writerows([str(label + 1), title, text] for label, title, text in ROWS)

    results = {}
    for name, more in {"hub": [], "files": [f"data.path={files}"]}.items():
        done = command(
            ["method=finetune", "data=agnews", "train.max_steps=2", f"outputs={tmp_path / name}", *more],
            tmp_path,
            HF_HOME=str(home),
        )
        assert done.returncode == 0, done.stderr
        (path,) = (tmp_path / name).glob("finetune/agnews/bert_base/*/s1/result.json")
        results[name] = json.loads(path.read_text())
    assert results["hub"]["setting"]["source"].startswith("hub: fancyzhx/ag_news@")
    assert results["files"]["setting"]["source"].startswith("files: ")
    for field in ("hashes", "metrics", "key", "diagnostics"):
        assert results["hub"][field] == results["files"][field], field


def test_a_fetched_repository_without_safetensors_is_refused_with_the_way_out(tmp_path):
    config = compose(["method=finetune", "data=agnews"])
    folder = hub(tmp_path / "home", "model", config.backbone.hub.id, config.backbone.hub.revision)
    (folder / "config.json").write_text("{}")
    done = command(["method=finetune", "data=toy", "backbone=bert_base"], tmp_path, HF_HOME=str(tmp_path / "home"))
    assert done.returncode == 2
    assert "holds no model.safetensors" in done.stderr and "Traceback" not in done.stderr
