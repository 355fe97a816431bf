"""The figures of MUKI's paper, from what finished runs left: stored teacher outputs, scores and results.

Figure 2: is the right teacher less uncertain than the wrong one? Figure 4: how far is the supervision from a supervised
model's? Figure 5: where is the wrong teacher chosen? Figure 6: what does the temperature tau do?
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kbench.engine.seeding import derive
from kbench.errors import ConfigError, Problem
from kbench.figures.drawing import COLOURS, Drawing
from kbench.runs.execute import PREDICTIONS
from kbench.runs.prepare import Run
from kbench.runs.stored import stored_method
from kbench.tables.collect import Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BINS = 20
_CALIBRATION_BINS = 15


def uncertainties(grid: Grid, column: str) -> Drawing:
    """Figure 2: uncertainty of the right and of the most certain wrong teacher, without and with dropout samples."""
    from sklearn.metrics import roc_auc_score

    from kbench.methods.integration import padded_scores
    from kbench.methods.muki import McMode

    run = _run(grid, "muki", column)
    sampled: Any = stored_method(run)
    plain: Any = stored_method(run, mc=replace(run.config.method.mc, mode=McMode.deterministic))
    records, teachers = sampled.bench.records, sampled.teachers
    right = sampled.right_teacher
    units = np.flatnonzero(right >= 0)  # words outside entities have no right teacher
    count = min(int(grid.table.stated["instances"]), len(units))
    chosen = np.sort(np.random.default_rng(derive(1, "figure 2")).permutation(units)[:count])
    row_of = np.searchsorted(records.ends("train"), chosen, side="right")
    names, gold = sampled.bench.task.outputs, records.labels("train")[chosen]
    values: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    facts = []
    mode = run.config.method.mc.mode
    drawn = "Monte-Carlo dropout" if mode is McMode.mc else f"method.mc.mode={mode.value}"
    for name, method in (("entropy of the prediction", plain), (drawn, sampled)):
        u = 1 - method.certainty[chosen]
        own = np.take_along_axis(u, right[chosen, None], 1)[:, 0]
        others = u.copy()
        others[np.arange(count), right[chosen]] = np.inf
        wrong = others.min(1)
        values[name] = own, wrong
        area = roc_auc_score([0] * count + [1] * count, np.concatenate([own, wrong]))
        facts.append((f"right teacher the more certain, {name}", _percent(np.mean(u.argmin(1) == right[chosen])), ""))
        facts.append((f"AUROC right against wrong, {name}", f"{area:.3f}", ""))
    gold_test = records.labels("test")
    owner_test = teachers.owner[gold_test]
    errors, foreign = [], []
    for i in range(len(teachers)):
        scores = padded_scores(sampled.union, sampled.tensors("test"), i).numpy()
        others_own = (owner_test != i) & (owner_test >= 0)
        errors.append(_calibration_error(scores, gold_test))
        foreign.append(_calibration_error(scores[others_own], gold_test[others_own]))
    stated = grid.table.stated.get("calibration_error_percent", {}).get(column)
    facts.append(
        ("calibration error of the teachers, all test rows", _percent(np.mean(errors)), f"{stated} %" if stated else "")
    )
    facts.append(("the same on rows of other teachers' classes", _percent(np.mean(foreign)), ""))

    (q_own, q_wrong), (p_own, p_wrong) = values.values()
    rows = list(zip(records.numbers("train")[row_of].tolist(), [names[g] for g in gold], (right[chosen] + 1).tolist(),
                    q_own.tolist(), q_wrong.tolist(), p_own.tolist(), p_wrong.tolist(), strict=True))  # fmt: skip
    head = ["row", "gold", "right_teacher", "right_entropy", "wrong_entropy", "right_monte_carlo", "wrong_monte_carlo"]

    def picture(figure: Figure) -> None:
        for axes, (name, (own, wrong)) in zip(figure.subplots(1, 2, sharey=True), values.items(), strict=True):
            bins = np.linspace(0, 1, _BINS + 1).tolist()
            for label, data, colour in (("right teacher", own, COLOURS[0]), ("wrong teacher", wrong, COLOURS[1])):
                axes.hist(data, bins=bins, alpha=0.65, label=label, color=colour)
            axes.set(title=name, xlabel="normalised uncertainty", xlim=(0, 1))
            axes.legend(frameon=False)
        figure.axes[0].set_ylabel("instances")

    return Drawing({"instances": (head, rows)}, facts, picture, notes=[f"{count:,} random training instances"])


def supervision(grid: Grid, column: str) -> Drawing:
    """Figure 4: KL divergence of a supervised model's prediction to the supervision, by the teachers' margin."""
    import torch
    from torch.nn.functional import log_softmax

    from kbench.methods.integration import margin, soft_target

    run = _run(grid, "muki", column)
    method: Any = stored_method(run)
    gold = log_softmax(torch.from_numpy(np.load(_run(grid, "supervised", column).scores("train"))).double(), -1)
    logits = [z.double() for z in method.tensors("train")]
    certainty = torch.from_numpy(method.certainty).double()
    targets = {
        "Vanilla KD": log_softmax(method.union.join(logits), -1),
        "MUKI-Soft": soft_target(method.union, logits, certainty, run.config.method.tau),
    }
    far = {name: (gold.exp() * (gold - target)).sum(-1).numpy() for name, target in targets.items()}
    v = margin(certainty, 0.0).numpy()
    unread = method.unread("train")
    read = np.full(len(v), True) if unread is None else ~unread
    threshold = float(grid.table.stated["margin_threshold"])
    groups = {"all": read, f"v ≥ {threshold:g}": read & (v >= threshold), f"v < {threshold:g}": read & (v < threshold)}
    means = [
        [name, group, int(of.sum()), float(far[name][of].mean()) if of.any() else math.nan]
        for name in targets
        for group, of in groups.items()
    ]
    facts = [(f"KL to {name}, {group} ({n:,} instances)", f"{mean:.3f}", "") for name, group, n, mean in means]
    kd, near = means[0][3], means[4][3]
    says = "-" if math.isnan(near) else "yes" if near < kd else "no"
    facts.append((f"MUKI-Soft with v ≥ {threshold:g} is closer than Vanilla KD", says, "yes"))
    ends = method.bench.records.ends("train")
    numbers = method.bench.records.numbers("train")[np.searchsorted(ends, np.arange(len(v)), side="right")]
    shown_values = (numbers, v, *far.values())
    each = list(zip(*(values[read].tolist() for values in shown_values), strict=True))
    shown = [means[0], means[4], means[5]]

    def picture(figure: Figure) -> None:
        axes = figure.subplots()
        names = [f"{name}\n{group}, n = {n:,}" for name, group, n, _ in shown]
        axes.bar(names, [mean for *_, mean in shown], color=[COLOURS[6], COLOURS[0], COLOURS[1]], width=0.6)
        axes.set_ylabel("KL(supervised || supervision)")

    tables: Any = {
        "instances": (["row", "margin", "kl_vanilla_kd", "kl_muki_soft"], each),
        "groups": (["supervision", "group", "instances", "mean_kl"], means),
    }
    return Drawing(tables, facts, picture, size=(5.0, 3.2), notes=["the hard target is infinitely far by definition"])


def wrong_choices(grid: Grid, column: str) -> Drawing:
    """Figure 5: classes of training instances whose right teacher is not the surest; a supervised model's errors."""
    run = _run(grid, "muki", column)
    method: Any = stored_method(run)
    records, task, owner = method.bench.records, method.bench.task, method.teachers.owner
    units = np.flatnonzero(method.right_teacher >= 0)
    certainty, gold = method.certainty[units], records.labels("train")[units]
    top = np.sort(certainty, 1)
    v = top[:, -1] - top[:, -2]
    wrong = np.take_along_axis(certainty, owner[gold][:, None], 1)[:, 0] < top[:, -1]
    names = task.outputs
    total = np.bincount(gold, minlength=len(names))
    missed = np.bincount(gold[wrong], minlength=len(names))
    shown = [k for k in range(len(names)) if owner[k] >= 0]
    confusion = _confusion(_run(grid, "supervised", column), names)
    stated = grid.table.stated
    worst = [names[k] for k in np.argsort(-missed, kind="stable")[:2]]
    facts = [
        ("wrong teacher the most certain", _percent(wrong.mean()), f"{stated['wrong_selection_share_percent']} %"),
        (
            "mean margin v of these",
            f"{v[wrong].mean():.3f}" if wrong.any() else "-",
            f"{stated['mean_margin_of_wrong_instances']}",
        ),
        ("mean margin v of the others", f"{v[~wrong].mean():.3f}", ""),
        ("classes with most of them", ", ".join(worst), ", ".join(stated["worst_labels"])),
        ("accuracy of the supervised model, test", _percent(np.trace(confusion) / confusion.sum()), ""),
    ]

    def picture(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        colours = [COLOURS[owner[k] % len(COLOURS)] for k in shown]
        left.barh([names[k] for k in shown], [missed[k] for k in shown], color=colours)
        left.invert_yaxis()
        left.set(title="wrong teacher chosen, by gold class", xlabel="training instances (colour: right teacher)")
        shares = confusion / np.maximum(1, confusion.sum(1, keepdims=True))
        image = right.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        right.set_xticks(range(len(names)), names, rotation=90)
        right.set_yticks(range(len(names)), names)
        right.set(title="supervised model, share of gold class", xlabel="predicted", ylabel="gold")
        figure.colorbar(image, ax=right, shrink=0.8)

    classes = [[names[k], int(owner[k]) + 1, int(total[k]), int(missed[k])] for k in shown]
    tables: Any = {
        "classes": (["class", "teacher", "instances", "wrong_teacher"], classes),
        "confusion": (["gold", *names], [[name, *row] for name, row in zip(names, confusion.tolist(), strict=True)]),
    }
    return Drawing(tables, facts, picture, size=(9.0, 4.2))


def temperatures(grid: Grid, column: str) -> Drawing:
    """Figure 6: the metric against the temperature tau, mean and standard deviation over seeds, tau on a log scale."""
    taus, means, deviations, rows = [], [], [], []
    for row in grid.rows:
        values = grid.values(row, column)
        tau = _run(grid, row, column).config.method.tau
        taus.append(tau)
        means.append(float(np.mean(list(values.values()))))
        deviations.append(float(np.std(list(values.values()), ddof=1)) if len(values) > 1 else 0.0)
        rows += [[tau, seed, value] for seed, value in values.items()]
    best = int(np.argmax(means))
    stated, chosen = grid.table.stated, float(grid.table.stated["chosen"])
    metric = next(cell.metric for (_, c), cell in grid.cells.items() if c == column)
    low, high = stated["peak_between"]
    facts = [
        (f"tau = {tau:g}", f"{mean:.2f}" + (f" ± {std:.2f}" if std else ""), "")
        for tau, mean, std in zip(taus, means, deviations, strict=True)
    ]
    facts.append(("best tau", f"{taus[best]:g}", f"{low} to {high}"))
    if chosen in taus:
        facts.append((f"best minus tau = {chosen:g}", f"{means[best] - means[taus.index(chosen)]:.2f} points", ""))

    def picture(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(taus, means, marker="o", color=COLOURS[0])
        low_band, high_band = (np.add(means, np.multiply(sign, deviations)) for sign in (-1, 1))
        axes.fill_between(taus, low_band, high_band, alpha=0.2, color=COLOURS[0], linewidth=0)
        axes.set(xscale="log", xlabel="tau", ylabel=f"{metric} [%]")
        axes.axvline(chosen, color=COLOURS[6], linewidth=0.8, linestyle=":")

    notes = ["mean ± standard deviation over seeds; the dotted line is the paper's choice"]
    return Drawing({"runs": (["tau", "seed", metric], rows)}, facts, picture, size=(5.0, 3.2), notes=notes)


FIGURES: dict[str, Callable[[Grid, str], Drawing]] = {
    "uncertainties": uncertainties,
    "supervision": supervision,
    "wrong_choices": wrong_choices,
    "temperatures": temperatures,
}


def _run(grid: Grid, row: str, column: str) -> Run:
    """The run of a row with the first seed.

    Raises:
        ConfigError: the row was left out.
    """
    if (row, column) not in grid.cells:
        raise ConfigError(Problem("--rows", f"{grid.table.name} needs the run {row}"))
    return next(iter(grid.cells[row, column].runs.values()))


def _percent(share: Any) -> str:
    return f"{100 * float(share):.2f} %"


def _calibration_error(probabilities: np.ndarray, gold: np.ndarray) -> float:
    """Expected calibration error of [units, classes] in 15 equal bins: mean gap of confidence and accuracy."""
    confidence = probabilities.max(1).astype(np.float64)
    gaps = confidence - (probabilities.argmax(1) == gold)
    bins = np.minimum((confidence * _CALIBRATION_BINS).astype(int), _CALIBRATION_BINS - 1)
    return float(np.abs(np.bincount(bins, weights=gaps)).sum() / max(1, len(gold)))


def _confusion(run: Run, names: list[str]) -> np.ndarray:
    """Counts [gold, predicted] of the test predictions that a run wrote."""
    index = {name: position for position, name in enumerate(names)}
    found = np.zeros((len(names), len(names)), dtype=np.int64)
    with (run.folder / PREDICTIONS).open(encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            pairs = [(record["gold"], record["predicted"])]
            if isinstance(record["gold"], list):
                pairs = list(zip(record["gold"], record["predicted"], strict=True))
            for gold, predicted in pairs:
                found[index[gold], index[predicted]] += 1
    return found
