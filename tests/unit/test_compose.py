"""Configuration: what is refused and in which words, what is identity and what is not."""

from __future__ import annotations

import dataclasses

import pytest

from kbench import registry
from kbench.config import compose
from kbench.config.identity import run_science, science
from kbench.config.keys import HELP, MACHINERY
from kbench.config.schema import Config
from kbench.errors import ConfigError
from kbench.runs.prepare import config_hash


def problems(*overrides: str, sweep: bool = False) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        compose.check(list(overrides), sweep=sweep)
    return [f"{p.where} | {p.what} | {p.hint}" for p in caught.value.problems]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("method=muky", "no such method; did you mean muki?"),
        ("data=agnew", "no such data set; did you mean agnews?"),
        ("backbone=minilmm", "no such backbone; did you mean minilm?"),
        ("hardware=a100x7", "no such hardware; did you mean a100x8?"),
        ("train@teacher=quik", "no such training recipe; did you mean quick?"),
        ("train.lrr=1", "no such key; did you mean train.lr?"),
        ("+train.lrr=1", "no such key; did you mean train.lr?"),
        ("++train.lrr=1", "no such key; did you mean train.lr?"),
        ("+unheard=1", "no such key"),
        ("method.temprature=2", "muki has no such option; did you mean method.temperature?"),
        ("+method.tua=2", "muki has no such option; did you mean method.tau?"),
        ("tau=2", "no such key; did you mean method.tau?"),
        ("train.lr=fast", "could not be converted to Float"),
        ("train.epochs=1.5", "could not be converted to Integer"),
        ("method.reweight=2", "must be true or false"),
        ("train.precision=fp8", "expected one of [fp32, bf16, fp16]"),
        ("method.target=harder", "expected one of [hard, soft]"),
        ("~seed", "a key cannot be removed"),
        ("train.lr=[1", "is no override"),
        ("seed=1,2", "a sweep needs -m"),
        ("method.teachers=1", "must be at least 2"),
        ("method.teachers=5", "leave one with 1"),
        ("method.split=[[rivers,bridges],[harbours,gardens,orchards]]", "no teacher has meadows"),
        ("method.split=[[rivers,bridges,harbours,gardens,orchards],[meadows]]", "teacher 2 has 1 class"),
        (
            "method.split=[[rivers,bridge],[harbours,gardens,orchards,meadows]]",
            "unknown label bridge; did you mean bridges?",
        ),
        ("method.split=[[rivers,bridges],[rivers,harbours,gardens,orchards,meadows]]", "rivers stands 2 times"),
        ("method.mc.samples=17", "must be 1 to method.mc.pool=16"),
        ("train.precision=fp16", "fp16 needs a GPU"),
        ("data.train_size=3", "3 rows cannot hold 6 classes"),
        ("data.max_length=600", "exceeds backbone.tiny.positions"),
        ("data.train_size=0", "0 rows cannot hold 6 classes"),
        ("train.lr=inf", "must be a finite number"),
        ("train.lr=${nope.lr}", "Interpolation key 'nope.lr' not found"),
        ("hardware.processes=0", "must be at least 1"),
        ("train.global_batch_size=0", "must be at least 1"),
        ("backbone.tiny.heads=0", "must be at least 1"),
        ("backbone.tiny.heads=5", "64 is not divisible by 5 heads"),
        ("data.metrics=[f0]", "no such metric: f0"),
        ("data.metrics=[]", "is empty"),
        ("data.reader=foo", "no such reader: foo"),
        ("data.name=../../x", "must be one word"),
        ("method.name=uhc", "these are not the options of uhc"),
        ("teacher.selection=best_val", "must be last"),
        ("+seed=2", "is there already"),
        ("+method=uhc", "is there already"),
        ("hydra/lancher=joblib", "Could not override 'hydra/lancher'"),
        ("tracker.names=[mlflow]", "no such tracker: mlflow"),
    ],
)
def test_one_mistake_one_message(override, expected):
    found = problems("method=muki", "data=toy", override)
    assert len(found) == 1
    assert expected in found[0]


def test_a_batch_that_does_not_divide_names_numbers_that_fit():
    (found,) = problems("method=finetune", "data=toy", "hardware=cpu_x2", "train.global_batch_size=33")
    assert "33 rows do not divide among 2 processes" in found and "take 32 or 34" in found


def test_a_micro_batch_that_does_not_divide_names_sizes_that_fit():
    (found,) = problems("method=finetune", "data=toy", "hardware.micro_batch_size=5")
    assert "5 does not divide the 32 rows" in found and "take 4 or 8" in found


