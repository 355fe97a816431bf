"""The shape of the code: who imports whom, what starts without torch, what every component must have."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from kbench import registry
from kbench.cli.main import VERBS
from kbench.methods.base import Method

from ..conftest import REPOSITORY

PACKAGE = REPOSITORY / "kbench"
FILES = sorted(PACKAGE.rglob("*.py"))

# each layer may import from itself and from what stands after it
LAYERS = [
    ["cli"],
    ["figures"],
    ["tables"],
    ["runs"],
    ["methods"],
    ["tasks", "knowledge"],
    ["backbones", "trackers"],
    ["engine"],
    ["data"],
    ["metrics", "stages"],
    ["config"],
    ["registry", "errors", "files"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
# free of torch, so that configuration and data do not wait for it
LEAVES = {f"kbench.engine.{name}" for name in ("counter", "recipe", "sampler", "seeding")}


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("kbench"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += names if node.module == "kbench" else [node.module]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("kbench")]
    return found


@pytest.mark.parametrize("path", [p for p in FILES if p.parent != PACKAGE], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    own = path.relative_to(PACKAGE).parts[0]
    for name in imports(path):
        parts = name.split(".")
        if len(parts) < 2 or parts[1] not in RANK or name in LEAVES:
            continue
        # types may be named upwards, behind TYPE_CHECKING
        if parts[1] == "methods" and own == "tasks":
            pytest.fail(f"{path} imports {name}")
        assert RANK[parts[1]] >= RANK[own], f"{own} imports {name}"


def test_only_compose_imports_hydra():
    users = {
        str(p.relative_to(PACKAGE)) for p in FILES if "import hydra" in p.read_text() or "from hydra" in p.read_text()
    }
    assert users == {"config/compose.py"}


def test_only_the_engine_imports_accelerate():
    users = {p.relative_to(PACKAGE).parts[0] for p in FILES if "from accelerate" in p.read_text()}
    assert users == {"engine"}


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["ls"],
        ["ls", "data"],
        ["ls", "methods"],
        ["ls", "tables"],
        ["show", "method", "muki"],
        ["--cfg", "job"],
    ],
    ids=" ".join,
)
def test_it_starts_without_torch(words):
    code = (
        "import sys; from kbench.cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'transformers', 'datasets', 'evaluate', 'wandb'} & set(sys.modules);"
        "print(heavy, file=sys.stderr); sys.exit(code or len(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_module_and_public_name_says_what_it_is(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree) or not tree.body, path
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path}: {node.name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_unsafe(path):
    text = path.read_text()
    for word in ("torch.load(", "pickle", "trust_remote_code=True", "shell=True", "exec(", "os.system"):
        assert word not in text or (word == "pickle" and "allow_pickle=False" in text) or "is a pickle" in text, word


@pytest.mark.parametrize("name", registry.choices("method"))
def test_a_method_is_complete(name):
    method = registry.load("method", name)
    assert issubclass(method, Method) and method.Config and method.needs.tasks
    assert len(inspect.getdoc(inspect.getmodule(method)) or "") > 80, (
        "the module's docstring is what `kbench show` prints"
    )
    own = "loss" if method.trained else "scores"
    assert getattr(method, own) is not getattr(Method, own)


def test_every_method_file_has_a_yaml_and_the_other_way_round():
    helpers = {"__init__", "base", "bench", "teachers", "teacher_set", "integration", "alignment"}
    helpers |= {"reading", "resource", "exported", "pretraining"}
    helpers |= {"routed", "routed_ffn", "attribution", "paths", "flops"}
    helpers |= {"memory", "banks", "mapped_bank", "injection"}
    helpers |= {"cka", "knowing", "linked_pretraining", "injecting", "linked_feed"}
    helpers |= {"costs", "curve", "finding", "steps"}
    assert {p.stem for p in (PACKAGE / "methods").glob("*.py")} - helpers == set(registry.choices("method"))


def test_every_verb_has_a_module_and_help():
    for verb in VERBS:
        done = subprocess.run(
            [sys.executable, "-m", "kbench", verb, "--help"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 and f"kbench {verb}" in done.stdout


def test_the_loop_stays_short():
    assert len((PACKAGE / "engine" / "loop.py").read_text().splitlines()) <= 300


def test_the_package_list_is_complete():
    import tomllib

    listed = set(tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    there = {"kbench", "kbench.conf", "kbench.experiments"}
    there |= {f"kbench.{p.parent.relative_to(PACKAGE)}".replace("/", ".") for p in PACKAGE.glob("*/__init__.py")}
    assert listed == there
