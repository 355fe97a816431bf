"""What a user reads when all is well: help, listings, a run, the same run again, a sweep, a table."""

from __future__ import annotations

import json
import re
import time

import pytest

from kbench.registry import GROUPS, choices

from ..conftest import QUICK, REPOSITORY, command


def test_help_names_every_verb_group_and_choice(tmp_path):
    text = command(["--help"], tmp_path).stdout
    for verb in ("reproduce", "report", "ls", "show", "build", "export", "fetch", "doctor"):
        assert re.search(rf"^  {verb} ", text, re.M)
    for group in GROUPS:
        assert re.search(rf"^  {group} +{', '.join(choices(group))}$", text, re.M)
    assert command([], tmp_path).stdout == text


@pytest.mark.parametrize(
    "kind", ["methods", "data", "backbones", "knowledge", "tables", "train", "hardware", "trackers"]
)
def test_ls_lists_the_same_for_people_and_programs(kind, tmp_path):
    plain = command(["ls", kind], tmp_path).stdout.splitlines()
    rows = json.loads(command(["ls", kind, "--json"], tmp_path).stdout)
    assert len(plain) == len(rows) + 1
    for line, row in zip(plain[1:], rows, strict=True):
        assert line.startswith(str(next(iter(row.values()))))


def test_show_prints_idea_options_and_values_with_their_source(tmp_path):
    text = command(["show", "method", "muki"], tmp_path).stdout
    assert "model uncertainty" in text and "method.mc.samples" in text
    assert re.search(r"tau: 0.2 +# paper, section 3.1", text) and "teachers: 2" in text


def test_doctor_looks_for_everything(tmp_path):
    done = command(["doctor"], tmp_path)
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"^  (\w+) +(.+)$", done.stdout, re.M))
    assert {*choices("data"), *choices("backbone")} <= set(found)
    assert found["toy_pos"].startswith("generated") and found["ud_pos"].startswith("absent: from files")


def test_hydra_prints_its_own_things(tmp_path):
    config = command(["method=muki", "data=toy", "--cfg", "job"], tmp_path).stdout
    assert "tau: 0.2" in config and "name: toy" in config
    assert "Defaults List" in command(["method=muki", "data=toy", "--info"], tmp_path).stdout
    assert command(["--hydra-help"], tmp_path).returncode == 0
    completion = command(["-sc", "install=bash"], tmp_path)
    assert completion.returncode == 0


def test_a_run_and_the_same_run_again(tmp_path):
    words = ["method=ensemble", *QUICK]
    first = command(words, tmp_path)
    assert first.returncode == 0, first.stderr
    lines = first.stdout.splitlines()
    assert re.fullmatch(r"done +\d+\.\d s", next(line for line in lines if line.startswith("done")))
    assert re.search(r"^test +accuracy +\d+\.\d\d %$", first.stdout, re.M)
    assert "a part of the data: train 96 of 1,600; test 48 of 800" in first.stdout
    folder = tmp_path / lines[-1].removeprefix("files").strip()
    names = {"config.yaml", "overrides.txt", "inputs.json", "status.json", "result.json", "predictions.jsonl"}
    assert names <= {path.name for path in folder.iterdir()}
    assert (folder / "overrides.txt").read_text() == "kbench " + " ".join(words) + "\n"
    assert json.loads((folder / "status.json").read_text())["state"] == "done"

    began = time.monotonic()
    second = command(words, tmp_path)
    seconds = time.monotonic() - began
    assert "done     already" in second.stdout
    assert second.stdout.splitlines()[-1] == lines[-1]
    # the issue is two seconds on a quiet machine; a worker would take five at the least
    assert seconds < 5

    forced = command([*words, "force=true"], tmp_path)
    assert re.search(r"^done +\d", forced.stdout, re.M)


def test_a_sweep_makes_only_what_is_missing(tmp_path):
    words = ["-m", "method=ensemble,teacher", *QUICK]
    first = command(words, tmp_path)
    assert first.returncode == 0, first.stderr
    assert "sweep    2 runs: 0 done, 2 to make" in first.stdout
    second = command([*words, "seed=1,2"], tmp_path)
    assert "sweep    4 runs: 2 done, 2 to make" in second.stdout
    assert second.returncode == 0
    assert len(list((tmp_path / "outputs").glob("*/toy/tiny/*/s*/result.json"))) == 4


def test_a_sweep_goes_on_after_a_failed_run_and_says_which(tmp_path):
    words = ["-m", "method=finetune", *QUICK, "train.lr=1e-3,1e30", "train.clip=0", "train.warmup=0"]
    done = command(words, tmp_path)
    assert done.returncode == 1
    assert "1 of 2 runs have no result" in done.stderr
    assert "diverged" in done.stdout
    assert len(list((tmp_path / "outputs").rglob("result.json"))) == 1


def test_reproduce_and_report_show_the_same_table(tmp_path):
    words = ["muki/table1", *QUICK, "seed=1,2", "--rows", "ensemble,dfa,muki_soft"]
    made = command(["reproduce", *words], tmp_path)
    assert made.returncode == 0, made.stderr
    table = made.stdout[made.stdout.index("# muki/table1") :]
    assert command(["report", *words], tmp_path).stdout == table
    assert "toy: backbone tiny; train 96 of 1,600; test 48 of 800" in table
    assert re.search(r"DFA.*other setting", table), table
    folder = tmp_path / "outputs" / "reports" / "muki-table1"
    assert {path.name for path in folder.iterdir()} == {"table.md", "table.csv", "table.tex", "runs.csv"}
    cells = json.loads(command(["report", *words, "--json"], tmp_path).stdout)
    soft = next(cell for cell in cells if cell["row"] == "muki_soft")
    (written,) = (tmp_path / "outputs" / "ensemble").rglob("overrides.txt")
    assert written.read_text().split()[:3] == ["kbench", "method=ensemble", "data=toy"]
    assert written.read_text().split()[-1] == "seed=1"
    values = [
        100 * json.loads(path.read_text())["metrics"]["test"]["accuracy"]
        for path in (tmp_path / "outputs" / "muki").rglob("result.json")
    ]
    assert soft["ours"]["n"] == 2 and soft["ours"]["mean"] == pytest.approx(sum(values) / 2)


def readme_commands():
    text = (REPOSITORY / "README.md").read_text()
    blocks = re.findall(r"```(?:sh|bash|console)\n(.*?)```", text, re.S)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    found = [line.split("#")[0].strip() for line in lines]
    return [line for line in found if re.match(r"(KBENCH_DATA=\S+ )?kbench ", line)]


def test_the_readme_has_commands():
    assert len(readme_commands()) >= 4


@pytest.mark.parametrize("line", readme_commands())
def test_every_command_of_the_readme_is_right(line, tmp_path):
    """Checked without running: a verb answers --help, a run composes."""
    words = [word for word in line.split() if not word.startswith("KBENCH_DATA=")][1:]
    if "=" in words[0] or words[0].startswith("-"):
        done = command([*(word for word in words if word != "-m"), "--cfg", "job"], tmp_path)
        if "-m" in words:
            from kbench.config.compose import check

            assert check([word for word in words if word != "-m"], sweep=True)
            return
    else:
        done = command([words[0], "--help"], tmp_path)
    assert done.returncode == 0, done.stderr