def test_every_mistake_is_reported_at_once():
    found = problems("method=muky", "data=toy", "backbone=tinny", "train.lrr=1", "seed=x", "++foo=1")
    assert [line.split(" |")[0] for line in found] == ["method=muky", "backbone=tinny", "train.lrr", "seed=x", "foo"]


def test_broken_rules_are_reported_beside_one_another():
    found = problems("method=muki", "data=toy", "train.warmup=3", "method.tau=0", "data.validation_share=1")
    assert [line.split(" |")[0] for line in found] == ["data.validation_share", "train.warmup", "method.tau"]


def test_a_sweep_checks_every_point():
    (found,) = problems("method=muki,uhc", "data=toy", "method.tau=0.1", sweep=True)
    assert "uhc has no such option" in found
    found = problems("method=muki", "data=toy", "seed=1,two", "train.lr=1e-3,0", sweep=True)
    assert len(found) == 2 and "seed=two" in found[0] and "train.lr" in found[1]


def test_a_wrong_value_does_not_hide_a_broken_rule():
    found = problems("method=muki", "data=toy", "method.mc.samples=0", "method.mc.seed=x")
    assert [line.split(" |")[0] for line in found] == ["method.mc.seed=x", "method.mc.samples"]


def test_a_glob_is_a_sweep_over_choices():
    points = compose.check(["method=glob(*)", "data=toy"], sweep=True)
    assert [config.method.name for _, config in points] == list(registry.choices("method"))


def test_a_range_without_end_is_refused_in_words():
    (found,) = problems("data=toy", "train.lr=interval(0,1)", sweep=True)
    assert "train.lr=interval(0,1)" in found


def test_metrics_and_readers_of_the_schema_are_those_there_are():
    from kbench.config import schema
    from kbench.data.entities import TYPING_READERS
    from kbench.data.facts import FACT_READERS
    from kbench.data.generated import GENERATORS
    from kbench.data.glue import GLUE_READERS
    from kbench.data.lama import LAMA_READERS
    from kbench.data.pairs import PAIR_READERS
    from kbench.data.questions import QUESTION_READERS
    from kbench.data.readers import READERS
    from kbench.data.relations import RELATION_READERS
    from kbench.data.rows import _READERS
    from kbench.data.sentences import SENTENCE_READERS
    from kbench.data.treebanks import TREEBANK_READERS
    from kbench.data.xtreme import XTREME_READERS
    from kbench.metrics import answers, classification, probing, regression, relation, tagging, typing

    assert {
        "classification": tuple(classification.METRICS),
        "tagging": tagging.METRICS,
        "regression": tuple(regression.METRICS),
        "pos": ("accuracy", "macro_f1", "f1"),
        "choice": ("accuracy",),
        "relation": tuple(relation.METRICS),
        "typing": tuple(typing.METRICS),
        "qa": tuple(answers.METRICS),
        "probe": tuple(probing.METRICS),
    } == schema.METRICS
    found = {task: set(names) for task, names in schema.READERS.items()}
    # of the readers of pairs, SNLI's gives rows with one second text: these are classified
    assert found == {
        "classification": {*READERS, *XTREME_READERS, *GLUE_READERS, "snli"} - {"glue_stsb"},
        "regression": {"glue_stsb"},
        "tagging": set(SENTENCE_READERS),
        "pos": set(TREEBANK_READERS),
        "choice": set(PAIR_READERS) - {"snli"},
        "relation": set(RELATION_READERS),
        "typing": set(TYPING_READERS),
        "qa": set(QUESTION_READERS),
        "probe": {*FACT_READERS, *LAMA_READERS},
    }
    assert set().union(*found.values()) == set(_READERS)
    assert schema.GENERATED == {
        "classification": ("toy", "toy_other", "toy_inference"),
        "regression": ("toy_scores",),
        "tagging": ("toy_entities",),
        "pos": ("toy_pos",),
        "choice": ("toy_choice",),
        "relation": ("toy_relx", "toy_tacred"),
        "typing": ("toy_typing",),
        "qa": ("toy_qa",),
        "probe": ("toy_probe", "toy_lama"),
    }
    assert {name for names in schema.GENERATED.values() for name in names} == set(GENERATORS)
    assert set(schema.GENERATED) == set(schema.READERS) == set(schema.METRICS)


def test_the_recipe_is_no_part_of_a_method_that_trains_nothing():
    base = ["method=ensemble", "data=toy"]
    assert config_hash(compose.compose([*base, "train.lr=1"])) == config_hash(compose.compose(base))


