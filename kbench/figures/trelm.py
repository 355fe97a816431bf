"""The figures of TRELM's paper: fine-tuned scores by option, and the curves of the pre-trainings behind them.

Figure 3: which mentions should be injected? Figures 4 and 6: how fast does the loss fall, and what brings it? Figure 5:
after which part of the pre-training is it good enough? Figures 7 and 8: what do theta, k and beta do?
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kbench.figures.curves import HEAD, WINDOW, Curve, Needed, curves
from kbench.figures.drawing import COLOURS, Drawing
from kbench.figures.scores import INTERVAL, SPREAD, VERDICTS, Scores
from kbench.figures.units import operations_unit, part_of, percent, time, time_unit
from kbench.tables.collect import Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DRAWN = 600  # points of a curve in a picture; its CSV has all
_EARLY = 0.25  # part of its training after which figure 6 looks at the loss of the arm with nothing
_K, _BETA = 16, 2  # the paper's choices
_METHODS = {"trelm": "TRELM", "dkplm": "DKPLM-like"}
_COST = "time and operations are of the pre-training alone: vectors and importance of mentions are made before it"
Fact = tuple[str, str, str]


def injection_targets(grid: Grid, column: str) -> Drawing:
    """Figure 3: the metric by the rule that selects the mentions to inject."""
    scores = Scores.of(grid, column)
    rows, label = list(scores.values), scores.labels
    facts = scores.facts()
    for better, than in [("long_tail", "high_frequency"), *((row, "all") for row in rows if row != "all")]:
        said = scores.verdict([(better, than)])
        if said is not None:
            facts.append((f"{label[better]} above {label[than]}", said, grid.table.stated["better"]))

    def picture(figure: Figure) -> None:
        axes = figure.subplots()
        for place, row in enumerate(rows):
            scores.draw(axes, {row: place}, COLOURS[place], line=False)
        axes.set_xticks(range(len(rows)), [label[row] for row in rows])
        axes.set(xlabel="injected mentions", ylabel=f"{scores.name} [%]", xlim=(-0.6, len(rows) - 0.4))
        axes.grid(axis="y", alpha=0.3, linewidth=0.5)

    tables: Any = {"runs": (["row", "seed", scores.metric], scores.lines())}
    return Drawing(tables, facts, picture, size=(5.4, 3.2), notes=[SPREAD, VERDICTS])


def losses(grid: Grid, column: str) -> Drawing:
    """Figure 4: the loss of masked words over time and counted operations, beside the DKPLM-like training's."""
    found, notes = curves(grid, column)
    stated = grid.table.stated
    raced, lines = _races(found, "dkplm", [1.0], {"trelm": stated["converged"]})
    for row, curve in found.items():
        paper = stated["falls"] if row == "trelm" else ""
        raced.append((f"roughness in the last half, {curve.label}", f"{curve.roughness:.4f}", paper))
    notes.append("roughness: standard deviation of a logged point about the trend, from differences of neighbours")
    return _of_curves(grid, column, found, "dkplm", [1.0], raced, lines, notes)


def savings(grid: Grid, column: str) -> Drawing:
    """Figure 6: the loss of masked words with memory bank and routing, each alone, and neither."""
    found, notes = curves(grid, column)
    stated = dict.fromkeys(("both", "memory", "routing"), grid.table.stated["speeds_up"])
    raced, lines = _races(found, "neither", [_EARLY, 1.0], stated)
    return _of_curves(grid, column, found, "neither", [_EARLY, 1.0], raced, lines, notes)


