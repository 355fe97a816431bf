"""One run, from its frozen folder to its result. Every process of the run executes this."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shutil
import time
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

import kbench
from kbench import registry
from kbench.data.records import Records
from kbench.engine.loop import Fit, fit
from kbench.engine.recipe import Selection
from kbench.engine.runtime import Runtime
from kbench.engine.seeding import derive
from kbench.files import write_atomically
from kbench.methods.base import Method
from kbench.methods.bench import Bench
from kbench.runs.prepare import CHECKPOINTS, MODEL, SCORES, STAGES, Run
from kbench.runs.reporter import Reporter
from kbench.runs.result import Result, Setting
from kbench.stages.store import Store

PREDICTIONS = "predictions.jsonl"
_LIBRARIES = ("torch", "transformers", "accelerate", "tokenizers", "numpy", "hydra-core", "omegaconf")


def execute(run: Run, runtime: Runtime, reporter: Reporter) -> Result:
    """Build the stages, train, score the test split, write predictions and result.

    Raises:
        UserError: something the user can mend.
        InterruptedRunError: the run was asked to stop; its state is saved.
    """
    started = time.monotonic()
    seconds: dict[str, float] = {}
    store = Store(Path(run.config.outputs).expanduser() / STAGES, runtime, reporter.stage, runtime.describe())
    config = run.config
    bench = run.bench(runtime=runtime, store=store, report=reporter)
    method: Method = registry.load("method", config.method.name)(config.method, bench)
    stages = method.stages()
    folders = {name: store.get(stage) for name, stage in stages.items()}
    method.prepare(folders)
    seconds["stages"] = time.monotonic() - started
    reporter.stages_ready()

    trained = None
    records = bench.records
    if method.trained and bench.task.trained:
        kept, trained = _train(method, bench, runtime, run, seconds)
    else:
        kept = {split: method.scores(split) for split in {"test", *config.keep_scores}}
    scores = kept["test"]

    metrics = {"test": bench.task.measure(scores, records, "test")}
    diagnostics = method.diagnostics() | bench.task.diagnostics(scores, records, "test")
    result = Result(
        key=run.key,
        setting=_setting(run, records),
        metrics=metrics,
        diagnostics=diagnostics,
        training=_training(trained),
        seconds=seconds,
        throughput=_throughput(trained, seconds.get("train")),
        memory=runtime.peak_memory(),
        hashes={"config": run.config_hash, "data": records.content},
        stages={name: stage.key for name, stage in stages.items()},
        environment=_environment(runtime),
    )
    if runtime.is_main:
        languages = records.languages("test")
        lines = (
            line if lang is None else {"lang": lang, **line}
            for lang, line in zip(languages, bench.task.predictions(scores, records, "test"), strict=True)
        )
        result.hashes["predictions"] = _write_lines(run.folder / PREDICTIONS, lines)
        shutil.rmtree(run.folder / SCORES, ignore_errors=True)
        for split in config.keep_scores:
            run.scores(split).parent.mkdir(exist_ok=True)
            array = io.BytesIO()
            np.save(array, kept[split], allow_pickle=False)
            write_atomically(run.scores(split), array.getvalue())
        seconds["total"] = time.monotonic() - started
        result.seconds = {name: round(value, 3) for name, value in seconds.items()}
        result.save(run.folder)
        shutil.rmtree(run.folder / CHECKPOINTS, ignore_errors=True)
    runtime.barrier()
    return result


def _train(
    method: Method, bench: Bench, runtime: Runtime, run: Run, seconds: dict[str, float]
) -> tuple[dict[str, np.ndarray], Fit]:
    """Train the student, score the test split and what is to be kept, keep the model where that is asked."""
    bench.check_vocabulary()
    learn, held = bench.split
    columns = method.columns()
    split, rows = ("train", held) if len(held) else ("validation", None)
    judged = bench.train.selection is Selection.best_val
    if judged:
        validation, gold = bench.feed(split, rows, beside=method.beside(split)), bench.gold(split, rows)

    def evaluate(model: nn.Module) -> float:
        began = time.monotonic()
        scores = bench.task.predict(model, validation, runtime, bench.train.precision, may_stop=False)
        seconds["validation"] = seconds.get("validation", 0.0) + time.monotonic() - began
        return float(bench.task.main_score(scores, *gold))

    model = bench.model(len(bench.task.outputs), derive(bench.seed, "head"))
    student = method.student(model)
    trained = fit(
        student,
        bench.lessons(learn, columns, method.width(), method.unread("train"), method.beside("train")),
        method.loss,
        bench.train,
        runtime,
        seed=bench.seed,
        folder=run.folder / CHECKPOINTS,
        report=bench.report,  # type: ignore[arg-type]
        scope="student" if method.needs.teachers else "train",
        evaluate=evaluate if judged else None,
        log_every=bench.log_every,
        rates=method.rates(),
        whole_batch=method.whole_batch,
    )
    seconds["train"] = trained.seconds - seconds.get("validation", 0.0)
    began = time.monotonic()
    splits = ["test", *(split for split in run.config.keep_scores if split != "test")]
    feeds = {split: bench.feed(split, beside=method.beside(split)) for split in splits}
    precision = bench.train.precision
    scores = {split: bench.task.predict(student, feed, runtime, precision) for split, feed in feeds.items()}
    seconds["test"] = time.monotonic() - began
    if run.config.keep_model and runtime.is_main:
        method.save(model, run.folder / MODEL)
    return scores, trained


def _setting(run: Run, records: Records) -> Setting:
    config = run.config
    others: dict[str, list[str]] = {}
    for name, (backbone, _) in run.places.items():
        others.setdefault(name.partition("_")[0], []).append(backbone.name)
    beside = "; ".join(f"{role}{'s' * (len(names) > 1)}: {', '.join(names)}" for role, names in others.items())
    place = f" from {config.backbone.path}" if config.backbone.path else ""
    return Setting(
        method=config.method.name,
        data=config.data.title(),
        backbone=config.backbone.name + place + (f" ({beside})" if beside else ""),
        seed=config.seed,
        source=run.source,
        rows={split: records.rows(split) for split in records.splits},
        complete=asdict(config.data.complete()),
        backbone_source=run.located.where,
    )


def _training(trained: Fit | None) -> dict[str, float | int | None]:
    if trained is None:
        return {}
    return {"steps": trained.steps, "best_step": trained.best_step, "best_validation": trained.best_score}


def _throughput(trained: Fit | None, seconds: float | None) -> dict[str, float]:
    """Tokens and rows a second of training, evaluations left out."""
    if trained is None or not trained.rows or not seconds:
        return {}
    return {
        "tokens_per_second": round(trained.tokens / seconds, 1),
        "rows_per_second": round(trained.rows / seconds, 1),
    }


def _environment(runtime: Runtime) -> dict[str, Any]:
    found = {name: version(name) for name in _LIBRARIES}
    return {"kbench": kbench.__version__, "python": platform.python_version(), **found, **runtime.describe()}


def _write_lines(path: Path, records: Iterable[dict[str, Any]]) -> str:
    """Write JSON lines in one step; gives the hash of the file."""
    content = hashlib.sha256()
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        for record in records:
            line = json.dumps(record, ensure_ascii=False) + "\n"
            content.update(line.encode())
            file.write(line)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return content.hexdigest()
