"""From a checked configuration to a run's folder, before torch is imported.

Data are read and checked here, so that a broken file is a message and not a failed run, and so that the run's key can
hold what the rows are instead of where they stand:

    outputs/<method>/<data>/<backbone>/<key, 8 digits>/s<seed>/
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from omegaconf import OmegaConf

from kbench import registry
from kbench.backbones.locate import Located, locate, positions_of
from kbench.config.compose import load, save
from kbench.config.identity import digest, run_science
from kbench.config.schema import Backbone, Config
from kbench.data import source as sources
from kbench.data.records import Records, records_stage
from kbench.engine.recipe import Selection
from kbench.errors import BackboneError, DataError, Problem, UserError
from kbench.files import write_atomically
from kbench.methods.bench import Bench
from kbench.runs.result import RESULT, State, write_status
from kbench.stages.stage import Stage
from kbench.stages.store import Store

CONFIG = "config.yaml"
INPUTS = "inputs.json"
STAGES = "stages"
CHECKPOINTS = "checkpoints"
MODEL = "model"
SCORES = "scores"


@dataclass(frozen=True)
class Run:
    """A run that is composed, checked and named; `folder` may or may not hold its result.

    Attributes:
        config: its configuration.
        config_hash: hash of the science without the seed: the same wherever its inputs stand.
        key: hash of the science, the backbone's weights and the stages, which hold the rows and the teachers.
        folder: its folder.
        records: folder of the data set's rows.
        source: where the rows came from, for people.
        located: the backbone.
        places: the backbones beside it, by the name the method gave them.
    """

    config: Config
    config_hash: str
    key: str
    folder: Path
    records: Path
    source: str
    located: Located
    places: dict[str, tuple[Backbone, Located]] = field(default_factory=dict)

    def with_seed(self, seed: int) -> Run:
        """The same run with another seed."""
        return replace(self, config=replace(self.config, seed=seed), folder=self.folder.parent / f"s{seed}")

    def bench(self, **running: Any) -> Bench:
        """What the run's method works with; `running`: runtime, store and report where something is to be made."""
        config = self.config
        return Bench(
            data=config.data,
            backbone=config.backbone,
            located=self.located,
            records=Records(self.records),
            train=config.train,
            teacher=config.teacher,
            knowledge=config.knowledge,
            pretrain=config.pretrain,
            seed=config.seed,
            log_every=config.log_every,
            places=self.places,
            **running,
        )

    @property
    def done(self) -> bool:
        """Whether the result is there, and the model and scores where they are to be kept."""
        trained = registry.load("method", self.config.method.name).trained  # type: ignore[attr-defined]
        kept = not self.config.keep_model or not trained or (self.folder / MODEL / "config.json").is_file()
        kept = kept and all(self.scores(split).is_file() for split in self.config.keep_scores)
        return kept and (self.folder / RESULT).is_file()

    def scores(self, split: str) -> Path:
        """Where the scores of a split are kept."""
        return self.folder / SCORES / f"{split}.npy"

    @property
    def lock(self) -> FileLock:
        """Held by whoever makes this run."""
        return FileLock(self.folder / ".lock")


def config_hash(config: Config) -> str:
    """Hash of a configuration's science without the seed and without the nodes that nothing reads."""
    method: Any = registry.load("method", config.method.name)
    reads = {"teacher": method.needs.teachers, "train": method.trained, "pretrain": method.needs.pretraining}
    return digest(run_science(config, {**reads, "knowledge": reads_knowledge(config)}))


def reads_knowledge(config: Config) -> bool:
    """Whether the knowledge graph can change a number: by the method, the data or the backbone's tokenizer."""
    method: Any = registry.load("method", config.method.name)
    reads_it = config.backbone.tiny is not None and config.backbone.tiny.texts != "data"
    return bool(method.needs.knowledge or config.data.of_graph or reads_it)