def progress(grid: Grid, column: str) -> Drawing:
    """Figure 5: the metric after parts of the pre-training, over that part, its operations and its time."""
    scores = Scores.of(grid, column)
    found, absent = curves(grid, column)
    methods = {row: _method(grid, row, column) for row in scores.values}
    part = {row: float(method.part) for row, method in methods.items()}
    series = {
        name: sorted((row for row in methods if methods[row].name == name), key=part.__getitem__) for name in _METHODS
    }
    needed = {row: found[row].at(part[row]) for row in methods if row in found}
    final = next((row for row in series["dkplm"] if part[row] == 1), None)
    facts = scores.facts()
    if final is not None and series["trelm"]:
        facts += _earliest(scores, series["trelm"], final, part, needed, grid.table.stated)

    def picture(figure: Figure) -> None:
        panels = figure.subplots(1, 3, sharey=True)
        cost = operations_unit(one.operations for one in needed.values())
        clock = time_unit(one.seconds for one in needed.values())
        axis: list[tuple[str, Mapping[str, float]]] = [
            ("part of the pre-training [%]", {row: 100 * value for row, value in part.items()}),
            (f"counted operations [{cost.label}]", {row: one.operations / cost.size for row, one in needed.items()}),
            (f"time of pre-training [{clock.label}]", {row: one.seconds / clock.size for row, one in needed.items()}),
        ]
        for axes, (name, at) in zip(panels, axis, strict=True):
            for place, (method, rows) in enumerate(series.items()):
                own = {row: at[row] for row in rows if row in at}
                if own:
                    scores.draw(axes, own, COLOURS[place], _METHODS[method])
            if final is not None:
                axes.axhline(scores.mean(final), color=COLOURS[1], linewidth=0.8, linestyle=":")
            axes.set_xlabel(name)
            axes.set_xlim(left=0)
        panels[0].set_xticks([0, 25, 50, 75, 100])
        panels[0].set_ylabel(f"{scores.name} [%]")
        _legend(figure, panels[0])

    lines = []
    for row, seed, value in scores.lines():
        cost = [needed[row].seconds, needed[row].operations] if row in needed else ["", ""]
        lines.append([methods[row].name, part[row], seed, value, *cost])
    head = ["method", "part", "seed", scores.metric, "seconds", "operations"]
    notes = [
        SPREAD,
        "a part is a model kept on the way of one training, before its learning rate has come down: it is no shorter "
        "training",
        "the dotted line is the DKPLM-like model after all of its pre-training",
        INTERVAL,
        _COST,
        *_machines(found),
        *absent,
    ]
    return Drawing({"runs": (head, lines)}, facts, picture, size=(8.6, 3.4), notes=notes)


def theta(grid: Grid, column: str) -> Drawing:
    """Figure 7: the metric against theta, the weight of masked words in the loss."""
    scores = Scores.of(grid, column)
    at = {row: float(_method(grid, row, column).theta) for row in scores.values}
    chosen = float(grid.table.stated["best"])
    facts = scores.facts("theta = ")
    if at:
        facts.append(("best theta", f"{at[max(at, key=scores.mean)]:g}", f"{chosen:g}"))
    said = scores.verdict((row, other) for row in at for other in at if at[row] == chosen != at[other])
    if said is not None:
        facts.append((f"theta = {chosen:g} above every other", said, "rises to it, then falls"))

    def picture(figure: Figure) -> None:
        axes = figure.subplots()
        _chosen(axes, chosen)
        scores.draw(axes, at, COLOURS[0])
        axes.set_xticks(sorted(set(at.values())))
        axes.set(xlabel="theta, weight of masked words in the loss", ylabel=f"{scores.name} [%]")

    lines = [[at[row], seed, value] for row, seed, value in scores.lines()]
    notes = [SPREAD, VERDICTS, "the dotted line is the paper's choice"]
    return Drawing({"runs": (["theta", "seed", scores.metric], lines)}, facts, picture, size=(5.0, 3.2), notes=notes)


