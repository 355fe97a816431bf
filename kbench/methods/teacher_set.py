"""The stages of a set of teachers, computed once and shared by every method, seed and sweep.

    teacher -> logits (dropout off, all splits)  -> students, ensemble, single teachers
            -> samples (dropout on, train)       -> uncertainty

A teacher that is trained here learns its own labels only, on all training rows that have them (of sentences: on all,
with O for the entities it does not know), and keeps its last weights (released code). One that learns all labels may
keep those that are best on the data set's validation split instead.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kbench.config.identity import science
from kbench.engine.recipe import Selection
from kbench.engine.seeding import derive
from kbench.errors import Problem, UserError
from kbench.stages.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kbench.methods.bench import Bench

_UNREAD = ("eval_every", "selection", "patience")  # by a teacher that is not evaluated while it trains


class TeacherSet:
    """The teachers of one run and their stages.

    Args:
        bench: the run's surroundings; a place `teacher_i` in it is the backbone, or the finished model, of teacher i.
        columns: for each teacher, index in `data.outputs()` of each of its outputs.
        finished: whether the places are finished models.
        seed: of the teachers that are trained here.
        pooled: a word's logits are the mean of its tokens', not those of its first.
    """

    def __init__(self, bench: Bench, columns: Sequence[Sequence[int]], finished: bool, seed: int, pooled: bool = False):
        self.benches = [bench.at(f"teacher_{i}") for i in range(1, len(columns) + 1)]
        self.columns = [list(one) for one in columns]
        self.finished = finished
        self.seed = seed
        self.pooled = pooled

    def __len__(self) -> int:
        return len(self.columns)

    @cached_property
    def owner(self) -> np.ndarray:
        """Teacher of each output [C]; -1 where it is everyone's."""
        task = self.benches[0].task
        found = np.empty(len(task.outputs), dtype=np.int64)
        for teacher, columns in enumerate(self.columns):
            found[columns] = teacher
        if task.shared is not None:
            found[task.shared] = -1
        return found

    def teacher(self, i: int) -> Stage:
        """The trained teacher i: a transformers folder."""
        bench, columns = self.benches[i], self.columns[i]
        unread = _UNREAD if bench.teacher.selection is Selection.last else ()
        chosen = {
            "backbone": bench.located.identity,
            "dropout": bench.backbone.dropout,
            "outputs": columns,
            "recipe": {k: v for k, v in science(bench.teacher).items() if k not in unread},
            "seed": self.seed,
        }

        def build(work: Path, parents: Mapping[str, Path]) -> None:
            _train(bench, columns, derive(self.seed, "teacher", *columns), f"teacher_{i + 1}", work)

        return Stage("teacher", 2, chosen, build, {"encoded": bench.encoded_stage})

    def logits(self, i: int) -> Stage:
        """Teacher i's logits with dropout off, of all splits: `<split>.npy`, float32 [units, C_i]."""
        bench = self.benches[i]

        def build(work: Path, parents: Mapping[str, Path]) -> None:
            from kbench.engine.predict import predict

            assert bench.runtime is not None
            model = self.load(i, parents.get("teacher"))
            for split in bench.records.splits:
                feed, precision = bench.feed(split), bench.teacher.precision
                scores = predict(model, feed, bench.runtime, precision, pooled=self.pooled)
                if bench.runtime.is_main:
                    np.save(work / f"{split}.npy", scores, allow_pickle=False)

        chosen = {"pooled": True} if self.pooled else {}
        return Stage("teacher_logits", 2, {**self._made_of(i), **chosen}, build, self._parents(i))

    def samples(self, i: int, pool: int, dropout: float | None, seed: int) -> Stage:
        """Teacher i's logits of every training unit under dropout masks: `train.npy`, float32 [units, pool, C_i]."""
        bench = self.benches[i]
        chosen = {"pool": pool, "dropout": dropout, "seed": seed, **self._made_of(i)}

        def build(work: Path, parents: Mapping[str, Path]) -> None:
            from kbench.backbones.load import set_dropout
            from kbench.engine.predict import sample

            assert bench.runtime is not None and bench.report is not None
            report = bench.report
            model = self.load(i, parents.get("teacher"))
            if dropout is not None:
                set_dropout(model, dropout)
            sample(
                model,
                bench.feed("train"),
                bench.runtime,
                bench.teacher.precision,
                samples=pool,
                seed=derive(seed, "samples", *self.columns[i]),
                path=work / "train.npy",
                tell=lambda done, total: report.progress(f"samples_{i + 1}", done, total, {}),
            )

        return Stage("teacher_samples", 3, chosen, build, self._parents(i))

    def load(self, i: int, folder: Path | None = None) -> nn.Module:
        """Teacher i on the device, in eval mode; `folder` is that of its stage where it was trained here."""
        from kbench.backbones.load import load_trained

        bench = self.benches[i]
        assert bench.runtime is not None and bench.store is not None
        if self.finished:
            folder = bench.backbone_folder
        return load_trained(folder or bench.store.get(self.teacher(i)), bench.task.auto()).to(bench.runtime.device)

    def _made_of(self, i: int) -> dict[str, Any]:
        if not self.finished:
            return {}  # the teacher's own stage says it
        bench = self.benches[i]
        # its outputs name the seed of its dropout masks
        precision = bench.teacher.precision.value
        return {"model": bench.located.identity, "precision": precision, "outputs": self.columns[i]}

    def _parents(self, i: int) -> dict[str, Stage]:
        encoded = {"encoded": self.benches[i].encoded_stage}
        return encoded if self.finished else {"teacher": self.teacher(i), **encoded}


def _train(bench: Bench, columns: Sequence[int], seed: int, scope: str, work: Path) -> None:
    """Train a teacher of some outputs and save it as a transformers folder."""
    from torch.nn.functional import cross_entropy

    from kbench.engine.feed import inputs, unit_logits
    from kbench.engine.loop import fit
    from kbench.engine.predict import predict

    assert bench.runtime is not None and bench.report is not None
    labels = bench.task.local(columns)[bench.records.labels("train")]
    rows = np.arange(bench.records.rows("train")) if bench.records.tagged else np.flatnonzero(labels >= 0)
    model = bench.model(len(columns), derive(seed, "head"))

    def loss(model: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        logits = model(**inputs(batch)).logits
        return {"cross_entropy": cross_entropy(unit_logits(logits.float(), batch), batch["label"])}

    runtime, chosen = bench.runtime, bench.teacher.selection is Selection.best_val
    if chosen and "validation" not in bench.records.splits:
        hint = "take last"
        raise UserError(Problem("teacher.selection", f"{bench.data.name} has no validation split to choose by", hint))

    def evaluate(model: nn.Module) -> float:
        scores = predict(model, bench.feed("validation"), runtime, bench.teacher.precision, may_stop=False)
        return float(bench.task.main_score(scores, *bench.gold("validation")))

    fit(
        model,
        bench.lessons(rows, {"label": labels}),
        loss,
        bench.teacher,
        bench.runtime,
        seed=seed,
        folder=work / "checkpoints",
        report=bench.report,
        scope=scope,
        evaluate=evaluate if chosen else None,
        log_every=bench.log_every,
    )
    if bench.runtime.is_main:
        bench.save(model, work, columns)
        shutil.rmtree(work / "checkpoints", ignore_errors=True)
