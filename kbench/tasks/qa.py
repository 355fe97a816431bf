"""Question answering: the answer is a span of the context, read at the first and at the last of its tokens.

A context is read in windows (`kbench.data.windows`). In each the most likely first tokens are tried with the most
likely last ones; the best span of all windows is the answer. Decoded as in the official scripts of SQuAD 1.1 for BERT
(Devlin et al. 2019), which XTREME took over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from kbench.data.records import Records
from kbench.metrics.answers import answer_scores, tokens
from kbench.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kbench.config.spans import SpanOptions
    from kbench.data.encode import Encoded
    from kbench.engine.feed import Feed
    from kbench.engine.recipe import Precision
    from kbench.engine.runtime import Runtime

# the characters of the context that are the answer, from and until, and its score; 0, 0 and -inf where there is none
ANSWER = np.dtype([("start", np.int32), ("end", np.int32), ("score", np.float32)])
_NONE = np.array((0, 0, -np.inf), dtype=ANSWER)
_READ = 1000  # rows at a time
_CONTEXT = 300  # characters of a context that are shown


class Questions:
    """Some rows of a split, [question, context, answers] each, read from disk as they are asked for."""

    def __init__(self, records: Records, split: str, rows: np.ndarray | None = None):
        self._texts = records.table(split)["text"]
        self._rows = np.arange(records.rows(split)) if rows is None else np.asarray(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[list[str]]:
        for start in range(0, len(self), _READ):
            yield from self._texts.take(pa.array(self._rows[start : start + _READ])).to_pylist()


class Qa(Task):
    """Head, prediction and metrics of question answering; a model has two outputs, whatever the data."""

    options: SpanOptions

    def __init__(self, outputs: Sequence[str], metrics: Sequence[str], options: SpanOptions):
        super().__init__(["start", "end"], metrics, options)

    @staticmethod
    def auto() -> Any:
        """The transformers class whose head this task trains."""
        from transformers import AutoModelForQuestionAnswering

        return AutoModelForQuestionAnswering

    def columns(self, records: Records, encoded: Encoded) -> dict[str, np.ndarray]:
        """Places of the answer's first and last token in each window [windows]; 0 where it is not in the window.

        Raises:
            DataError: answers in some language could not be compared; said here, before anything is trained.
        """
        for lang in dict.fromkeys(records.languages("test")):
            tokens("", self.options.normaliser, lang)
        return {name: encoded.extra(name) for name in ("first", "last")}

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Half the cross entropy of the first token, and half that of the last one, over the window's tokens.

        Padding is none of them, so the loss does not depend on what else is in the batch.
        """
        from torch.nn.functional import cross_entropy

        starts, ends = _logits(model, batch)
        return {
            name: cross_entropy(logits, batch[place].long()) / 2
            for name, logits, place in (("start", starts, "first"), ("end", ends, "last"))
        }

    def predict(
        self, model: nn.Module, feed: Feed, runtime: Runtime, precision: Precision, *, may_stop: bool = True
    ) -> np.ndarray:
        """The best answer to each question of a feed [questions], `ANSWER`, in the feed's order, on every process.

        Args:
            model: on the runtime's device, in eval mode.
            feed: windows, all of each question.
            runtime: device and processes.
            precision: number format of the matrix products.
            may_stop: end between batches where the run was asked to stop.
        """
        import torch

        if model.training:
            raise ValueError("the model is in train mode: its dropout would be on")
        found = []
        with torch.inference_mode(), runtime.autocast(precision):
            for positions in feed.by_length(runtime.eval_batch_size)[runtime.rank :: runtime.processes]:
                if may_stop:
                    runtime.check_stop()
                batch = feed.batch(positions, runtime.device)
                offsets, full = _places(feed.encoded, feed.rows[positions], batch["input_ids"].shape[1])
                allowed = torch.from_numpy(offsets[..., 0] >= 0).to(runtime.device)
                starts, ends = _logits(model, batch)
                best = best_spans(
                    starts,
                    ends,
                    allowed & torch.from_numpy(full).to(runtime.device),
                    allowed,
                    n_best=self.options.n_best,
                    longest=self.options.max_answer,
                )
                found.append((positions, _answers(*(tensor.cpu().numpy() for tensor in best), offsets)))
        windows = np.full(len(feed), _NONE, dtype=ANSWER)
        for positions, answers in runtime.gather(found):
            windows[positions] = answers
        assert feed.encoded.row_ends is not None
        return best_of_windows(windows, np.searchsorted(feed.encoded.row_ends, feed.rows, side="right"))

    def gold(self, records: Records, split: str, rows: np.ndarray | None = None) -> tuple[Any, ...]:
        """The questions of some rows with contexts and answers, and the language of each."""
        return Questions(records, split, rows), records.languages(split, rows)

    def score(self, scores: np.ndarray, *gold: Any) -> dict[str, float]:
        """Mean F1 and exact match over the questions, shares."""
        found = [measured for _, _, measured in self._measured(scores, *gold)]
        return {name: sum(one[name] for one in found) / max(1, len(found)) for name in self.metrics}

    def predictions(self, scores: np.ndarray, records: Records, split: str) -> Iterator[dict[str, Any]]:
        """One record a question, for a person to read and a paired test to use; long contexts are cut."""
        numbers = records.numbers(split)
        for number, found in zip(numbers, self._measured(scores, *self.gold(records, split)), strict=True):
            (question, context, *answers), predicted, measured = found
            yield {
                "row": int(number),
                "question": question,
                "gold": answers,
                "predicted": predicted,
                **{name: float(f"{value:.6g}") for name, value in measured.items()},
                "context": context if len(context) <= _CONTEXT else f"{context[: _CONTEXT - 1]}…",
            }

    def _measured(
        self, scores: np.ndarray, questions: Questions, languages: Sequence[str | None]
    ) -> Iterator[tuple[list[str], str, dict[str, float]]]:
        """Of each question its row, the answer's text and its metrics."""
        for answer, lang, texts in zip(scores, languages, questions, strict=True):
            predicted = texts[1][answer["start"] : answer["end"]]
            yield texts, predicted, answer_scores(predicted, texts[2:], self.options.normaliser, lang)