def test_a_sweep_has_a_point_for_every_combination():
    points = compose.check(["method=muki,uhc", "data=toy", "seed=range(1,4)"], sweep=True)
    assert [(config.method.name, config.seed) for _, config in points] == [
        (name, seed) for name in ("muki", "uhc") for seed in (1, 2, 3)
    ]


def test_data_brings_its_backbone_and_toy_its_recipes():
    agnews = compose.compose(["data=agnews"])
    assert (agnews.backbone.name, agnews.train.lr, agnews.teacher.global_batch_size) == ("bert_base", 2e-5, 64)
    toy = compose.compose(["data=toy"])
    assert (toy.backbone.name, toy.train.lr) == ("tiny", 1e-3)
    chosen = compose.compose(["data=agnews", "backbone=minilm", "train=quick"])
    assert (chosen.backbone.name, chosen.train.lr) == ("minilm", 1e-3)


def test_a_config_survives_its_file(tmp_path):
    config = compose.compose(["method=muki", "data=agnews", "method.split=[[World,Sports],[Business,Sci/Tech]]"])
    compose.save(config, tmp_path / "config.yaml")
    assert compose.load(tmp_path / "config.yaml") == config


def test_an_edited_config_is_refused_in_words(tmp_path):
    compose.save(compose.compose(["method=finetune", "data=toy"]), tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("epochs:", "epochz:"))
    with pytest.raises(ConfigError, match="epochz"):
        compose.load(tmp_path / "config.yaml")


def test_a_folder_of_own_configurations_joins_in(tmp_path):
    (tmp_path / "data").mkdir()
    packaged = (registry.conf_root() / "data" / "agnews.yaml").read_text()
    (tmp_path / "data" / "mine.yaml").write_text(packaged.replace("name: agnews", "name: mine"))
    ((_, config),) = compose.check(["data=mine", "backbone=tiny"], sweep=False, config_dir=str(tmp_path))
    assert config.data.name == "mine"


MACHINERY_OVERRIDES = [
    "hardware=cpu_x2",
    "tracker=wandb",
    "outputs=elsewhere",
    "force=true",
    "log_every=3",
    "data.path=x",
]
SCIENCE_OVERRIDES = [
    "train.precision=bf16", "train.lr=1e-4", "data.train_size=500", "backbone.dropout=0.2", "method.tau=0.3",
    "method.mc.samples=8", "teacher.lr=1e-4", "backbone.tiny.layers=1", "data.max_length=32", "train.length_pool=0",
]  # fmt: skip


@pytest.mark.parametrize("override", MACHINERY_OVERRIDES)
def test_machinery_is_no_part_of_the_identity(override):
    base = ["method=muki", "data=toy"]
    assert config_hash(compose.compose([*base, override])) == config_hash(compose.compose(base))


@pytest.mark.parametrize("override", SCIENCE_OVERRIDES)
def test_science_is_part_of_the_identity(override):
    base = ["method=muki", "data=toy"]
    assert config_hash(compose.compose([*base, override])) != config_hash(compose.compose(base))


def test_teachers_are_no_part_of_a_method_without_them():
    base = ["method=finetune", "data=toy"]
    assert config_hash(compose.compose([*base, "teacher.lr=1"])) == config_hash(compose.compose(base))


def test_the_seed_is_a_folder_of_its_own_not_part_of_the_hash():
    assert config_hash(compose.compose(["data=toy", "seed=5"])) == config_hash(compose.compose(["data=toy"]))


def test_science_is_plain_and_without_machinery():
    config = compose.compose(["method=muki", "data=toy"])
    found = run_science(config, {"teacher": False})
    assert "teacher" not in found and "seed" not in found and "hardware" not in found
    assert found["train"]["precision"] == "fp32" and "licence" not in found["data"]
    assert science((1, {"a": [None]})) == [1, {"a": [None]}]


def fields(node: type) -> list[dataclasses.Field]:
    import typing

    hints = typing.get_type_hints(node)
    found = []
    for field in dataclasses.fields(node):
        found.append(field)
        for kind in (hints[field.name], *typing.get_args(hints[field.name])):
            if dataclasses.is_dataclass(kind):
                found += fields(kind)
    return found


@pytest.mark.parametrize(
    "node", [Config, *(registry.load("method", name).Config for name in registry.choices("method"))]
)
def test_every_field_has_help_and_no_value(node):
    for field in fields(node):
        assert field.metadata[HELP], field.name
        assert field.default == "???", f"{field.name}: values stand in conf/"
        assert set(field.metadata) <= {HELP, MACHINERY}
