"""Wrong tokens: their chances against worked numbers and plain loops, and what is drawn against the chances."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kbench.knowledge.noise import KINDS, Noise, removed

COUNTS = np.array([7, 0, 16, 1, 81, 16, 3])
SPECIAL = [0, 6]
DRAWS = 200_000


@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        ("unigram", [0, 1, 8, 1, 27, 8, 0]),  # counts to the power 0.75, of 0 as of 1
        ("uniform", [0, 1, 1, 1, 1, 1, 0]),
        # ranks 4, 2, 5, 3, 1 of ids 2 4 5 by count: 81 is the first, of the two 16 the lower id is the second
        ("log_uniform", [0, *(math.log((r + 2) / (r + 1)) for r in (4, 1, 3, 0, 2)), 0]),
    ],
)
def test_chances_are_the_worked_ones(kind: str, weights: list[float]) -> None:
    noise = Noise(COUNTS, kind, special=SPECIAL)
    expected = np.array(weights) / sum(weights)
    assert np.allclose(noise.chances, expected, rtol=1e-12)
    assert noise.chances.sum() == pytest.approx(1)
    drawn = np.bincount(noise.draw(DRAWS, key=5), minlength=len(COUNTS))
    assert not drawn[SPECIAL].any(), "special ids are never drawn"
    error = np.sqrt(expected * (1 - expected) / DRAWS)
    assert (np.abs(drawn / DRAWS - expected) <= 4 * error).all()
    for token in range(1, 6):
        logarithm = noise.log_expected(np.array([[token]]), 200)
        assert logarithm.shape == (1, 1) and logarithm.dtype == np.float32
        assert float(logarithm[0, 0]) == pytest.approx(math.log(200 * expected[token]), abs=1e-6)


def test_a_draw_is_a_function_of_its_key() -> None:
    noise = Noise(np.arange(1000))
    assert (noise.draw(50, 1) == noise.draw(200, 1)[:50]).all()
    assert (noise.draw(200, 1) == Noise(np.arange(1000)).draw(200, 1)).all()
    assert (noise.draw(200, 1) != noise.draw(200, 2)).any()
    assert noise.draw(0, 1).shape == (0,) and noise.draw(3, 1).dtype == np.int64


def test_it_is_drawn_with_replacement() -> None:
    assert len(np.unique(Noise(np.array([10**6, 1, 1])).draw(100, 3))) < 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_special_target_has_the_chance_of_the_rarest(kind: str) -> None:
    noise = Noise(COUNTS, kind, special=SPECIAL)
    rarest = noise.chances[noise.chances > 0].min()
    assert np.allclose(np.exp(noise.log_expected(np.array(SPECIAL), 10)), 10 * rarest, rtol=1e-6)


def test_power_and_kind_are_read() -> None:
    assert np.allclose(Noise(COUNTS, power=0, special=SPECIAL).chances[1:6], 0.2)
    assert Noise(COUNTS, power=1).chances[4] == pytest.approx(81 / 125)
    with pytest.raises(ValueError, match="no such kind of noise: zipf"):
        Noise(COUNTS, "zipf")
    with pytest.raises(ValueError, match="there is no token to draw: all are special"):
        Noise(COUNTS, special=range(7))


def test_the_number_next_to_one_draws_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kbench.knowledge.noise.uniform", lambda key, places: np.full(len(places), 1 - 2**-53))
    for kind in KINDS:
        assert Noise(COUNTS, kind, special=SPECIAL).draw(2, 1).tolist() == [5, 5]
    monkeypatch.setattr("kbench.knowledge.noise.uniform", lambda key, places: np.zeros(len(places)))
    assert Noise(COUNTS, special=SPECIAL).draw(1, 1).tolist() == [1]


def test_removed_are_the_tokens_of_other_answers() -> None:
    negatives = np.array([9, 4, 9, 2, 30])
    answers = [[9, 1], [], [2, 4, 4], [31, 0]]
    found = removed(negatives, np.array([t for own in answers for t in own]), np.cumsum([len(own) for own in answers]))
    assert found.tolist() == [[token in own for token in negatives.tolist()] for own in answers]
    assert found.any() and not found[1].any() and not found[3].any()
    for some, ends in ((negatives, np.zeros(3, dtype=np.int64)), (np.zeros(0, dtype=np.int64), np.array([2]))):
        nothing = removed(some, np.array([9, 2])[: ends[-1]], ends)
        assert nothing.shape == (len(ends), len(some)) and not nothing.any()


def test_removed_agrees_with_a_loop() -> None:
    random = np.random.default_rng(1)
    for _ in range(20):
        negatives, lengths = random.integers(0, 60, 25), random.integers(0, 5, 12)
        answers, ends = random.integers(0, 60, lengths.sum()), np.cumsum(lengths)
        own = [set(answers[end - length : end].tolist()) for end, length in zip(ends, lengths, strict=True)]
        assert removed(negatives, answers, ends).tolist() == [[int(t) in one for t in negatives] for one in own]
