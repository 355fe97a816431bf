"""Probe: a pre-trained masked language model is asked for facts; nothing is trained (X-FACTR; KMLM, table 4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from kbench.config.probing import Choose, ProbeOptions, Scorer
from kbench.data.facts import ALIASES, GOLD, PROMPT, RELATION, SUBJECT
from kbench.data.prompts import OBJECT
from kbench.errors import DataError, Problem
from kbench.metrics.probing import fact_scores
from kbench.tasks.base import Task

if TYPE_CHECKING:
    from torch import nn

    from kbench.data.records import Records
    from kbench.engine.recipe import Precision
    from kbench.engine.runtime import Runtime

# what is known of each fact: the answer, its number of tokens and their log-probability, summed or mean; whether the
# fact was asked, and if not whether a token of its labels is unknown; whether the answer is right; whether the gold
# label is one token
ANSWER = np.dtype(
    [
        ("text", "U160"), ("tokens", "i1"), ("logprob", "f4"), ("used", "?"), ("unknown", "?"), ("correct", "?"),
        ("single", "?"),
    ]
)  # fmt: skip
_CHUNK = 1024  # facts whose texts are in memory at once
_MOST = 512  # tokens that every known model can read


@dataclass(frozen=True)
class _Asked:
    """The prompts of a split as token ids, each with one mask.

    Attributes:
        tokens: of all prompts, one after another, int32.
        starts: where each prompt begins in them [facts].
        lengths: its tokens [facts].
        places: where its mask stands in it [facts].
        answers: the facts [facts], `used`, `unknown` and `single` known.
    """

    tokens: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    places: np.ndarray
    answers: np.ndarray

    def batch(self, rows: np.ndarray, count: int, pad: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of some prompts with `count` masks for the one, padded, and 1 where a token is [rows, length]."""
        lengths = self.lengths[rows] + count - 1
        ids = np.full((len(rows), lengths.max()), pad, dtype=np.int64)
        for line, row in enumerate(rows):
            told = self.tokens[self.starts[row] : self.starts[row] + self.lengths[row]]
            place = self.places[row]
            masks = np.repeat(told[place], count)
            ids[line, : lengths[line]] = np.concatenate([told[:place], masks, told[place + 1 :]])
        return ids, (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)


