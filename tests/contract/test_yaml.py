"""Every YAML composes, is complete, says what it is, and pins what it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from kbench import registry
from kbench.cli.ls import read
from kbench.config.compose import compose
from kbench.config.schema import GENERATED, JOINED, METRICS, READERS
from kbench.errors import ConfigError
from kbench.tables.spec import load, words

from ..conftest import SHARED_PAPERS

# no commit of theirs could be verified
UNPINNED = ("arabic_bert", "beto", "ernie", "gottbert", "kobert")
EVERY = [(group, name) for group in registry.GROUPS for name in registry.choices(group)]


@pytest.mark.parametrize(("group", "name"), EVERY)
def test_it_composes(group, name):
    base = {"method": "method=finetune", "data": "data=toy", "backbone": "backbone=tiny"}
    base.pop(group, None)
    config = compose([*base.values(), f"{group}={name}"])
    node = getattr(config, group)
    if hasattr(node, "name"):
        assert node.name == name


@pytest.mark.parametrize(("group", "name"), EVERY)
def test_it_says_what_it_is_in_its_first_line(group, name):
    text = (registry.conf_root() / group / f"{name}.yaml").read_text()
    assert re.match(r"# \w.{10,}\n", text), text.splitlines()[0]


@pytest.mark.parametrize(
    "path", sorted(registry.conf_root().glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}"
)
def test_every_hub_revision_is_a_full_commit(path: Path):
    hub = (yaml.safe_load(path.read_text()) or {}).get("hub")
    if hub is not None and path.stem in UNPINNED:
        assert hub["revision"] == "main" and "Not pinned" in path.read_text()
    elif hub is not None:
        assert set(hub) == {"id", "revision"} and re.fullmatch(r"[0-9a-f]{40}", hub["revision"])


@pytest.mark.parametrize("name", registry.choices("data"))
def test_a_data_set_has_a_reader_a_licence_and_a_source(name):
    raw = read("data", name)
    task = raw["task"]
    assert raw["reader"] in (*READERS[task], *GENERATED[task], JOINED)
    assert set(raw["metrics"]) <= set(METRICS[task])
    assert raw["licence"] and raw["cite"]
    assert raw["source_labels"] is None or len(raw["source_labels"]) == len(raw["labels"])


def test_published_values_of_training_have_their_source():
    """Each value of a paper's recipe says where it stands, or that it is not stated."""
    names = ("muki", "muki_teacher", "kmlm", "xlr", "relx", "xtreme_qa", "xtreme_tagging", "xtreme_pos")
    for name in (*names, "openentity", "tacred"):
        for line in (registry.conf_root() / "train" / f"{name}.yaml").read_text().splitlines():
            if ":" in line and not line.startswith("#") and not line.endswith(": null"):
                known = r"# (paper|released code|not stated|not read|not used|XTREME's)"
                assert re.search(known, line), line


@pytest.mark.parametrize("name", registry.tables())
def test_a_table_has_overrides_that_compose(name):
    table = load(name)
    for column_name, column in table.columns.items():
        if column.average:
            continue
        for row_name, row in table.rows.items():
            method = next(o.split("=")[1] for o in row.overrides if o.startswith("method="))
            if (row_name, column_name) in table.absent:
                with pytest.raises(ConfigError):  # there is no such run
                    compose(words(row, column, {}))
            elif method in registry.choices("method"):
                compose(words(row, column, {}))


# what a transcribed row takes away from its method -> the end of our row's name
ABLATIONS = {"none": "", "no_monte_carlo_dropout": "_no_mc", "no_instance_reweighting": "_no_reweighting"}
ABLATIONS |= {"no_knowledge_injection": "_no_injection", "no_memory_bank": "_no_memory"}
ABLATIONS |= {"no_knowledge_routing": "_no_routing"}


# KMLM's tables: what a transcribed row calls its backbone -> the backbone's name here
BACKBONES = {"xlm_r_base": "xlmr_base", "xlm_r_large": "xlmr_large", "mbert_base": "mbert"}


def name_of(row):
    """The name of ours of a transcribed row: of its fusion where there is one, else of its method and the rest."""
    if row.get("backbone") in BACKBONES:
        return ("" if row["method"] in ("xlm_r", "mbert") else f"{row['method']}_") + BACKBONES[row["backbone"]]
    if row.get("fusion", "none") != "none":
        return row["fusion"]
    direction = row.get("direction")
    end = "" if direction is None else "_" + direction.lower().replace("-", "_to_")
    return row["method"].lower() + ABLATIONS[row.get("ablation", "none")] + end


@pytest.mark.parametrize("name", registry.tables())
def test_published_values_are_the_transcribed_ones(name):
    paper, table = name.split("/")
    source = SHARED_PAPERS / f"{paper}.yaml"
    if not source.exists():
        pytest.skip(f"no transcription at {source}")
    transcribed = {t["id"]: t for t in yaml.safe_load(source.read_text())["tables"]}
    ours = load(name)
    if ours.figure:
        assert table not in transcribed and not ours.published
        return
    rows = {name_of(row): row for row in transcribed[table]["rows"]}
    assert len(rows) == len(transcribed[table]["rows"])
    assert list(ours.published) == list(rows)
    assert list(ours.columns) == transcribed[table]["columns"]
    empty = set()
    for key, row in rows.items():
        for column, value in row["values"].items():
            if value is None:
                empty.add((key, column))
                assert column not in ours.published[key]
            else:
                found = ours.published[key][column]
                given = value if isinstance(value, dict) else {"mean": value}  # without a deviation, a number alone
                assert (found.mean, found.std) == (given["mean"], given.get("std"))
    assert ours.absent == empty


def test_the_third_table_has_cells_that_the_paper_leaves_empty():
    assert load("muki/table3").absent == {
        ("teacher_4", "3_teachers"),
        ("teacher_5", "3_teachers"),
        ("teacher_5", "4_teachers"),
    }
