"""Means, intervals, verdicts and claims against examples worked out with printed t tables, and Welch against scipy."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from scipy.stats import ttest_ind

from kbench.runs.result import Result, Setting
from kbench.tables import render
from kbench.tables.collect import Cell, Grid
from kbench.tables.spec import Axis, Published, Table
from kbench.tables.statistics import Estimate, Holds, Verdict, claim, difference, estimate, verdict

# t tables, 97.5 %: 12.7062 (1 degree of freedom), 4.30265 (2), 2.77645 (4)


@pytest.mark.parametrize(
    ("values", "mean", "half"),
    [
        ([80.0, 82.0], 81.0, 12.7062),  # s = sqrt 2, s / sqrt 2 = 1
        ([90.0, 91.0, 92.0], 91.0, 2.48414),  # s = 1, 4.30265 / sqrt 3
        ([1.0, 2.0, 3.0, 4.0, 5.0], 3.0, 1.96324),  # s = sqrt 2.5, s / sqrt 5 = 0.707107
        ([70.0, 70.0, 70.0], 70.0, 0.0),
    ],
)
def test_estimate_of_worked_examples(values: list[float], mean: float, half: float) -> None:
    found = estimate(values)
    assert (found.mean, found.half) == (pytest.approx(mean), pytest.approx(half, abs=2e-5))
    assert found.n == len(values)
    assert (found.low, found.high) == (pytest.approx(mean - half, abs=2e-5), pytest.approx(mean + half, abs=2e-5))


def test_one_value_has_no_interval() -> None:
    found = estimate([83.5])
    assert found == Estimate(83.5, None, 1)
    assert (found.low, found.high) == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("values", "paper", "mean", "half"),
    [
        # equal variances 4 and equal n = 3: 4 degrees of freedom, sqrt(8 / 3) * 2.77645
        ([80.0, 82.0, 84.0], Published(80.0, 2.0), 2.0, 4.53393),
        # the paper's value is fixed: ours alone, 2 / sqrt 3 * 4.30265
        ([80.0, 82.0, 84.0], Published(80.0, None), 2.0, 4.96827),
        ([80.0, 82.0, 84.0], Published(80.0, 0.0), 2.0, 4.96827),
        # ours does not vary: theirs alone, 1.2 / sqrt 3 * 4.30265
        ([85.0, 85.0, 85.0], Published(84.0, 1.2), 1.0, 2.98096),
        ([85.0, 85.0, 85.0], Published(84.0, 0.0), 1.0, 0.0),
        ([85.0, 85.0, 85.0], Published(86.5, None), -1.5, 0.0),
    ],
)
def test_difference_of_worked_examples(values: list[float], paper: Published, mean: float, half: float) -> None:
    found = difference(values, paper, 3)
    assert (found.mean, found.half) == (pytest.approx(mean), pytest.approx(half, abs=3e-5))
    assert found.n == 3


@pytest.mark.parametrize("ours_n", [2, 3, 5, 10])
@pytest.mark.parametrize("paper_n", [2, 3, 8])
@pytest.mark.parametrize("spread", [0.1, 1.0, 6.0])
def test_difference_is_welchs_interval(ours_n: int, paper_n: int, spread: float) -> None:
    rng = random.Random(1000 * ours_n + paper_n)
    ours = [rng.gauss(85, 1) for _ in range(ours_n)]
    theirs = [rng.gauss(84, spread) for _ in range(paper_n)]
    expected = ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    found = difference(ours, Published(statistics.fmean(theirs), statistics.stdev(theirs)), paper_n)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert found.mean == pytest.approx(statistics.fmean(ours) - statistics.fmean(theirs))


@pytest.mark.parametrize("std", [None, 0.0, 1.5])
def test_difference_of_one_run_has_no_interval(std: float | None) -> None:
    assert difference([85.0], Published(84.0, std), 3) == Estimate(1.0, None, 1)


@pytest.mark.parametrize(
    ("values", "tolerance", "word"),
    [
        ([90.0, 91.0, 92.0], 3.0, Verdict.reproduced),  # 0.5 +- 2.48414: [-1.98, 2.98]
        ([92.4, 92.5, 92.6], 3.0, Verdict.reproduced),  # 2 +- 0.248414: above 0, yet within the tolerance
        ([92.4, 92.5, 92.6], 2.2, Verdict.above),  # the upper end, 2.248, is not
        ([93.0, 94.0, 95.0], 1.0, Verdict.above),  # 3.5 +- 2.48414: [1.02, 5.98]
        ([86.0, 87.0, 88.0], 1.0, Verdict.below),  # -3.5 +- 2.48414: [-5.98, -1.02]
        ([88.4, 88.5, 88.6], 2.2, Verdict.below),  # -2 +- 0.248414: the lower end is not within
        ([90.0, 91.0, 92.0], 1.0, Verdict.within_noise),  # [-1.98, 2.98]
        ([89.0, 90.0, 91.0], 2.9, Verdict.within_noise),  # -0.5 +- 2.48414: [-2.98, 1.98]
        ([89.0, 90.0, 91.0], 3.0, Verdict.reproduced),
        ([90.5], 3.0, Verdict.needs_seeds),
        ([90.5, 90.5], 0.5, Verdict.reproduced),  # 0 +- 0
        ([91.5, 91.5], 0.5, Verdict.above),  # 1 +- 0
    ],
)
def test_verdict_of_worked_examples(values: list[float], tolerance: float, word: Verdict) -> None:
    assert verdict(difference(values, Published(90.5), 3), tolerance) is word


def test_the_ends_of_the_tolerance_count_as_within() -> None:
    assert verdict(Estimate(0.0, 1.0, 3), 1.0) is Verdict.reproduced
    assert verdict(Estimate(0.0, 1.0, 3), 0.999) is Verdict.within_noise


def test_an_interval_that_ends_at_zero_holds_zero() -> None:
    assert verdict(Estimate(2.0, 2.0, 3), 1.0) is Verdict.within_noise
    assert verdict(Estimate(-2.0, 2.0, 3), 1.0) is Verdict.within_noise


# Words that depend on what was run.


def result(accuracy: float, train: int) -> Result:
    rows, complete = {"train": train, "test": 800}, {"train": 1600, "test": 800}
    setting = Setting("finetune", "toy", "tiny", 1, "generated", rows, complete, "-")
    return Result("k", setting, {"test": {"accuracy": accuracy}}, {}, {}, {}, {}, {}, {}, {}, {})


def shown(accuracies: list[float], paper: Published | None, *, train: int = 1600, paper_setting: bool = True) -> str:
    """The word in a table of one cell with these runs."""
    axis = {"one": Axis("one")}
    published = {"one": {"one": paper}} if paper else {}
    table = Table("p/t", "", "", "accuracy", (1, 2, 3), 3, 1.0, axis, axis, published)
    results = {seed: result(accuracy, train) for seed, accuracy in enumerate(accuracies, start=1)}
    cell = Cell(paper_setting=paper_setting, metric="accuracy", results=results)
    grid = Grid(table, axis, axis, {("one", "one"): cell}, ())
    return render.lines(grid)[0].verdict


WORDS = [
    ([0.9049, 0.905, 0.9051], Published(90.5), {}, "reproduced"),  # 0 +- 0.0248 points
    ([0.93, 0.94, 0.95], Published(90.5), {}, "above"),
    ([0.86, 0.87, 0.88], Published(90.5), {}, "below"),
    ([0.90, 0.91, 0.92], Published(90.5), {}, "within noise"),
    ([0.905], Published(90.5), {}, "needs 2 seeds"),
    ([0.905, 0.905], Published(90.5), {"train": 1000}, "other setting"),
    ([0.905, 0.905], Published(90.5), {"paper_setting": False}, "other setting"),
    ([], Published(90.5), {}, "not run"),
    ([0.905, 0.905], None, {}, "paper value absent"),
]


@pytest.mark.parametrize(("accuracies", "paper", "options", "word"), WORDS)
def test_the_word_in_a_table(accuracies: list[float], paper: Published | None, options: dict, word: str) -> None:
    assert shown(accuracies, paper, **options) == word


def test_every_word_has_an_example() -> None:
    assert {word for *_, word in WORDS} == {word.value for word in Verdict}


# Claims.


def test_a_claim_is_paired_by_seed() -> None:
    # seeds differ by 10 points, the pairs by 2, 2.1, 1.9: 2 +- 0.1 / sqrt 3 * 4.30265; unpaired it would be open
    found, word = claim({1: 72.0, 2: 82.1, 3: 91.9}, {3: 90.0, 1: 70.0, 2: 80.0})
    assert (found.mean, found.half, found.n) == (pytest.approx(2.0), pytest.approx(0.248414, abs=1e-5), 3)
    assert word is Holds.holds


def test_a_claim_fails_where_the_interval_lies_below_zero() -> None:
    found, word = claim({1: 70.0, 2: 80.0, 3: 90.0}, {1: 72.0, 2: 82.1, 3: 91.9})
    assert (found.mean, found.high) == (pytest.approx(-2.0), pytest.approx(-1.751586, abs=1e-5))
    assert word is Holds.fails


def test_a_claim_is_open_where_the_interval_holds_zero() -> None:
    # pairs 1, 1.5, 2.5: s = 0.763763, half 0.763763 / sqrt 3 * 4.30265 = 1.89730 above the mean 1.66667
    found, word = claim({1: 80.0, 2: 82.0, 3: 84.0}, {1: 79.0, 2: 80.5, 3: 81.5})
    assert (found.mean, found.half) == (pytest.approx(1.66667, abs=1e-5), pytest.approx(1.89730, abs=1e-5))
    assert word is Holds.open


def test_equal_rows_leave_a_claim_open() -> None:
    assert claim({1: 80.0, 2: 82.0}, {1: 80.0, 2: 82.0}) == (Estimate(0.0, 0.0, 2), Holds.open)


def test_only_seeds_of_both_rows_count() -> None:
    found, word = claim({1: 99.0, 2: 82.0, 3: 84.0}, {2: 81.0, 3: 83.0, 4: 0.0})
    assert (found, word) == (Estimate(1.0, 0.0, 2), Holds.holds)
    found, word = claim({1: 99.0, 2: 82.0}, {2: 81.0, 3: 83.0})
    assert (found, word) == (Estimate(1.0, None, 1), Holds.open)


def test_a_fixed_run_is_compared_with_every_seed_of_the_other() -> None:
    # 82, 83, 84 against 80 of another seed: 3 +- 2.48414
    several, fixed = {1: 82.0, 2: 83.0, 3: 84.0}, {7: 80.0}
    found, word = claim(several, fixed, than_is_fixed=True)
    assert (found.mean, found.half, found.n) == (pytest.approx(3.0), pytest.approx(2.48414, abs=1e-5), 3)
    assert word is Holds.holds
    # one of several seeds so far is no fixed run: there is no pair
    assert claim(several, fixed) is None


def test_two_single_runs_leave_a_claim_open() -> None:
    assert claim({1: 90.0}, {1: 80.0}) == (Estimate(10.0, None, 1), Holds.open)


@pytest.mark.parametrize(
    ("better", "than"), [({}, {1: 80.0}), ({1: 80.0}, {}), ({}, {}), ({1: 80.0, 2: 81.0}, {3: 80.0, 4: 81.0})]
)
def test_a_claim_without_pairs_says_nothing(better: dict[int, float], than: dict[int, float]) -> None:
    assert claim(better, than) is None