def prepare(config: Config, say: Callable[[Stage, str, float], None] | None = None) -> Run:
    """Find data and backbone, read the data once, and name the run.

    Raises:
        UserError: data or backbone are absent or broken.
    """
    outputs = Path(config.outputs).expanduser()
    try:
        outputs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(Problem(f"outputs={config.outputs}", f"cannot be made: {error.strerror}")) from error
    problems: list[Problem] = []
    located = None
    try:
        located = locate(config.backbone)
    except BackboneError as error:
        problems += error.problems
    try:
        store = Store(outputs / STAGES, say=say)
        if reads_knowledge(config):
            _check_knowledge(config)
        source = _of_graph(config, store) if config.data.of_graph else sources.locate(config.data)
        records = store.get(records_stage(config.data, source))
    except DataError as error:  # a full disk is another matter, and passes
        problems += error.problems
    method: Any = registry.load("method", config.method.name)
    places: dict[str, tuple[Backbone, Located]] = {}
    try:
        for name, backbone in method.places(config.method).items():
            places[name] = backbone, locate(backbone, name)
    except BackboneError as error:
        problems += error.problems
    if problems or located is None:
        raise UserError(*problems)
    own = config.backbone, located
    problems += method.check_places(config.method, config.data, {"student": own, **places})
    splits = Records(records).splits
    if not config.data.validation_share and "validation" not in splits and _selects(config):
        what = f"is 0 and {config.data.name} has no validation split to select weights on"
        problems.append(Problem("data.validation_share", what, "give a share, or train.selection=last"))
    problems += [
        Problem("keep_scores", f"{config.data.name} has no {split} split")
        for split in config.keep_scores
        if split not in splits
    ]
    for backbone, place in [own, *places.values()]:
        problems += _check_length(config, backbone, place)
    if problems:
        raise UserError(*problems)
    where = f"{source.kind}: {source.where}"
    run = Run(config, config_hash(config), "", outputs, records, where, located, places)
    bench = run.bench()
    # the stages hold what they are made of and their versions: a stage that changed makes another run
    stages = {name: stage.key for name, stage in method(config.method, bench).stages().items()}
    key = digest([run.config_hash, located.identity, bench.encoded_stage.key, stages, method.version])
    names = (config.method.name, config.data.name, config.backbone.name, key[:8], f"s{config.seed}")
    return replace(run, key=key, folder=outputs.joinpath(*names))


def _check_knowledge(config: Config) -> None:
    """Raise DataError where files of the knowledge graph, or of its plain text, are not on this machine."""
    from kbench.knowledge.plain import locate as locate_text
    from kbench.knowledge.readers import locate as locate_graph

    locate_graph(config.knowledge)
    method: Any = registry.load("method", config.method.name)
    if method.needs.pretraining:
        locate_text(config.knowledge)


def _selects(config: Config) -> bool:
    """Whether a training chooses its weights on validation rows."""
    method: Any = registry.load("method", config.method.name)
    task: Any = registry.load("task", config.data.task)
    return bool(method.trained and task.trained and config.train.selection is Selection.best_val)


def _of_graph(config: Config, store: Store) -> sources.Source:
    """The questions that are made of the knowledge graph, as files of the stage that made them."""
    from kbench.knowledge.cycles import cycles_stage
    from kbench.knowledge.graph import graph_stage
    from kbench.knowledge.readers import locate as locate_graph
    from kbench.knowledge.xlr import xlr_stage

    graph = graph_stage(config.knowledge, locate_graph(config.knowledge))
    stage = xlr_stage(graph, cycles_stage(graph, config.knowledge), config.knowledge)
    found = sources.locate(replace(config.data, path=str(store.get(stage))))
    return replace(found, kind="built", where=f"kbench, from the graph {config.knowledge.name}")


def _check_length(config: Config, backbone: Backbone, located: Located) -> list[Problem]:
    """Texts may not be longer than a backbone has positions for."""
    room = positions_of(backbone, located)
    if room is not None and config.data.max_length > room:
        return [Problem("data.max_length", f"is {config.data.max_length}; {backbone.name} has {room} positions")]
    return []


def freeze(run: Run, overrides: list[str]) -> None:
    """Write everything a worker needs into the run's folder; later edits of files change nothing."""
    run.folder.mkdir(parents=True, exist_ok=True)
    save(run.config, run.folder / CONFIG)
    (run.folder / "overrides.txt").write_text("kbench " + shlex.join(overrides) + "\n", encoding="utf-8")
    inputs = {
        "config_hash": run.config_hash,
        "key": run.key,
        "records": str(run.records.resolve()),
        "source": run.source,
        "backbone": asdict(run.located),
        "places": {name: [asdict(backbone), asdict(located)] for name, (backbone, located) in run.places.items()},
    }
    write_atomically(run.folder / INPUTS, json.dumps(inputs, indent=1, ensure_ascii=False))
    if not run.done:
        write_status(run.folder, State.planned)


def thaw(folder: Path) -> Run:
    """The run that `freeze` wrote."""
    inputs = json.loads((folder / INPUTS).read_text(encoding="utf-8"))
    return Run(
        config=load(folder / CONFIG),
        config_hash=inputs["config_hash"],
        key=inputs["key"],
        folder=folder,
        records=Path(inputs["records"]),
        source=inputs["source"],
        located=Located(**inputs["backbone"]),
        places={name: (_backbone(raw), Located(**located)) for name, (raw, located) in inputs["places"].items()},
    )


def _backbone(raw: dict[str, Any]) -> Backbone:
    found = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Backbone), raw))
    assert isinstance(found, Backbone)
    return found