def window(grid: Grid, column: str) -> Drawing:
    """Figure 8: the metric against k, the window of a note, and against beta, the memory's decay."""
    scores = Scores.of(grid, column)
    memory = {row: _method(grid, row, column).memory for row in scores.values}
    k = {row: float(memory[row].window) for row in memory if row.startswith("k_")}
    beta = {row: float(memory[row].beta) for row in memory if row.startswith("beta_")}
    stated, facts = grid.table.stated, scores.facts()
    for name, at, chosen in (("k", k, _K), ("beta", beta, _BETA)):
        if at:
            facts.append((f"best {name}", f"{at[max(at, key=scores.mean)]:g}", str(chosen)))
    asked = [
        ("k = 16 above k = 4", [("k_16", "k_4")], stated["k"]),
        ("k = 16 above k = 32", [("k_16", "k_32")], stated["k"]),
        ("beta = 1 below every other", [(row, "beta_1") for row in beta if row != "beta_1"], stated["beta"]),
        ("beta = 2 above every other", [("beta_2", row) for row in beta if row != "beta_2"], stated["beta"]),
    ]
    for what, pairs, paper in asked:
        said = scores.verdict(pairs)
        if said is not None:
            facts.append((what, said, paper))

    def picture(figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharey=True)
        names = ("k, tokens of a note on each side", "beta, decay of the memory's share")
        for place, (axes, at, chosen) in enumerate(zip(panels, (k, beta), (_K, _BETA), strict=True)):
            _chosen(axes, chosen)
            if at is k:
                axes.set_xscale("log", base=2)
            if at:
                scores.draw(axes, at, COLOURS[place])
            values = sorted(set(at.values()))
            axes.set_xticks(values, [f"{value:g}" for value in values])
            axes.set_xlabel(names[place])
        panels[0].set_ylabel(f"{scores.name} [%]")

    lines = [
        [name, at[row], seed, value]
        for name, at in (("k", k), ("beta", beta))
        for row, seed, value in scores.lines()
        if row in at
    ]
    notes = [SPREAD, VERDICTS, f"the dotted lines are the paper's choices, k = {_K} and beta = {_BETA}"]
    tables: Any = {"runs": (["option", "value", "seed", scores.metric], lines)}
    return Drawing(tables, facts, picture, size=(7.0, 3.2), notes=notes)


FIGURES: dict[str, Callable[[Grid, str], Drawing]] = {
    "injection_targets": injection_targets,
    "losses": losses,
    "progress": progress,
    "savings": savings,
    "theta": theta,
    "window": window,
}


def _races(
    found: Mapping[str, Curve], reference: str, parts: Sequence[float], stated: Mapping[str, str]
) -> tuple[list[Fact], list[list[Any]]]:
    """What each training needed until the loss that the reference has after parts of its own: facts, and CSV lines."""
    ends = {row: curve.final for row, curve in found.items()}
    base = found.get(reference)
    facts = []
    for row, curve in found.items():
        share = f", {percent(ends[row] / base.final)} of {base.label}'s" if base and row != reference else ""
        facts.append((f"final loss of masked words, {curve.label}", f"{ends[row]:.4f}{share}", ""))
    lines: list[list[Any]] = []
    if base is None:
        return facts, lines
    for part in parts:
        loss = base.level(part)
        own = base.reaches(loss)
        assert own is not None
        whose = f"final loss of {base.label}" if part == 1 else f"loss of {base.label} after {percent(part)}"
        said = f"after {time(own.seconds)}, {percent(own.share_of(base.whole).seconds)} of all; the others: of that"
        facts.append((f"to the {whose}, itself", said, ""))
        for row, curve in found.items():
            needed = curve.reaches(loss)
            of_own = needed.share_of(own) if needed is not None else None
            lines.append([row, part, loss, *_cost(needed), *_cost(of_own)])
            if row == reference:
                continue
            said = "not reached"
            if needed is not None and of_own is not None:
                said = f"{percent(of_own.seconds)} of the time ({part_of(needed.seconds, own.seconds)}), "
                said += f"{percent(of_own.operations)} of the operations"
            facts.append((f"to the {whose}, {curve.label}", said, stated.get(row, "")))
    return facts, lines


def _cost(needed: Needed | None) -> list[Any]:
    return ["", ""] if needed is None else [needed.seconds, needed.operations]


