"""Every YAML composes, is complete, says what it is, and pins what it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from kbench import registry
from kbench.config.compose import compose
from kbench.data.readers import READERS
from kbench.tables.spec import load

from ..conftest import SHARED_PAPERS

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
    if hub is not None:
        assert set(hub) == {"id", "revision"} and re.fullmatch(r"[0-9a-f]{40}", hub["revision"])


@pytest.mark.parametrize("name", registry.choices("data"))
def test_a_data_set_has_a_reader_a_licence_and_a_source(name):
    raw = yaml.safe_load((registry.conf_root() / "data" / f"{name}.yaml").read_text())
    assert raw["reader"] == "toy" or raw["reader"] in READERS
    assert raw["licence"] and raw["cite"]
    assert raw["source_labels"] is None or len(raw["source_labels"]) == len(raw["labels"])


def test_published_values_of_training_have_their_source():
    """Each value of a paper's recipe says where it stands, or that it is not stated."""
    for name in ("muki", "muki_teacher"):
        for line in (registry.conf_root() / "train" / f"{name}.yaml").read_text().splitlines():
            if ":" in line and not line.startswith("#") and not line.endswith(": null"):
                assert re.search(r"# (paper|released code|not stated|not read)", line), line


@pytest.mark.parametrize("name", registry.tables())
def test_a_table_has_overrides_that_compose(name):
    table = load(name)
    for column in table.columns.values():
        if column.average:
            continue
        for row in table.rows.values():
            method = next(o.split("=")[1] for o in row.overrides if o.startswith("method="))
            if method in registry.choices("method"):
                compose([*row.overrides, *column.overrides])


@pytest.mark.parametrize("name", registry.tables())
def test_published_values_are_the_transcribed_ones(name):
    paper, table = name.split("/")
    source = SHARED_PAPERS / f"{paper}.yaml"
    if not source.exists():
        pytest.skip(f"no transcription at {source}")
    transcribed = next(t for t in yaml.safe_load(source.read_text())["tables"] if t["id"] == table)
    ours = load(name).published
    assert list(ours) == [row["method"] for row in transcribed["rows"]]
    for row in transcribed["rows"]:
        for column, value in row["values"].items():
            if value is None:
                assert column not in ours[row["method"]]
            else:
                assert (ours[row["method"]][column].mean, ours[row["method"]][column].std) == (
                    value["mean"],
                    value.get("std"),
                )
