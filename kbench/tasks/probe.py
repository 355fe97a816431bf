"""Probe: a pre-trained masked language model is asked for facts; nothing is trained (X-FACTR; KMLM, table 4; LAMA)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from kbench.config.probing import Choose, ProbeOptions, Scorer
from kbench.data.facts import ALIASES, GOLD, PROMPT, RELATION, SUBJECT
from kbench.data.prompts import OBJECT
from kbench.errors import DataError, Problem
from kbench.metrics.probing import CORPORA, FACTS, UHN, corpus_of, fact_scores, lama_scores
from kbench.tasks import cloze, guessing
from kbench.tasks.asking import ANSWER, Asked, ids_of, read
from kbench.tasks.base import Task

if TYPE_CHECKING:
    from torch import nn

    from kbench.data.records import Records
    from kbench.engine.recipe import Precision
    from kbench.engine.runtime import Runtime

_CHUNK = 1024  # facts whose texts are in memory at once
_MOST = 512  # tokens that every known model can read


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

        With LAMA's options it is asked LAMA's way instead, CLOZE: see kbench/tasks/cloze.py. Else:

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
            DataError: no fact can be asked, or none of one language or metric; the tokenizer has no mask token.
        """
        import torch

        from kbench.tasks.decoding import fill

        if model.training:
            raise ValueError("the model is in train mode: its dropout would be on")
        if tokenizer.mask_token_id is None:
            raise DataError(Problem("backbone", "its tokenizer has no mask token", "take a masked language model"))
        options = self.options
        if options.lama is not None:
            room = min(max_length or _MOST, _MOST, int(tokenizer.model_max_length))
            return self._cloze(model, tokenizer, records, split, runtime, precision, room)
        self._check_metrics(set(FACTS), records, split)
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
        if self.options.lama is not None:
            found |= lama_scores(scores["correct"], gold[0], scores["used"], scores["easy"] > 0, self.outputs)
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
                    **({} if self.options.lama is None else {"easy": bool(answer["easy"])}),
                }

    def diagnostics(self, scores: np.ndarray, records: Records, split: str) -> dict[str, float]:
        """Shares of the facts, of all and of each language.

        `asked`; `unknown_token` and `too_long`, why others were not; `one_token`, of those asked the share whose gold
        label is one token of the model. Of LAMA numbers of facts instead, see `_counts`.
        """
        if self.options.lama is not None:
            return self._counts(scores, records.labels(split))
        groups = {"": np.arange(len(scores)), **{f"/{lang}": rows for lang, rows in records.groups(split).items()}}
        found = {}
        for name, rows in groups.items():
            some = scores[rows]
            found[f"asked{name}"] = float(some["used"].mean())
            found[f"unknown_token{name}"] = float(some["unknown"].mean())
            found[f"too_long{name}"] = float((~some["used"] & ~some["unknown"]).mean())
            found[f"one_token{name}"] = float(some["single"][some["used"]].mean())
        return found

    def _cloze(
        self,
        model: nn.Module,
        tokenizer: Any,
        records: Records,
        split: str,
        runtime: Runtime,
        precision: Precision,
        room: int,
    ) -> np.ndarray:
        """The answers LAMA's way; what cannot be measured is said before the model is asked."""
        options = self.options.lama
        ids = cloze.choices(tokenizer, options, records.words())
        asked, golds = cloze.prepare(tokenizer, records, split, room, ids, options)
        if options.uhn_model is not None:
            guesser, other = guessing.load(options.uhn_model, runtime)
            easy = guessing.guessed(guesser, other, records, split, runtime)
            asked.answers["easy"] |= (cloze.EASY["guessed"] * easy).astype(np.uint8)
            del guesser
        used, easy = asked.answers["used"], asked.answers["easy"] > 0
        able = lama_scores(used & False, records.labels(split), used, easy, self.outputs)
        self._check_metrics({*able, *(FACTS if used.any() else ())}, records, split)
        return cloze.ask(model, tokenizer, asked, golds, ids, runtime, precision)

    def _check_metrics(self, able: set[str], records: Records, split: str) -> None:
        """Raise DataError where a metric is over no fact: there are none, or none of them can be asked."""
        there = {corpus_of(self.outputs[index]) for index in np.unique(records.labels(split))}
        problems = []
        for name in [one for one in self.metrics if one not in able]:
            corpus = name.removeprefix(UHN)
            if self.options.lama is None:
                what, hint = f"{name} is LAMA's, and these facts are asked in X-FACTR's way", f"take {', '.join(FACTS)}"
            elif corpus in CORPORA and corpus not in there:
                what, hint = f"{name} has no facts: there are none of {corpus}", "leave it out, or add their files"
            else:
                what = f"{name} has no facts: no object of theirs is among the words that answers are chosen from"
                what += ", or each is easy to guess" if corpus != name else ""
                hint = "take a backbone that keeps upper case, another data.probing.lama.vocabulary, or leave it out"
            problems.append(Problem("data.metrics", what, hint))
        if problems:
            raise DataError(*problems)

    def _counts(self, scores: np.ndarray, relation: np.ndarray) -> dict[str, float]:
        """Numbers of facts, of all, of each corpus and of each relation, and each relation's own precision at 1.

        `choices`, the words that answers are chosen from; `of`, the facts there are; `kept`, those asked; the others by
        what keeps them out: `not_single`, `not_listed`, `not_one_mask`. `missing`: relations that have no facts here.
        LAMA-UHN: `easy_held` and `easy_guessed`, how many of all facts each filter takes away; `uhn_of` and `uhn_kept`,
        what is left of all and of those asked; `uhn_filters`, how many were applied, of two.
        """
        found: dict[str, float] = {"choices": int(scores["among"][0])}
        found["uhn_filters"] = 1 + (self.options.lama.uhn_model is not None)
        hard = scores["easy"] == 0
        counts = {"of": scores["why"] >= 0, "kept": scores["used"], "uhn_of": hard, "uhn_kept": hard & scores["used"]}
        more = {name: scores["why"] == code for name, code in cloze.WHY.items()}
        more |= {f"easy_{name}": scores["easy"] & bit > 0 for name, bit in cloze.EASY.items()}
        corpora = [corpus_of(name) for name in self.outputs]
        groups = [("", np.ones(len(scores), dtype=bool))]
        groups += [(f"/{name}", np.array([one == name for one in corpora])[relation]) for name in CORPORA]
        for name, rows in groups:
            if rows.any():
                found |= {f"{count}{name}": int((some & rows).sum()) for count, some in (counts | more).items()}
        wanted = {name.removeprefix(UHN) for name in self.metrics}
        missing = []
        for index, (name, corpus) in enumerate(zip(self.outputs, corpora, strict=True)):
            rows = relation == index
            if rows.any():
                found |= {f"{count}/{name}": int((some & rows).sum()) for count, some in counts.items()}
                right = scores["correct"][rows & scores["used"]]
                found |= {f"precision/{name}": float(right.mean())} if len(right) else {}
            elif corpus in wanted:
                missing.append(name)
        return found | {"missing": len(missing), **{f"missing/{name}": 1 for name in missing}}

    def _asked(self, tokenizer: Any, records: Records, split: str, room: int) -> Asked:
        """The prompts of a split, cut to `room` tokens, and which of them are used."""
        count = records.rows(split)
        answers = np.zeros(count, dtype=ANSWER)
        places, lengths, pieces = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64), []
        unknown, mask = tokenizer.unk_token_id, tokenizer.mask_token_id
        for start in range(0, count, _CHUNK):
            facts = records.pieces(split, start, start + _CHUNK)
            told = ids_of(tokenizer, [one[PROMPT].replace(OBJECT, tokenizer.mask_token) for one in facts], special=True)
            golds, subjects = (ids_of(tokenizer, [one[part] for one in facts]) for part in (GOLD, SUBJECT))
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
        return Asked(np.concatenate(pieces), np.cumsum(lengths) - lengths, lengths, places, answers)

    def _judge(self, tokenizer: Any, records: Records, split: str, tokens: np.ndarray, answers: np.ndarray) -> None:
        """Write text and correctness of the chosen tokens [facts, longest] into the answers."""
        unknown = tokenizer.unk_token_id
        for start in range(0, len(answers), _CHUNK):
            facts = records.pieces(split, start, start + _CHUNK)
            counted = [[one[GOLD], *(one[ALIASES:] if self.options.scorer is Scorer.full else [])] for one in facts]
            names = list(dict.fromkeys(name for one in counted for name in one))
            spelt = dict(zip(names, ids_of(tokenizer, names), strict=True))
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
