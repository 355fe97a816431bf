"""Curves and scores of figures against naive loops and worked numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from kbench.figures.curves import HEAD, WINDOW, Curve, Needed
from kbench.figures.draw import MODULES, draw
from kbench.figures.scores import Scores
from kbench.figures.units import operations_unit, part_of, percent, time, time_unit


def curve(steps, words, rate=2.0):
    steps = np.array(steps)
    nothing = np.full(len(steps), np.nan)
    words = np.array(words, dtype=float)
    return Curve("c", "cpu", steps, steps / rate, steps * 100.0, steps * 7.0, words + 1, words, nothing)


def test_smoothing_is_a_mean_over_the_last_steps_whatever_the_points_cover():
    rng = np.random.default_rng(3)
    steps = np.cumsum(rng.integers(1, 8, size=90))
    one = curve(steps, rng.normal(5, 1, size=90))
    window = round(WINDOW * steps[-1])
    assert window > 8  # of several points
    for place, step in enumerate(steps):
        if step < window:
            assert math.isnan(one.smoothed[place])
            continue
        total = count = 0.0
        for other in range(place + 1):
            if steps[other] > step - window:
                covered = steps[other] - (steps[other - 1] if other else 0)
                total, count = total + one.words[other] * covered, count + covered
        assert one.smoothed[place] == pytest.approx(total / count)


def test_a_short_training_is_not_smoothed():
    one = curve([1, 2, 3, 4], [4.0, 3.0, 5.0, 2.0])
    assert one.smoothed.tolist() == [4.0, 3.0, 5.0, 2.0]
    assert one.final == 2.0 and one.level(0.5) == 3.0 and one.level(0.51) == 5.0 and one.level(1.0) == 2.0


def test_what_is_needed_until_a_loss_is_reached():
    slow, fast = curve([1, 2, 3, 4], [4.0, 3.0, 2.5, 2.5]), curve([1, 2, 3, 4], [4.0, 2.4, 3.0, 3.0], rate=4.0)
    assert slow.reaches(slow.final) == Needed(1.5, 300.0)  # the first time, for itself, too
    needed = fast.reaches(slow.final)
    assert needed == Needed(0.5, 200.0)
    share = needed.share_of(slow.reaches(slow.final))
    assert (share.seconds, share.operations) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert fast.reaches(2.0) is None
    assert math.isnan(needed.share_of(Needed(0.0, 1.0)).seconds)


def test_an_early_dip_before_the_first_window_reaches_nothing():
    noisy = curve(range(1, 101), [0.0] + [5.0] * 99)
    assert noisy.reaches(0.5) is None
    assert noisy.reaches(4.0).operations == 500.0  # (0 + 4 * 5) / 5


def test_a_part_is_counted_as_snapshots_are_between_logged_points():
    one = curve([10, 20, 27], [3.0, 2.0, 1.0])
    assert one.at(1.0) == one.whole == Needed(13.5, 2700.0)
    assert one.at(0.25) == Needed(3.5, 700.0)  # round(6.75) = step 7, before the first point
    assert one.at(0.5) == Needed(7.0, 1400.0)
    assert one.at(0.001) == Needed(0.5, 100.0)


def test_roughness_is_noise_without_the_trend():
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.normal(size=4000)
    trend = np.linspace(9, 3, 4000)
    assert curve(range(1, 4001), trend + noise).roughness == pytest.approx(0.1, rel=0.05)
    assert curve(range(1, 4001), trend).roughness < 0.002
    assert math.isnan(curve([1], [3.0]).roughness)


def test_lines_leave_empty_what_is_no_number():
    one = replace(curve(range(1, 41), [3.0] * 40), knowledge=np.array([1.5] * 40))
    first, last = (dict(zip(HEAD, line, strict=True)) for line in (one.lines()[0], one.lines()[-1]))
    assert first["words_loss_smoothed"] == "" and last["words_loss_smoothed"] == 3.0
    assert last["step"] == 40 and last["knowledge_loss"] == 1.5 and curve([1], [1.0]).lines()[0][-1] == ""


def scores(**rows):
    values = {row: dict(enumerate(numbers, start=1)) for row, numbers in rows.items()}
    return Scores("f1", values, {row: row for row in rows})


def test_verdicts_follow_the_paired_interval():
    found = scores(a=[5.0, 6.0, 7.2], b=[4.0, 5.1, 6.0], c=[6.0, 4.0, 7.0], one=[9.0])
    pairs = np.array([1.0, 0.9, 1.2])
    half = stats.sem(pairs) * stats.t.ppf(0.975, 2)
    shown = f"{pairs.mean():+.2f} [{pairs.mean() - half:+.2f}, {pairs.mean() + half:+.2f}]"
    assert found.verdict([("a", "b")]) == f"holds: {shown}"
    assert found.verdict([("b", "a")]).startswith("does not hold: -1.03 [")
    assert found.verdict([("a", "c")]).startswith("open: ")
    assert found.verdict([("one", "a")]) == "open: +4.00"
    assert found.verdict([("a", "absent")]) is None


def test_a_claim_of_several_pairs_holds_where_all_do():
    found = scores(a=[5.0, 6.0, 7.2], b=[4.0, 5.1, 6.0], c=[3.0, 4.1, 5.0], d=[6.0, 4.0, 7.0])
    assert found.verdict([("a", "c"), ("a", "b")]) == found.verdict([("a", "b")])  # the smallest difference
    assert found.verdict([("a", "b"), ("a", "d")]).startswith("open: +0.40")
    assert found.verdict([("a", "d"), ("c", "b")]).startswith("does not hold: -1.00")


def test_facts_say_spread_and_seeds():
    found = scores(a=[5.0, 7.0], b=[4.0])
    assert [fact[1] for fact in found.facts()] == ["6.00 ± 1.41, 2 seeds", "4.00, 1 seed"]
    assert found.facts()[0][0] == "F1, a" and found.lines() == [["a", 1, 5.0], ["a", 2, 7.0], ["b", 1, 4.0]]


def test_units():
    assert [time_unit([value]).label for value in (0.1, 119, 120, 7199, 7200, 2 * 86400)] == [
        "s", "s", "min", "min", "h", "days",
    ]  # fmt: skip
    assert time(246) == "4.1 min" and part_of(90, 246) == "1.5 of 4.1 min"
    assert percent(0.4123) == "41.2 %"
    assert operations_unit([5e9, 2.0]) == operations_unit([999e9])
    assert operations_unit([5e9]).size == 1e9 and operations_unit([5e9]).label == "$10^{9}$"
    assert operations_unit([]).size == 1 and operations_unit([12.0]).label == "1"


def test_every_figure_that_is_listed_is_drawn_by_its_module():
    from importlib import import_module

    for name, module in MODULES.items():
        assert callable(import_module(f"kbench.figures.{module}").FIGURES[name])


def test_an_unknown_figure_is_one_message():
    from dataclasses import replace as other

    from kbench.errors import ConfigError
    from kbench.tables.collect import Grid
    from kbench.tables.spec import load

    table = other(load("trelm/figure4"), figure="loses")
    with pytest.raises(ConfigError, match="nobody draws: loses; did you mean losses"):
        draw(Grid(table, {}, {}, {}, ()))