class Probe(Task):
    """Facts as prompts with masks: how they are asked, and when an answer is right.

    Args:
        outputs: relations in order.
        metrics: names of metrics, the main one first.
        options: decoder, number of masks, scorer.
    """

    trained: ClassVar[bool] = False

    def __init__(self, outputs: Sequence[str], metrics: Sequence[str], options: ProbeOptions):
        super().__init__(outputs, metrics, options)

    @staticmethod
    def auto() -> Any:
        """The transformers class of a model that fills masks."""
        from transformers import AutoModelForMaskedLM

        return AutoModelForMaskedLM

    def probe(
        self,
        model: nn.Module,
        tokenizer: Any,
        records: Records,
        split: str,
        runtime: Runtime,
        precision: Precision,
        max_length: int | None = None,
    ) -> np.ndarray:
        """The model's answer to every fact of a split [facts], ANSWER, the same on every process.

        A prompt is tokenised with one mask token in the place of [Y], which then stands there 1 to `longest` times. The
        benchmark tokenises the text with so many mask tokens, spaces between, which is the same for BERT's and XLM-R's
        tokenizers; others, byte-level ones, would put a token for the space between two masks. A fact with a token in
        the label of subject or object that the tokenizer does not know is not asked, as in the benchmark.

        Args:
            model: masked language model on the runtime's device, in eval mode.
            tokenizer: its tokenizer, with a mask token.
            records: facts.
            runtime: device and processes.
            precision: number format of the matrix products.
            max_length: longest prompt in tokens, masks included; its end is cut. A fact whose masks would be cut off is
                not asked. None: what the tokenizer allows.

        Raises:
            DataError: no fact can be asked, or none of one language; the tokenizer has no mask token.
        """
        import torch

        from kbench.tasks.decoding import fill

        if model.training:
            raise ValueError("the model is in train mode: its dropout would be on")
        if tokenizer.mask_token_id is None:
            raise DataError(Problem("backbone", "its tokenizer has no mask token", "take a masked language model"))
        options = self.options
        room = min(max_length or _MOST, _MOST, int(tokenizer.model_max_length)) - options.longest + 1
        asked = self._asked(tokenizer, records, split, room)
        found: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = []
        used = np.flatnonzero(asked.answers["used"])
        by_length = used[np.argsort(asked.lengths[used], kind="stable")]
        portions = [
            (count, by_length[start : start + runtime.eval_batch_size])
            for count in range(1, options.longest + 1)
            for start in range(0, len(by_length), runtime.eval_batch_size)
        ]
        with torch.inference_mode(), runtime.autocast(precision):
            for count, rows in portions[runtime.rank :: runtime.processes]:
                runtime.check_stop()
                ids, attention = (
                    torch.from_numpy(array).to(runtime.device)
                    for array in asked.batch(rows, count, tokenizer.pad_token_id)
                )
                first = torch.from_numpy(asked.places[rows]).to(runtime.device)
                tokens, logprobs = fill(
                    model, ids, attention, first, count, tokenizer.mask_token_id, options.decoder, options.iterations
                )
                found.append((count, rows, tokens.to(torch.int32).cpu().numpy(), logprobs.cpu().numpy()))
        said = np.zeros((len(asked.answers), options.longest, options.longest), dtype=np.int32)
        worth = np.zeros((len(asked.answers), options.longest), dtype=np.float32)
        for count, rows, one, sure in runtime.gather(found):
            said[rows, count - 1, :count] = one
            worth[rows, count - 1] = sure.mean(1) if options.choose is Choose.mean else sure.sum(1)
        best = worth.argmax(1)  # of equal ones the fewest masks
        every = np.arange(len(best))
        asked.answers["tokens"] = np.where(asked.answers["used"], best + 1, 0)
        asked.answers["logprob"] = np.where(asked.answers["used"], worth[every, best], 0)
        self._judge(tokenizer, records, split, said[every, best], asked.answers)
        return asked.answers

    def gold(self, records: Records, split: str, rows: np.ndarray | None = None) -> tuple[Any, ...]:
        """The relation of each fact [facts], index into `outputs`: whether an answer is right is in the scores."""
        labels = records.labels(split)
        return (labels if rows is None else labels[rows],)

    def score(self, scores: np.ndarray, *gold: Any) -> dict[str, float]:
        """Metrics of answers [facts], ANSWER, to facts of some relations [facts]."""
        found = fact_scores(scores["correct"], gold[0], scores["used"], scores["single"], len(self.outputs))
        return {name: found[name] for name in self.metrics}

    def predictions(self, scores: np.ndarray, records: Records, split: str) -> Iterator[dict[str, Any]]:
        """One record a fact, for a person to read and a paired test to use; of one not asked nothing is predicted."""
        numbers = records.numbers(split)
        for start in range(0, len(scores), _CHUNK):
            for row, fact in enumerate(records.pieces(split, start, start + _CHUNK), start=start):
                answer = scores[row]
                yield {
                    "row": int(numbers[row]),
                    "relation": fact[RELATION],
                    "prompt": fact[PROMPT],
                    "gold": fact[GOLD],
                    "predicted": str(answer["text"]) if answer["used"] else None,
                    "tokens": int(answer["tokens"]),
                    "logprob": float(f"{answer['logprob']:.6g}"),
                    "correct": bool(answer["correct"]),
                    "used": bool(answer["used"]),
                }

    def diagnostics(self, scores: np.ndarray, records: Records, split: str) -> dict[str, float]:
        """Shares of the facts, of all and of each language.

        `asked`; `unknown_token` and `too_long`, why others were not; `one_token`, of those asked the share whose gold
        label is one token of the model.
        """
        groups = {"": np.arange(len(scores)), **{f"/{lang}": rows for lang, rows in records.groups(split).items()}}
        found = {}
        for name, rows in groups.items():
            some = scores[rows]
            found[f"asked{name}"] = float(some["used"].mean())
            found[f"unknown_token{name}"] = float(some["unknown"].mean())
            found[f"too_long{name}"] = float((~some["used"] & ~some["unknown"]).mean())
            found[f"one_token{name}"] = float(some["single"][some["used"]].mean())
        return found

    def _asked(self, tokenizer: Any, records: Records, split: str, room: int) -> _Asked:
        """The prompts of a split, cut to `room` tokens, and which of them are used."""
        count = records.rows(split)
        answers = np.zeros(count, dtype=ANSWER)
        places, lengths, pieces = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64), []
        unknown, mask = tokenizer.unk_token_id, tokenizer.mask_token_id
        for start in range(0, count, _CHUNK):
            facts = records.pieces(split, start, start + _CHUNK)
            told = _ids(tokenizer, [one[PROMPT].replace(OBJECT, tokenizer.mask_token) for one in facts], special=True)
            golds, subjects = (_ids(tokenizer, [one[part] for one in facts]) for part in (GOLD, SUBJECT))
            flat: list[int] = []
            for row, (ids, gold, subject) in enumerate(zip(told, golds, subjects, strict=True), start=start):
                # a name that holds the mask token is none the tokenizer can spell, either
                strange = (unknown is not None and (unknown in gold or unknown in subject)) or ids.count(mask) != 1
                kept = ids if len(ids) <= room else [*ids[: room - 1], ids[-1]]
                inside = mask in kept and bool(gold) and bool(subject)
                answers[row]["unknown"], answers[row]["used"] = strange, inside and not strange
                answers[row]["single"] = len(gold) == 1
                places[row] = kept.index(mask) if inside else 0
                lengths[row] = len(kept)
                flat += kept
            pieces.append(np.array(flat, dtype=np.int32))
        for lang, rows in (records.groups(split) or {"": np.arange(count)}).items():
            if not answers["used"][rows].any():
                of = f" in {lang}" if lang else ""
                what = f"no fact{of} can be asked: each has a token that the tokenizer does not know, or is too long"
                hint = "take another backbone, or leave the language out of data.zero_shot.tested"
                raise DataError(Problem("data", what, hint))
        return _Asked(np.concatenate(pieces), np.cumsum(lengths) - lengths, lengths, places, answers)

    def _judge(self, tokenizer: Any, records: Records, split: str, tokens: np.ndarray, answers: np.ndarray) -> None:
        """Write text and correctness of the chosen tokens [facts, longest] into the answers."""
        unknown = tokenizer.unk_token_id
        for start in range(0, len(answers), _CHUNK):
            facts = records.pieces(split, start, start + _CHUNK)
            counted = [[one[GOLD], *(one[ALIASES:] if self.options.scorer is Scorer.full else [])] for one in facts]
            names = list(dict.fromkeys(name for one in counted for name in one))
            spelt = dict(zip(names, _ids(tokenizer, names), strict=True))
            # both sides as the tokenizer spells them: it may split "U.S." or lose an accent
            heard = {name: read(tokenizer, ids).lower() for name, ids in spelt.items() if unknown not in ids}
            for row, valid in enumerate(counted, start=start):
                answer = answers[row]
                if not answer["used"]:
                    continue
                ids = tokens[row, : answer["tokens"]].tolist()
                said = read(tokenizer, ids)
                answer["text"] = said
                if self.options.scorer is Scorer.strict:
                    answer["correct"] = ids == spelt[valid[0]]
                else:
                    answer["correct"] = any(heard.get(name) == said.lower() for name in valid)


def read(tokenizer: Any, ids: Sequence[int]) -> str:
    """Token ids as text, without the spaces around it."""
    return str(tokenizer.convert_tokens_to_string(tokenizer.convert_ids_to_tokens(list(ids)))).strip()


def _ids(tokenizer: Any, texts: Sequence[str], special: bool = False) -> list[list[int]]:
    """The token ids of some texts."""
    if not texts:
        return []
    found: list[list[int]] = tokenizer(list(texts), add_special_tokens=special, verbose=False)["input_ids"]
    return found
