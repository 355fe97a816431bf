"""TRELM and its baselines on the toy world: every mode runs, ends in the same bits however it is cut, and is plain."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM

from kbench.data import toy_graph
from kbench.engine import loop
from kbench.errors import InterruptedRunError, UserError
from kbench.methods.curve import read
from kbench.methods.linked_pretraining import SNAPSHOTS

from ..conftest import LINKED, QUICK, in_process

PROBE = "toy_lama"
MODES = ("off", "literal", "amortised", "in_backward", "random", "magnitude")
TERMS = {"trelm": {"loss/knowledge", "loss/words"}, "dkplm": {"loss/knowledge", "loss/words"}, "mlm": {"loss/words"}}


def checkpoint(run, result) -> Path:
    return Path(run.config.outputs) / "stages/pretrained" / result.stages["pretrained"]


def weights(run, result) -> bytes:
    return (checkpoint(run, result) / "model.safetensors").read_bytes()


def curve(run) -> list[dict]:
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["scope"] == "pretrain" and "loss" in line]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_trains_and_says_what_it_did(mode, toy, tmp_path):
    run, _ = toy("method=trelm", f"method.routing.mode={mode}", data=PROBE, outputs=tmp_path)
    points = curve(run)
    assert [point["step"] for point in points] == [1, 2, 3, 4]
    for point in points:
        assert {name for name in point if name.startswith("loss/")} == TERMS["trelm"]
        assert all(math.isfinite(value) for value in point.values() if isinstance(value, float))
        assert point["operations"] > 0 and point["tokens"] > 0
        assert ("path/neurons" in point) == (mode != "off")
        if mode != "off":
            assert point["path/neurons"] == round(0.1 * 2 * 256) or mode == "in_backward"
            assert point["path/layer_0"] + point["path/layer_1"] == pytest.approx(1)
    operations = [point["operations"] for point in points]
    assert operations == sorted(operations)


def test_only_the_path_and_the_head_learn(toy, tmp_path):
    """With one path for all steps: rows off it, attention, norms and embeddings keep their bits."""
    words = ["method=trelm", "method.routing.every=100", "pretrain.weight_decay=0.1"]
    run, result = toy(*words, data=PROBE, outputs=tmp_path)
    after = load_file(checkpoint(run, result) / "model.safetensors")
    from kbench.backbones.load import load_masked_lm
    from kbench.engine.seeding import derive

    start = next((tmp_path / "stages/tiny").iterdir())
    seed = derive(derive(run.config.method.pretrain_seed, "pretrain"), "model")
    before = load_masked_lm(start, seed=seed).state_dict()
    moved = 0
    for name, tensor in after.items():
        same = torch.equal(tensor, before[name])
        if name.endswith(("intermediate.dense.weight", "intermediate.dense.bias")):
            moved += (
                int((tensor != before[name]).flatten(1 if tensor.ndim > 1 else 0).any(-1).sum())
                if tensor.ndim > 1
                else 0
            )
        elif name.startswith("cls.predictions") or name.endswith("output.dense.weight"):
            continue
        else:
            assert same, name
    assert moved == round(0.1 * 2 * 256)
    assert not torch.equal(
        after["cls.predictions.transform.dense.weight"], before["cls.predictions.transform.dense.weight"]
    )


@pytest.mark.parametrize("method", ["trelm", "dkplm", "mlm"])
def test_the_checkpoint_is_a_plain_model(method, toy, tmp_path):
    words = [] if method != "mlm" else ["knowledge.text.path=null"]
    run, result = toy(f"method={method}", *words, *(LINKED[:-2] if words else []), data=PROBE, outputs=tmp_path)
    folder = checkpoint(run, result)
    _, info = AutoModelForMaskedLM.from_pretrained(str(folder), output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    left = {path.name for path in folder.iterdir()}
    assert not left & {"checkpoints", "bank"} and "curve.jsonl" in left
    assert {name for point in curve(run) for name in point if name.startswith("loss/")} == TERMS[method]
    assert [point["step"] for point in read(folder)] == [1, 2, 3, 4]


OPTIONS = {
    "amortised": [],
    "in_backward": ["method.routing.mode=in_backward"],
    "relation": ["method.routing.scope=relation"],
    "mapped": ["method.memory.store=mapped"],
    "per_epoch": [
        "method.memory.global_mean=per_epoch",
        "pretrain.global_batch_size=32",
        "knowledge.corpus.documents=20",
    ],
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_stopped_pretraining_ends_in_the_same_bits(name, toy, tmp_path, monkeypatch):
    words = ["method=trelm", *OPTIONS[name], "pretrain.max_steps=8"]
    run, whole = toy(*words, data=PROBE, outputs=tmp_path / "whole")
    stop, own, logged = threading.Event(), loop._read, []

    def stop_in_fifth(*arguments):
        logged.append(0)
        if len(logged) == 5:
            stop.set()
        return own(*arguments)

    monkeypatch.setattr(loop, "_read", stop_in_fifth)
    with pytest.raises(InterruptedRunError, match="after step"):
        toy(*words, data=PROBE, outputs=tmp_path / "cut", stop=stop)
    monkeypatch.setattr(loop, "_read", own)
    again, resumed = toy(*words, data=PROBE, outputs=tmp_path / "cut")
    assert weights(again, resumed) == weights(run, whole)
    same = ("loss", "operations", "tokens", "memory_share")
    points = [[{name: point[name] for name in same} for point in curve(one)] for one in (run, again)]
    assert points[0] == points[1]


def test_micro_batches_change_nothing_but_rounding(toy, tmp_path):
    found = []
    for micro in (8, 2):
        words = ["method=trelm", "backbone.dropout=0", "method.routing.scaling=joint"]
        run, _ = toy(*words, data=PROBE, outputs=tmp_path / str(micro), micro_batch_size=micro)
        found.append([point["loss"] for point in curve(run)])
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def test_where_memory_is_kept_changes_no_bit(toy, tmp_path):
    """`memory.store` is no part of what a checkpoint is."""
    made = {}
    for store in ("rows", "sharded", "mapped"):
        run, result = toy("method=trelm", f"method.memory.store={store}", data=PROBE, outputs=tmp_path / store)
        made[store] = result.stages, weights(run, result), [point["loss"] for point in curve(run)]
    assert made["rows"] == made["sharded"] == made["mapped"]


def test_a_part_of_the_training_is_evaluated_without_another_training(toy, tmp_path):
    words = ["method=trelm", "method.snapshots=[0.5]"]
    run, whole = toy(*words, data=PROBE, outputs=tmp_path)
    half_run, half = toy(*words, "method.part=0.5", data=PROBE, outputs=tmp_path)
    assert half.stages == whole.stages and half_run.folder != run.folder
    folder = checkpoint(run, whole)
    assert (folder / SNAPSHOTS / "0.5" / "model.safetensors").read_bytes() != weights(run, whole)
    assert not (half_run.folder / "metrics.jsonl").exists() or not curve(half_run)


def test_switches_of_pretraining_change_the_checkpoint(toy, tmp_path):
    switches = {
        "base": [], "theta": ["method.theta=0.8"], "all": ["method.select.rule=all"],
        "no_injection": ["method.inject.enabled=false"], "no_memory": ["method.memory.initial=0"],
        "path": ["method.routing.granularity=path"], "self": ["method.cka.target=self"],
        "sum": ["method.inject.level=sum"], "masked_grad": ["method.routing.optimizer=masked_grad"],
        "cut": ["method.routing.layers=upper_half", "method.inject.share_projection=true"],
        "layernorm": ["method.memory.scale=layernorm"], "fraction": ["method.memory.unit=fraction"],
        "partner": ["method.inject.triple=partner_in_text"], "one_step": ["method.cka.decoder=one_step"],
        "exclude": ["method.inject.exclude=probe"],
    }  # fmt: skip
    found = {}
    for name, words in switches.items():
        run, result = toy("method=trelm", *words, data=PROBE, outputs=tmp_path)
        found[name] = weights(run, result)
    names = list(found)
    twins = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if found[a] == found[b]]
    assert not twins


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["method.routing.mode=sideways"], "sideways"),
        (["method.cka.sampler=unigam"], "method.cka.sampler"),
        (["method.part=0.3"], "no model is kept at 0.3"),
        (["method.theta=2"], "method.theta"),
        (["method.inject.exclude=probe"], "what would be left out"),
    ],
)
def test_a_mistake_is_one_message(words, says, tmp_path):
    with pytest.raises(UserError) as caught:
        in_process(["method=trelm", *LINKED, *QUICK, *words], tmp_path)
    assert says in str(caught.value)


def test_a_graph_without_linked_text_is_one_message(tmp_path):
    with pytest.raises(UserError, match=r"knowledge=toy.*has no text with linked mentions"):
        in_process(["method=trelm", *QUICK, "knowledge.corpus=null"], tmp_path)


def lama_folder(folder: Path) -> Path:
    """Facts of the toy graph as LAMA's own files: T-REx's citizens and fields of work."""
    triples, names = toy_graph.generate()
    labels = {number: text for relation, number, rank, text in names["en"] if not relation and rank == 0}
    (folder / "TREx").mkdir(parents=True)
    asked = {"P27": (toy_graph.CITIZEN, "[X] is a citizen of [Y] ."), "P101": (toy_graph.FIELD, "[X] works in [Y] .")}
    templates = [{"relation": name, "template": text, "type": "N-1"} for name, (_, text) in asked.items()]
    (folder / "relations.jsonl").write_text("".join(json.dumps(one) + "\n" for one in templates))
    for name, (number, _) in asked.items():
        facts = [(head, tail) for head, relation, tail in triples if relation == number][:40]
        rows = [
            {"obj_uri": f"Q{tail}", "obj_label": labels[tail], "sub_uri": f"Q{head}", "sub_label": labels[head],
             "predicate_id": name, "uuid": f"{name}-{head}-{tail}", "evidences": []}
            for head, tail in facts
        ]  # fmt: skip
        (folder / "TREx" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_lamas_own_files_are_asked_of_a_model_that_was_told_them(tmp_path):
    folder = lama_folder(tmp_path / "lama")
    words = ["method=trelm", "data=lama", "backbone=tiny", "knowledge=toy", f"data.path={folder}", *LINKED]
    run, result = in_process([*words, "data.metrics=[t_rex,uhn_t_rex]", "log_every=1"], tmp_path)
    assert set(result.metrics["test"]) == {"t_rex", "uhn_t_rex"}
    assert result.diagnostics["kept"] <= result.diagnostics["of"] == 80
    assert result.diagnostics["leak/t_rex"] == 1.0 and len(curve(run)) == 4