def best_spans(
    starts: Tensor, ends: Tensor, may_start: Tensor, may_end: Tensor, *, n_best: int, longest: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The best span of each window: places of its first and last token [B], and its score [B], the sum of both logits.

    The `n_best` first tokens and last tokens of a window are tried with each other. They are chosen before it is asked
    where they stand, as in the official scripts. Where none of the pairs is a span, the score is -inf.

    Args:
        starts: logits of first tokens [B, L], -inf for padding; `ends` those of last tokens.
        may_start: where an answer may begin [B, L]; `may_end` where it may end.
        longest: tokens of an answer at most.
    """
    import torch

    width = starts.shape[1]
    start_scores, start_places = starts.topk(min(n_best, width), dim=1)
    end_scores, end_places = ends.topk(min(n_best, width), dim=1)
    length = end_places[:, None, :] - start_places[:, :, None] + 1
    span = (length >= 1) & (length <= longest)
    span &= may_start.gather(1, start_places)[:, :, None] & may_end.gather(1, end_places)[:, None, :]
    pairs = (start_scores[:, :, None] + end_scores[:, None, :]).masked_fill(~span, -torch.inf).flatten(1)
    score, place = pairs.max(dim=1)
    first = start_places.gather(1, (place // end_places.shape[1])[:, None])[:, 0]
    last = end_places.gather(1, (place % end_places.shape[1])[:, None])[:, 0]
    return first, last, score


def best_of_windows(windows: np.ndarray, questions: np.ndarray) -> np.ndarray:
    """The best answer to each question [questions], the earliest window's of equal ones.

    Args:
        windows: the best answer of each window, `ANSWER`.
        questions: the question of each window; windows of one stand together.
    """
    if not len(windows):
        return windows
    firsts = np.flatnonzero(np.diff(questions, prepend=-1))
    counts = np.diff(firsts, append=len(windows))
    best = np.repeat(np.maximum.reduceat(windows["score"], firsts), counts)
    places = np.where(windows["score"] == best, np.arange(len(windows)), len(windows))
    found: np.ndarray = windows[np.minimum.reduceat(places, firsts)]
    return found


def _logits(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The logits of first and of last tokens [B, L], float32, -inf for padding."""
    from kbench.engine.feed import inputs

    found = model(**inputs(batch))
    padding = batch["attention_mask"] == 0
    return (
        found.start_logits.float().masked_fill(padding, -float("inf")),
        found.end_logits.float().masked_fill(padding, -float("inf")),
    )


def _places(encoded: Encoded, windows: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Of some windows the characters of each token [B, L, 2], -1 elsewhere, and where it is the fullest [B, L]."""
    offsets = np.full((len(windows), width, 2), -1, dtype=np.int32)
    stored = encoded.extra("offsets")
    for line, (end, length) in enumerate(zip(encoded.ends[windows], encoded.lengths[windows], strict=True)):
        offsets[line, :length] = stored[end - length : end]
    since, until = (encoded.extra(name)[windows][:, None] for name in ("full_from", "full_until"))
    place = np.arange(width)
    return offsets, (place >= since) & (place < until)


def _answers(first: np.ndarray, last: np.ndarray, score: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The spans of some windows as characters of the context, `ANSWER` [B]."""
    found = np.full(len(first), _NONE, dtype=ANSWER)
    lines = np.flatnonzero(score > -np.inf)
    found["score"][lines] = score[lines]
    found["start"][lines] = offsets[lines, first[lines], 0]
    found["end"][lines] = np.maximum(offsets[lines, last[lines], 1], found["start"][lines])
    return found
