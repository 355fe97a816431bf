"""Finished models as teachers: the same results as from training them here, names that are matched, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kbench.cli.main import main
from kbench.config.compose import compose
from kbench.errors import UserError
from kbench.methods.teachers import match_outputs
from kbench.runs.prepare import STAGES, prepare
from kbench.runs.stored import stored_method

from ..conftest import QUICK, command, small_bert

SCORES = "keep_scores=[test]"
LABELS = [["rivers", "bridges", "harbours"], ["gardens", "orchards", "meadows"]]


def teachers_of(run: Any) -> list[Path]:
    """The folders of the teachers that a run trained."""
    method: Any = stored_method(run)
    stages = [method.teachers.teacher(i) for i in range(len(method.teachers))]
    return [Path(run.config.outputs) / STAGES / stage.name / stage.key for stage in stages]


@pytest.fixture(scope="module")
def trained(toy: Callable) -> list[Path]:
    """Two teachers of the toy data, three classes each."""
    return teachers_of(toy("method=ensemble")[0])


@pytest.fixture(scope="module")
def taggers(toy: Callable) -> list[Path]:
    """Two teachers of the toy sentences, two types each; they were trained until they say more than O."""
    return teachers_of(toy("method=ensemble", *SURE, data="toy_entities")[0])


SURE = ["data.train_size=300", "teacher.epochs=8", "teacher.lr=3e-3"]


def given(*folders: Path) -> str:
    return f"method.models=[{','.join(map(str, folders))}]"


def copied(folder: Path, to: Path, names: list[str] | None = None, rows: list[int] | None = None) -> Path:
    """A copy of a model, with other names of its outputs, or with its outputs in another order."""
    shutil.copytree(folder, to)
    (to / "manifest.json").unlink(missing_ok=True)
    config = json.loads((to / "config.json").read_text())
    if rows is not None:
        names = names or [config["id2label"][str(row)] for row in rows]
        weights = load_file(to / "model.safetensors")
        for name in ("classifier.weight", "classifier.bias"):
            weights[name] = weights[name][rows].contiguous()
        save_file(weights, to / "model.safetensors", {"format": "pt"})
    if names is not None:
        config["id2label"] = {str(index): name for index, name in enumerate(names)}
        config["label2id"] = {name: index for index, name in enumerate(names)}
    (to / "config.json").write_text(json.dumps(config))
    return to


def scores(run: Any) -> np.ndarray:
    return np.load(run.scores("test"))


# What works.


@pytest.mark.parametrize("method", ["muki", "vanilla_kd", "uhc", "ensemble", "teacher", "dfa", "cfl"])
def test_finished_teachers_give_what_the_same_teachers_trained_here_give(
    method: str, trained: list[Path], toy: Callable
) -> None:
    here, ours = toy(f"method={method}", SCORES)
    there, theirs = toy(f"method={method}", SCORES, given(*trained))
    assert here.folder.parent != there.folder.parent
    assert np.array_equal(scores(here), scores(there))
    assert theirs.metrics == ours.metrics and theirs.diagnostics == ours.diagnostics
    assert theirs.training == ours.training
    assert "teacher" not in {stage.name for stage in stored_method(there).stages().values()}
    assert str(trained[0]) in theirs.setting.backbone


def test_nothing_is_trained_where_teachers_are_finished(trained: list[Path], toy: Callable, tmp_path: Path) -> None:
    run, _ = toy("method=muki", given(*trained), outputs=tmp_path)
    made = {path.name for path in (tmp_path / STAGES).iterdir()}
    assert made == {"records", "tiny", "encoded", "teacher_logits", "teacher_samples"}
    scopes = {json.loads(line)["scope"] for line in (run.folder / "metrics.jsonl").read_text().splitlines()}
    assert scopes == {"student"}


def test_names_are_matched_though_case_and_punctuation_differ(
    trained: list[Path], toy: Callable, tmp_path: Path
) -> None:
    first = copied(trained[0], tmp_path / "a", ["RIVERS", "Bridges!", "har-bours"])
    second = copied(trained[1], tmp_path / "b", ["Gardens", "orchards ", "_meadows"])
    base, _ = toy("method=ensemble", SCORES)
    run, _ = toy("method=ensemble", SCORES, given(first, second))
    assert np.array_equal(scores(base), scores(run))
    # the other way round it is the same: names say where an output belongs
    swapped, _ = toy("method=ensemble", SCORES, given(second, first))
    assert np.array_equal(scores(base), scores(swapped))
    assert swapped.key != run.key


def test_names_may_be_those_of_the_files() -> None:
    data = compose(["method=uhc", "data=agnews"]).data
    assert match_outputs(["4", "1"], data, "", None) == ([3, 0], [])
    assert match_outputs(["sci_tech", "WORLD", "2"], data, "", None) == ([3, 0, 1], [])
    chinese = compose(["method=uhc", "data=thucnews"]).data
    names = list(reversed(chinese.source_labels))
    assert match_outputs(names, chinese, "", None) == (list(range(9, -1, -1)), [])


# dropout masks are drawn anew for each set of outputs, so the order does matter to their samples
METHODS = ["method=ensemble", "method=vanilla_kd", "method=uhc", "method=muki method.mc.mode=deterministic"]


def test_outputs_may_stand_in_any_order(trained: list[Path], toy: Callable, tmp_path: Path) -> None:
    first = copied(trained[0], tmp_path / "a", rows=[2, 0, 1])
    for words in map(str.split, METHODS):
        base, ours = toy(*words, SCORES)
        run, theirs = toy(*words, SCORES, given(first, trained[1]))
        assert scores(run) == pytest.approx(scores(base), abs=1e-4)
        assert theirs.diagnostics == pytest.approx(ours.diagnostics, abs=1e-4)


def test_a_split_names_outputs_that_have_no_names(trained: list[Path], toy: Callable, tmp_path: Path) -> None:
    names = ["LABEL_0", "LABEL_1", "LABEL_2"]
    first, second = (copied(folder, tmp_path / folder.name, names) for folder in trained)
    split = f"method.split=[[{','.join(LABELS[0])}],[{','.join(LABELS[1])}]]"
    base, _ = toy("method=ensemble", SCORES)
    run, _ = toy("method=ensemble", SCORES, given(first, second), split)
    assert np.array_equal(scores(base), scores(run))
    # the split's order is the outputs' order
    turned = f"method.split=[[{','.join(LABELS[1])}],[{','.join(LABELS[0])}]]"
    run, _ = toy("method=ensemble", SCORES, given(second, first), turned)
    assert np.array_equal(scores(base), scores(run))


def test_a_split_names_the_outputs_of_a_model_that_has_no_names_at_all(
    trained: list[Path], toy: Callable, tmp_path: Path
) -> None:
    """transformers writes no id2label for two outputs of the default names."""
    first = copied(trained[0], tmp_path / "a", rows=[0, 1])
    config = json.loads((first / "config.json").read_text())
    del config["id2label"], config["label2id"]
    (first / "config.json").write_text(json.dumps(config))
    second = copied(trained[1], tmp_path / "b", [f"LABEL_{i}" for i in range(4)], rows=[0, 1, 2, 2])
    split = "method.split=[[rivers,bridges],[gardens,orchards,meadows,harbours]]"
    run, _ = toy("method=ensemble", given(first, second), split)
    assert run.done


def key(folders: list[Path], outputs: Path) -> str:
    return prepare(compose(["method=uhc", *QUICK, given(*folders), f"outputs={outputs}"])).key


def test_other_weights_or_names_have_another_key(trained: list[Path], tmp_path: Path) -> None:
    model = copied(trained[0], tmp_path / "a")
    found = [key([model, trained[1]], tmp_path / "out")]
    weights = load_file(model / "model.safetensors")
    weights["classifier.bias"] += 1
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    found.append(key([model, trained[1]], tmp_path / "out"))
    copied(trained[0], tmp_path / "b", rows=[2, 1, 0])
    shutil.copy(tmp_path / "b" / "config.json", model / "config.json")
    found.append(key([model, trained[1]], tmp_path / "out"))
    assert len(set(found)) == 3


def test_the_key_is_of_the_files_content_and_not_of_their_place(trained: list[Path], tmp_path: Path) -> None:
    here, there = (
        [copied(folder, tmp_path / place / str(i)) for i, folder in enumerate(trained)] for place in ("here", "there")
    )
    assert key(here, tmp_path / "out") == key(there, tmp_path / "out")


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """A classifier of the first three classes with a tokenizer of its own."""
    from transformers import AutoModelForSequenceClassification

    folder = small_bert(
        tmp_path / "encoder", [*"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "aeioubdgklmnprstvz")]
    )
    names = dict(enumerate(LABELS[0]))
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, id2label=names, label2id={name: index for index, name in names.items()}
    )
    model.save_pretrained(tmp_path / "stranger")
    for path in folder.glob("tokenizer*"):
        shutil.copy(path, tmp_path / "stranger")
    return tmp_path / "stranger"


def test_a_teacher_with_another_tokenizer_is_read_by_methods_of_logits(
    stranger: Path, trained: list[Path], toy: Callable
) -> None:
    run, result = toy("method=muki", given(stranger, trained[1]))
    method: Any = stored_method(run)
    z = method.logits("test")[0]
    assert z.shape == (48, 3) and np.std(np.array(z)) > 0
    # by hand, one text
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(stranger).eval()
    text = AutoTokenizer.from_pretrained(stranger)(method.bench.records.texts("test", 5, 6), return_tensors="pt")
    with torch.no_grad():
        logits = model(input_ids=text["input_ids"][:, :64], attention_mask=text["attention_mask"][:, :64]).logits
    if text["input_ids"].shape[1] <= 64:
        assert z[5] == pytest.approx(logits[0].numpy(), abs=1e-5)
    assert 0 <= result.diagnostics["teacher_1_accuracy_on_own_classes"] <= 1


@pytest.mark.parametrize("method", ["dfa", "cfl"])
def test_a_teacher_with_another_tokenizer_is_refused_by_methods_of_hidden_states(
    method: str, stranger: Path, trained: list[Path], toy: Callable
) -> None:
    with pytest.raises(UserError) as raised:
        toy(f"method={method}", given(trained[0], trained[1]), "backbone.tiny.vocabulary=300")
    assert "has another tokenizer than the student" in str(raised.value)
    with pytest.raises(UserError) as raised:
        toy(f"method={method}", given(stranger, trained[1]))
    (problem,) = raised.value.problems
    assert (problem.where, problem.what) == ("teacher 1", "has another tokenizer than the student")
    assert "muki" in problem.hint


def test_teachers_of_fewer_layers_than_the_student_are_refused_by_dfa(trained: list[Path], toy: Callable) -> None:
    with pytest.raises(UserError) as raised:
        toy("method=dfa", given(*trained), "backbone.tiny.layers=3")
    assert "has 2 layers, the student 3" in str(raised.value)


# Taggers.


@pytest.mark.parametrize("words", METHODS)
def test_taggers_whose_outputs_stand_in_another_order_give_the_same_predictions(
    words: str, taggers: list[Path], toy: Callable, tmp_path: Path
) -> None:
    last = [copied(folder, tmp_path / str(i), rows=[1, 2, 3, 4, 0]) for i, folder in enumerate(taggers)]
    turned = [copied(folder, tmp_path / f"t{i}", rows=[4, 1, 0, 3, 2]) for i, folder in enumerate(taggers)]
    base, _ = toy(*words.split(), SCORES, *SURE, data="toy_entities")
    expected = (base.folder / "predictions.jsonl").read_text()
    if words == "method=ensemble":
        assert '"B-' in "".join(line.split('"predicted"')[1] for line in expected.splitlines())
    for folders in (taggers, last, turned):
        run, _ = toy(*words.split(), SCORES, *SURE, given(*folders), data="toy_entities")
        assert scores(run) == pytest.approx(scores(base), abs=1e-3)
        assert (run.folder / "predictions.jsonl").read_text() == expected


def test_taggers_whose_outputs_stand_in_another_order_have_the_same_diagnostics(
    taggers: list[Path], toy: Callable, tmp_path: Path
) -> None:
    words = ["method=muki", "method.mc.mode=deterministic", *SURE]
    _, base = toy(*words, data="toy_entities")
    last = [copied(folder, tmp_path / str(i), rows=[1, 2, 3, 4, 0]) for i, folder in enumerate(taggers)]
    _, result = toy(*words, given(*last), data="toy_entities")
    assert result.diagnostics == pytest.approx(base.diagnostics, abs=1e-4)


def test_words_that_a_tagger_with_another_tokenizer_cuts_off_are_not_learnt_from(
    taggers: list[Path], toy: Callable, tmp_path: Path
) -> None:
    from transformers import AutoModelForTokenClassification

    letters = "abcdefghijklmnopqrstuvwxyz"  # a token for each letter: it reads a few words only
    folder = small_bert(tmp_path / "encoder", [*letters, *(f"##{letter}" for letter in letters)])
    names = dict(enumerate(["B-MISC", "I-MISC", "B-PER", "I-PER", "O"]))
    labels = {name: index for index, name in names.items()}
    AutoModelForTokenClassification.from_pretrained(folder, id2label=names, label2id=labels).save_pretrained(folder)
    run, result = toy("method=muki", *SURE, "data.max_length=24", given(folder, taggers[1]), data="toy_entities")
    method: Any = stored_method(run)
    unread = method.unread("train")
    own, theirs = (bench.encoded("train").starts < 0 for bench in (method.bench, method.teachers.benches[0]))
    assert np.array_equal(unread, theirs) and own.sum() < theirs.sum()
    assert (np.array(method.logits("train")[0])[unread] == 0).all()
    lessons = method.bench.lessons(np.arange(method.bench.records.rows("train")), {}, unread=unread)
    assert lessons.weights.sum() == (~unread).sum()
    assert all(np.isfinite(value) for value in result.diagnostics.values())


def test_tags_are_matched_by_their_names() -> None:
    data = compose(["method=uhc", "data=ontonotes5"]).data
    outputs = data.outputs()
    names = ["b-work of art", "I-WORK-OF-ART", "O", "B-law"]
    columns, problems = match_outputs(names, data, "", None)
    assert not problems
    assert [outputs[column] for column in columns] == ["B-WORK_OF_ART", "I-WORK_OF_ART", "O", "B-LAW"]


# What is refused.


@pytest.fixture
def refused(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, shared_outputs: Path) -> Callable:
    """A command that is refused before anything starts: exit code 2 and one message, which is given."""

    def never(*arguments: object) -> None:
        pytest.fail("a run was started")

    monkeypatch.setattr("kbench.cli.run.launch", never)

    def ask(*words: str, data: str = "toy") -> str:
        assert main([f"data={data}", *QUICK[1:], *words, f"outputs={shared_outputs}"]) == 2
        text = capsys.readouterr().err
        assert text.startswith("error: 1 problem") and "Traceback" not in text, text
        return text

    return ask


def test_classes_that_overlap(trained: list[Path], refused: Callable, tmp_path: Path) -> None:
    second = copied(trained[1], tmp_path / "b", ["gardens", "rivers", "meadows"])
    text = refused("method=muki", given(trained[0], second))
    assert "teacher 2" in text and "knows rivers, as teacher 1 does: labels must not overlap" in text
    second = copied(trained[1], tmp_path / "c", ["bridges", "rivers", "meadows"])
    assert "knows rivers, bridges, as teacher 1 does" in refused("method=muki", given(trained[0], second))


def test_an_unknown_label(trained: list[Path], refused: Callable, tmp_path: Path) -> None:
    second = copied(trained[1], tmp_path / "b", ["gardens", "orchard", "meadows"])
    text = refused("method=muki", given(trained[0], second))
    assert "knows orchard: no label of toy; did you mean orchards?" in text
    assert "labels: rivers, bridges, harbours, gardens, orchards, meadows" in text
    assert "method.split names a model's outputs in its order" in text
    second = copied(trained[1], tmp_path / "c", ["LABEL_0", "LABEL_1", "LABEL_2"])
    assert "knows LABEL_0, LABEL_1, LABEL_2: no label of toy" in refused("method=muki", given(trained[0], second))


def test_a_label_that_no_teacher_knows(trained: list[Path], refused: Callable, tmp_path: Path) -> None:
    second = copied(trained[1], tmp_path / "b", ["gardens", "meadows"])
    assert "no teacher knows orchards" in refused("method=muki", given(trained[0], second))


def test_a_label_that_stands_twice(trained: list[Path], refused: Callable, tmp_path: Path) -> None:
    second = copied(trained[1], tmp_path / "b", ["gardens", "Gardens", "meadows"])
    assert "names a label twice" in refused("method=muki", given(trained[0], second))


def test_a_model_that_names_no_labels(trained: list[Path], refused: Callable, tmp_path: Path) -> None:
    second = copied(trained[1], tmp_path / "b")
    config = json.loads((second / "config.json").read_text())
    del config["id2label"]
    (second / "config.json").write_text(json.dumps(config))
    # a classifier without names has the two that transformers takes for granted
    assert "knows LABEL_0, LABEL_1: no label of toy" in refused("method=muki", given(trained[0], second))
    (second / "config.json").write_text(json.dumps(config | {"architectures": ["BertModel"]}))
    text = refused("method=muki", given(trained[0], second))
    assert "config.json" in text and "names no labels (id2label)" in text


def test_a_split_that_contradicts_the_names(trained: list[Path], refused: Callable, toy: Callable) -> None:
    split = "method.split=[[rivers,bridges,gardens],[harbours,orchards,meadows]]"
    text = "\n".join(refused_all(given(*trained), split))
    assert "knows rivers, bridges, harbours; method.split says rivers, bridges, gardens" in text
    # in another order it says no more than the names do, and these decide
    base, _ = toy("method=ensemble", SCORES)
    split = "method.split=[[bridges,harbours,rivers],[gardens,orchards,meadows]]"
    run, _ = toy("method=ensemble", SCORES, given(*trained), split)
    assert np.array_equal(scores(base), scores(run))


def test_a_split_beside_finished_taggers(taggers: list[Path], refused: Callable) -> None:
    split = "method.split=[[PER,MISC],[ORG,LOC]]"
    assert "method.split  goes with teachers that are trained" in refused(
        "method=muki", given(*taggers), split, data="toy_entities"
    )


def test_a_model_whose_weights_are_a_pickle(trained: list[Path], refused: Callable, tmp_path: Path) -> None:
    second = copied(trained[1], tmp_path / "b")
    (second / "model.safetensors").rename(second / "pytorch_model.bin")
    text = refused("method=muki", given(trained[0], second))
    assert "holds no model.safetensors" in text and "is a pickle and is not read" in text
    assert str(second) in text


def test_a_teacher_of_one_label(trained: list[Path], refused: Callable, tmp_path: Path) -> None:
    first = copied(trained[0], tmp_path / "a", ["rivers"])
    second = copied(trained[1], tmp_path / "b", ["bridges", "harbours", "gardens", "orchards", "meadows"])
    text = refused("method=muki", given(first, second))
    assert "knows one label; its uncertainty needs two outputs at least" in text


def test_a_hub_model_that_is_not_on_this_machine(trained: list[Path], refused: Callable) -> None:
    text = refused("method=muki", given(trained[0], Path("someone/some-model")))
    assert "someone/some-model is not in the hub's cache on this machine" in text
    text = refused("method=muki", f"method.models=[{trained[0]},'someone/some-model@v2']")
    assert "someone/some-model" in text


@pytest.mark.parametrize("word", ["nowhere", "no/such/folder", "berd_base"])
def test_a_word_that_is_no_model(word: str, trained: list[Path], refused: Callable) -> None:
    text = refused("method=muki", given(trained[0], Path(word)))
    assert f"{word} is no folder, no hub id and no name in conf/backbone" in text and "method.models" in text


def test_a_backbone_that_has_learned_nothing(trained: list[Path], refused: Callable) -> None:
    assert "has learned nothing" in refused("method=muki", given(trained[0], Path("tiny")))


def test_models_and_backbones_together(trained: list[Path], refused: Callable) -> None:
    text = refused("method=muki", given(*trained), "method.backbones=[tiny,tiny]")
    assert "method.backbones" in text and "method.models are finished" in text


def test_as_many_models_as_teachers(trained: list[Path], refused: Callable) -> None:
    assert "has 1 teachers, method.teachers is 2" in refused("method=muki", given(trained[0]))
    assert "has 2 teachers, method.teachers is 3" in refused("method=muki", given(*trained), "method.teachers=3")


def test_a_split_of_another_size_than_the_model(trained: list[Path], refused: Callable) -> None:
    split = "method.split=[[rivers,bridges],[harbours,gardens,orchards,meadows]]"
    text = "\n".join(refused_all(given(*trained), split))
    assert "has 3 outputs; method.split names 2" in text and "has 3 outputs; method.split names 4" in text


def refused_all(*words: str) -> list[str]:
    with pytest.raises(UserError) as raised:
        prepare(compose(["method=muki", *QUICK, *words]))
    return [f"{problem.where}  {problem.what}" for problem in raised.value.problems]


def test_a_tagger_without_o(taggers: list[Path], refused: Callable, tmp_path: Path) -> None:
    first = copied(taggers[0], tmp_path / "a", rows=[1, 2, 3, 4])
    text = refused("method=muki", given(first, taggers[1]), data="toy_entities")
    assert "has no output O" in text and "B-PER, I-PER, B-MISC, I-MISC" in text


def test_taggers_that_overlap(taggers: list[Path], refused: Callable, tmp_path: Path) -> None:
    names = ["O", "B-ORG", "I-ORG", "B-LOC", "I-MISC"]
    text = refused("method=muki", given(taggers[0], copied(taggers[1], tmp_path / "b", names)), data="toy_entities")
    assert "knows I-MISC, as teacher 1 does" in text and "B-ORG" not in text.replace("outputs", "")


def test_texts_longer_than_a_teacher_reads(trained: list[Path], refused: Callable, tmp_path: Path) -> None:
    second = copied(trained[1], tmp_path / "b")
    config = json.loads((second / "config.json").read_text())
    (second / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 32}))
    text = refused("method=muki", given(trained[0], second))
    assert "data.max_length" in text and "32" in text


def test_a_model_of_fewer_weights_than_names_ends_with_a_message(
    trained: list[Path], toy: Callable, tmp_path: Path
) -> None:
    first = copied(trained[0], tmp_path / "a", ["rivers", "bridges"])
    second = copied(trained[1], tmp_path / "b", ["gardens", "orchards", "meadows", "harbours"])
    with pytest.raises(UserError, match="cannot be loaded"):
        toy("method=ensemble", given(first, second))


def test_a_worker_that_refuses_ends_with_code_2_and_no_traceback(
    stranger: Path, trained: list[Path], tmp_path: Path
) -> None:
    done = command(["method=dfa", *QUICK, given(stranger, trained[1])], tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "error: 1 problem" in done.stderr and "has another tokenizer than the student" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
