"""Question answering as a task: decoding against a naive one, the loss, what is scored, and that it can be learned."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import BertConfig, BertForQuestionAnswering

from kbench.config.spans import Normaliser, SpanOptions
from kbench.data.encode import Encoded
from kbench.data.windows import SpanEncoder
from kbench.engine.feed import Feed
from kbench.engine.recipe import Precision
from kbench.errors import DataError
from kbench.tasks.qa import ANSWER, Qa, best_of_windows, best_spans
from tests.unit.test_word_encoder import wordpiece

SENTENCE = "the quick brown fox jumps over a lazy dog while forty two other foxes watch it from their hill"
WORDS = SENTENCE.split()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return wordpiece([WORDS] * 20)


def options(**chosen: Any) -> SpanOptions:
    given = {"stride": 7, "max_query": 6, "max_answer": 5, "n_best": 4, "normaliser": Normaliser.squad} | chosen
    return SpanOptions(**given)


def task(**chosen: Any) -> Qa:
    return Qa([], ["f1", "exact_match"], options(**chosen))


def questions(count: int, seed: int = 0) -> list[tuple[list[str], list[int]]]:
    """Rows of one to some windows each."""
    drawn = np.random.default_rng(seed)
    rows = []
    for row in range(count):
        words = [WORDS[index] for index in drawn.integers(len(WORDS), size=3 + 17 * (row % 4))]
        first = int(drawn.integers(len(words)))
        start = len(" ".join([*words[:first], ""]))
        rows.append((["who watch it", " ".join(words), words[first]], [start]))
    return rows


def stored(tokenizer: Any, rows: list[tuple[list[str], list[int]]], folder: Path, length: int = 30) -> Encoded:
    """Rows as windows, in the files that the stage writes."""
    folder.mkdir(exist_ok=True)
    encoder = SpanEncoder(tokenizer, length, options())
    found = encoder.encode(rows)
    np.concatenate(found).tofile(folder / "test.ids")
    np.cumsum([len(ids) for ids in found]).astype(np.int64).tofile(folder / "test.ends")
    for name, arrays in encoder.arrays.items():
        np.concatenate(arrays).tofile(folder / f"test.{name}")
    info = {"sequences": 1, "tokens": {"test": {"all": encoder.total, "unknown": encoder.unknown}}}
    (folder / "encoded.json").write_text(json.dumps(info))
    return Encoded(folder, "test")


class Records:
    """Rows as a data set holds them."""

    def __init__(self, rows: list[tuple[list[str], list[int]]], languages: list[str] | None = None):
        self._rows, self._languages = rows, languages

    def table(self, split: str) -> pa.Table:
        return pa.table({"text": [texts for texts, _ in self._rows]})

    def rows(self, split: str) -> int:
        return len(self._rows)

    def numbers(self, split: str) -> np.ndarray:
        return np.arange(len(self._rows)) + 100

    def languages(self, split: str, rows: np.ndarray | None = None) -> list[str | None]:
        chosen = range(len(self._rows)) if rows is None else rows
        return [None if self._languages is None else self._languages[row] for row in chosen]


class Random(torch.nn.Module):
    """A model whose logits are a function of token and place."""

    def __init__(self, size: int, grain: float = 0.0):
        super().__init__()
        drawn = torch.Generator().manual_seed(1)
        self.table = torch.randn(size, 2, generator=drawn)
        self.grain = grain

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
        place = torch.arange(input_ids.shape[1])
        logits = self.table[input_ids] + torch.stack([torch.sin(place * 1.7), torch.cos(place * 2.3)], dim=-1)
        if self.grain:  # many of them equal
            logits = (logits / self.grain).round() * self.grain
        return SimpleNamespace(start_logits=logits[..., 0], end_logits=logits[..., 1])


def runtime(processes: int = 1, rank: int = 0, gathered: list[Any] | None = None) -> Any:
    """What predict asks of a runtime; `gathered` stands in for what the other processes have found."""
    return SimpleNamespace(
        device=torch.device("cpu"),
        eval_batch_size=3,
        rank=rank,
        processes=processes,
        autocast=lambda precision: nullcontext(),
        check_stop=lambda: None,
        gather=lambda items: items if gathered is None else [*gathered, *items],
    )


def predicted(model: Any, encoded: Encoded, at: Any = None, of: Qa | None = None, rows: Any = None) -> np.ndarray:
    chosen = np.arange(len(encoded)) if rows is None else encoded.lines(np.asarray(rows))
    feed = Feed(encoded, chosen, pad=0)
    return (of or task()).predict(model.eval(), feed, at or runtime(), Precision.fp32)


# Decoding.


def naive(model: Any, encoded: Encoded, chosen: SpanOptions) -> Iterator[tuple[int, int, float]]:
    """The decoding of the official scripts: every window by itself, without padding; lists, sorted."""
    ids = np.fromfile(encoded._place[0] / "test.ids", dtype=np.int32)
    begins = [0, *encoded.ends[:-1]]
    window = 0
    assert encoded.row_ends is not None
    for row_end in encoded.row_ends:
        windows = list(range(window, row_end))
        window = row_end
        # the place of each window in the context, found by its tokens' characters
        shown = []
        for one in windows:
            offsets = encoded.extra("offsets")[begins[one] : encoded.ends[one]].tolist()
            shown.append([(place, tuple(span)) for place, span in enumerate(offsets) if span[0] >= 0])
        found = []
        for one, tokens in zip(windows, shown, strict=True):
            row = torch.tensor(ids[begins[one] : encoded.ends[one]].astype(np.int64))[None]
            made = model(row, torch.ones_like(row))
            starts, ends = made.start_logits[0].tolist(), made.end_logits[0].tolist()
            spans = dict(tokens)
            best_starts = sorted(range(len(starts)), key=lambda place: -starts[place])[: chosen.n_best]
            best_ends = sorted(range(len(ends)), key=lambda place: -ends[place])[: chosen.n_best]
            for first in best_starts:
                for last in best_ends:
                    if first not in spans or last not in spans or last < first:
                        continue
                    if last - first + 1 > chosen.max_answer:
                        continue
                    around = []
                    for other in shown:
                        places = [span for _, span in other]
                        if spans[first] in places:
                            at = places.index(spans[first])
                            around.append(min(at, len(places) - 1 - at) + 0.01 * len(places))
                        else:
                            around.append(-1.0)
                    if around.index(max(around)) != windows.index(one):
                        continue
                    found.append((starts[first] + ends[last], spans[first][0], spans[last][1]))
        if found:
            score = max(score for score, _, _ in found)
            _, start, end = next(one for one in found if one[0] == score)
            yield start, end, score
        else:
            yield 0, 0, -np.inf


@pytest.mark.parametrize("n_best", [2, 6, 20])
@pytest.mark.parametrize("max_answer", [1, 5])
def test_answers_are_those_of_the_naive_decoding(n_best: int, max_answer: int, tokenizer: Any, tmp_path: Path) -> None:
    encoded = stored(tokenizer, questions(60), tmp_path)
    model = Random(len(tokenizer))
    chosen = options(n_best=n_best, max_answer=max_answer)
    found = predicted(model, encoded, of=task(n_best=n_best, max_answer=max_answer))
    expected = list(naive(model, encoded, chosen))
    assert found.dtype == ANSWER and len(found) == 60
    assert found[["start", "end"]].tolist() == [(start, end) for start, end, _ in expected]
    np.testing.assert_allclose(found["score"], [score for _, _, score in expected], rtol=1e-5)
    answered = sum(score > -np.inf for _, _, score in expected)
    assert answered < 60 if n_best == 2 else answered > 40
    assert len(encoded) > 100


def test_best_spans_are_those_of_all_pairs_where_all_are_tried() -> None:
    drawn = torch.Generator().manual_seed(2)
    for _ in range(50):
        starts, ends = torch.randn(2, 6, 9, generator=drawn)
        may_start, may_end = torch.rand(2, 6, 9, generator=drawn) < 0.4
        first, last, score = best_spans(starts, ends, may_start, may_end, n_best=20, longest=4)
        for line in range(6):
            pairs = [
                (float(starts[line, a] + ends[line, b]), a, b)
                for a in range(9)
                for b in range(a, min(a + 4, 9))
                if may_start[line, a] and may_end[line, b]
            ]
            if pairs:
                assert (float(score[line]), int(first[line]), int(last[line])) == max(pairs)
            else:
                assert score[line] == -torch.inf


def test_the_most_likely_tokens_are_chosen_before_it_is_asked_where_they_stand() -> None:
    starts = torch.tensor([[9.0, 8.0, 1.0, 0.0]])
    ends = torch.tensor([[0.0, 0.0, 5.0, 6.0]])
    context = torch.tensor([[False, False, True, True]])
    assert best_spans(starts, ends, context, context, n_best=2, longest=9)[2].item() == -torch.inf
    first, last, score = best_spans(starts, ends, context, context, n_best=3, longest=9)
    assert (first.item(), last.item(), score.item()) == (2, 3, 7.0)


def test_best_of_windows() -> None:
    windows = np.array([(1, 2, 0.5), (3, 4, 0.7), (5, 6, 0.7), (0, 0, -np.inf), (7, 8, -3.0)], dtype=ANSWER)
    found = best_of_windows(windows, np.array([4, 4, 4, 5, 9]))
    assert found.tolist() == windows[[1, 3, 4]].tolist()
    assert len(best_of_windows(windows[:0], np.array([], dtype=np.int64))) == 0


@pytest.mark.parametrize("grain", [0.0, 1.0])
def test_processes_share_the_windows_of_a_question(grain: float, tokenizer: Any, tmp_path: Path) -> None:
    encoded = stored(tokenizer, questions(30), tmp_path)
    model = Random(len(tokenizer), grain)
    whole = predicted(model, encoded)
    parts: list[Any] = []
    for rank in (0, 1):
        kept: list[Any] = []
        at = runtime(2, rank)
        at.gather = lambda items, kept=kept: kept.extend(items) or items
        predicted(model, encoded, at)
        parts.append(kept)
    assert parts[0] and parts[1]
    joined = predicted(model, encoded, runtime(2, 1, gathered=parts[0]))
    assert joined.tolist() == whole.tolist()


def test_some_questions_in_another_order(tokenizer: Any, tmp_path: Path) -> None:
    encoded = stored(tokenizer, questions(30), tmp_path)
    model = Random(len(tokenizer))
    assert predicted(model, encoded, rows=[7, 3, 20]).tolist() == predicted(model, encoded)[[7, 3, 20]].tolist()


def test_a_model_in_train_mode_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    encoded = stored(tokenizer, questions(2), tmp_path)
    with pytest.raises(ValueError, match="train mode"):
        task().predict(Random(len(tokenizer)).train(), Feed(encoded, np.arange(2), 0), runtime(), Precision.fp32)


# Loss.


def small(tokenizer: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    return BertForQuestionAnswering(BertConfig(vocab_size=len(tokenizer), **shape))


def test_the_loss_is_the_mean_of_both_and_knows_no_padding(tokenizer: Any, tmp_path: Path) -> None:
    encoded = stored(tokenizer, questions(12), tmp_path)
    model = small(tokenizer).eval()
    qa = task()
    feed = Feed(encoded, np.arange(len(encoded)), 0, qa.columns(Records([]), encoded))
    windows = np.arange(len(encoded))
    assert len(set(encoded.lengths.tolist())) > 2
    whole = qa.loss(model, feed.batch(windows, torch.device("cpu")))
    alone = []
    for window in windows:
        batch = feed.batch(np.array([window]), torch.device("cpu"))
        theirs = model(
            **{name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")},
            start_positions=batch["first"].long(),
            end_positions=batch["last"].long(),
        ).loss
        ours = qa.loss(model, batch)
        assert set(ours) == {"start", "end"}
        assert sum(ours.values()).item() == pytest.approx(theirs.item(), rel=1e-5)
        alone.append(ours)
    for name in ("start", "end"):
        assert whole[name].item() == pytest.approx(np.mean([one[name].item() for one in alone]), rel=1e-5)


def test_padding_gets_no_gradient(tokenizer: Any, tmp_path: Path) -> None:
    encoded = stored(tokenizer, questions(12), tmp_path)
    model = small(tokenizer).eval()
    feed = Feed(encoded, np.arange(len(encoded)), 0, task().columns(Records([]), encoded))
    batch = feed.batch(np.arange(len(encoded)), torch.device("cpu"))
    kept: dict[str, Any] = {}
    model.qa_outputs.register_forward_hook(lambda module, given, made: kept.update(made=made) or made.retain_grad())
    sum(task().loss(model, batch).values()).backward()
    slopes = kept["made"].grad
    assert torch.isfinite(slopes).all()
    assert (slopes[batch["attention_mask"] == 0] == 0).all() and (slopes[batch["attention_mask"] == 1] != 0).any()


def test_it_has_two_outputs_whatever_the_labels() -> None:
    assert task().outputs == ["start", "end"]


# Scores.

ROWS = [
    (["Who?", "The big dog sleeps.", "big dog"], [4]),
    (["What?", "x y", "y", "x y"], [2, 0]),
    (["Where?", "Im Haus der Katze", "Haus"], [3]),
]
SAID = np.array([(0, 11, 1.5), (0, 3, 0.5), (0, 0, -np.inf)], dtype=ANSWER)


def test_scores_are_means_over_the_questions() -> None:
    records: Any = Records(ROWS)
    found = task().score(SAID, *task().gold(records, "test"))
    assert found == {"f1": pytest.approx(2 / 3), "exact_match": pytest.approx(2 / 3)}
    assert task().main_score(SAID, *task().gold(records, "test")) == pytest.approx(2 / 3)
    some = np.array([2, 0])
    assert task().score(SAID[some], *task().gold(records, "test", some)) == {"f1": 0.5, "exact_match": 0.5}


def test_each_answer_is_compared_in_its_language() -> None:
    said = np.array([(0, 11, 1.5), (0, 3, 0.5), (3, 11, 1.0)], dtype=ANSWER)  # "Haus der"
    exact = {}
    for lang in ("de", "es"):
        records: Any = Records(ROWS, ["en", "es", lang])
        qa = task(normaliser=Normaliser.mlqa)
        exact[lang] = qa.score(said, *qa.gold(records, "test"))["exact_match"]
    assert exact == {"de": 1.0, "es": pytest.approx(2 / 3)}


def test_a_language_without_rules_is_an_error_before_anything_is_trained(tokenizer: Any, tmp_path: Path) -> None:
    records: Any = Records(ROWS, ["en", "en", "ko"])
    qa, encoded = task(normaliser=Normaliser.mlqa), stored(tokenizer, ROWS, tmp_path)
    with pytest.raises(DataError, match="no rules for the language ko"):
        qa.score(SAID, *qa.gold(records, "test"))
    with pytest.raises(DataError, match="no rules for the language ko"):
        qa.columns(records, encoded)
    assert set(task().columns(records, encoded)) == {"first", "last"}


def test_predictions_are_for_a_person_to_read() -> None:
    rows = [*ROWS, (["Long?", "word " * 400, "word"], [0])]
    said = np.append(SAID, np.array([(0, 9, 2.0)], dtype=ANSWER))
    records: Any = Records(rows)
    found = list(task().predictions(said, records, "test"))
    assert found[0] == {
        "row": 100,
        "question": "Who?",
        "gold": ["big dog"],
        "predicted": "The big dog",
        "f1": 1.0,
        "exact_match": 1.0,
        "context": "The big dog sleeps.",
    }
    assert found[1]["gold"] == ["y", "x y"]
    assert found[2]["predicted"] == "" and found[2]["f1"] == 0.0
    assert found[3]["f1"] == 0.666667
    assert len(found[3]["context"]) == 300 and found[3]["context"].endswith("…")
    assert json.loads(json.dumps(found)) == found


# Learning.


def test_it_can_be_learned(tokenizer: Any, tmp_path: Path) -> None:
    """The word that is always the answer is found, in whatever window it stands."""
    rows = [(texts, starts) for texts, starts in questions(400, seed=4) if texts[1].split().count("dog") == 1]
    rows = [([texts[0], texts[1], "dog"], [texts[1].index("dog")]) for texts, _ in rows][:64]
    encoded = stored(tokenizer, rows, tmp_path)
    qa, model = task(), small(tokenizer)
    feed = Feed(encoded, np.arange(len(encoded)), 0, qa.columns(Records([]), encoded))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    records: Any = Records(rows)
    before = qa.score(predicted(model, encoded), *qa.gold(records, "test"))["f1"]
    model.train()
    for step in range(60):
        positions = np.arange(step * 24, step * 24 + 24) % len(encoded)
        optimizer.zero_grad()
        sum(qa.loss(model, feed.batch(positions, torch.device("cpu"))).values()).backward()
        optimizer.step()
    after = qa.score(predicted(model, encoded), *qa.gold(records, "test"))
    assert before < 0.5 and after["exact_match"] > 0.9
    assert len(encoded) > len(rows)