def _of_curves(
    grid: Grid,
    column: str,
    found: Mapping[str, Curve],
    reference: str,
    parts: Sequence[float],
    facts: list[Fact],
    lines: list[list[Any]],
    notes: list[str],
) -> Drawing:
    """A drawing of loss curves over time and over operations."""
    scores = Scores.of(grid, column)
    levels = [found[reference].level(part) for part in parts] if reference in found else []

    def picture(figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharey=True)
        clock = time_unit(curve.whole.seconds for curve in found.values())
        cost = operations_unit(curve.whole.operations for curve in found.values())
        for place, (row, curve) in enumerate(found.items()):
            axis = (curve.seconds / clock.size, curve.operations / cost.size)
            for axes, x in zip(panels, axis, strict=True):
                _curve(axes, x, curve, COLOURS[place], behind=row == reference)
                _reached(axes, x, curve, levels, COLOURS[place])
        colour = COLOURS[list(found).index(reference)] if levels else COLOURS[6]
        for axes in panels:
            for level in levels:
                axes.axhline(level, color=colour, linewidth=0.8, linestyle=":")
            axes.set_xlim(left=0)
        panels[0].set(xlabel=f"time of pre-training [{clock.label}]", ylabel="loss of masked words")
        panels[1].set_xlabel(f"counted operations [{cost.label}]")
        _legend(figure, panels[0])

    tables: Any = {
        "curves": (["row", *HEAD], [[row, *line] for row, curve in found.items() for line in curve.lines()]),
        "reached": (
            ["row", "part", "loss", "seconds", "operations", "share_of_seconds", "share_of_operations"],
            lines,
        ),
        "runs": (["row", "seed", scores.metric], scores.lines()),
    }
    said = [
        f"strong lines, and the losses in the table: mean over the last {100 * WINDOW:g} % of a training's steps; "
        "pale: as logged",
        "dotted: the losses that are raced to; dots: where they are first reached",
        "the loss of masked words is divided by its weight, theta: the mean cross-entropy of a masked token",
        "trainings mask other words where they inject other mentions: an injected mention holds no masked word",
        "one training each, with one seed: no spread is known",
        _COST,
    ]
    return Drawing(
        tables, facts + scores.facts(), picture, size=(8.4, 3.6), notes=[*said, *_machines(found), SPREAD, *notes]
    )


def _earliest(
    scores: Scores,
    rows: Sequence[str],
    final: str,
    part: Mapping[str, float],
    needed: Mapping[str, Needed],
    stated: Mapping[str, Any],
) -> list[Fact]:
    """The first of some parts whose metric is at least the final one of another training, and what it needed."""
    what = f"smallest part of {_METHODS['trelm']} with at least the final {scores.name} of {_METHODS['dkplm']}"
    first = next((row for row in rows if scores.mean(row) >= scores.mean(final)), None)
    if first is None:
        return [(what, "not reached", stated["comparable"])]
    difference = (scores.verdict([(first, final)]) or "").partition(": ")[2]
    facts = [(what, f"{percent(part[first])}: {difference} points", stated["comparable"])]
    if first in needed and final in needed:
        share = needed[first].share_of(needed[final])
        facts.append(("time saved by then", percent(1 - share.seconds), stated["claimed"]))
        facts.append(("operations saved by then", percent(1 - share.operations), ""))
    return facts


def _curve(axes: Axes, x: np.ndarray, curve: Curve, colour: str, behind: bool) -> None:
    """A curve as logged, pale, and smoothed; of very many points a part."""
    step = -(-len(x) // _DRAWN)
    shown = np.unique(np.append(np.arange(0, len(x), step), len(x) - 1))
    axes.plot(x[shown], curve.words[shown], color=colour, alpha=0.22, linewidth=0.7, zorder=1)
    axes.plot(
        x[shown], curve.smoothed[shown], color=colour, linewidth=1.5, label=curve.label, zorder=2 if behind else 3
    )


def _reached(axes: Axes, x: np.ndarray, curve: Curve, levels: Sequence[float], colour: str) -> None:
    for level in levels:
        there = np.flatnonzero(curve.smoothed <= level)
        if len(there):
            axes.plot(x[there[0]], curve.smoothed[there[0]], "o", color=colour, markersize=4.5, zorder=4)


def _chosen(axes: Axes, value: float) -> None:
    axes.axvline(value, color=COLOURS[6], linewidth=0.8, linestyle=":", zorder=0)


def _legend(figure: Figure, axes: Axes) -> None:
    """One legend below all panels, so that it covers no data."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)


def _machines(found: Mapping[str, Curve]) -> list[str]:
    machines = list(dict.fromkeys(curve.made_on for curve in found.values()))
    if len(machines) > 1:
        return [f"trained on different machines, so that times do not compare: {'; '.join(machines)}"]
    return [f"trained on {machine}" for machine in machines]


def _method(grid: Grid, row: str, column: str) -> Any:
    """The method's options in a row's runs."""
    return next(iter(grid.cells[row, column].runs.values())).config.method
