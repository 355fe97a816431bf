"""LAMA's way of asking: one mask, and the answer out of a list of words that are one token each (Petroni et al. 2019).

A word is one token as it stands in running text, with a space before it: of RoBERTa's tokens " London" counts and
"London" does not, and a token that is read back as other letters than the word's, in lower case for instance, counts
for nothing. A fact is asked where its object is such a word and on the list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kbench.config.probing import LamaOptions, Words
from kbench.data.facts import GOLD, PROMPT, SUBJECT
from kbench.data.prompts import OBJECT
from kbench.errors import DataError, Problem
from kbench.tasks.asking import ANSWER, Asked, ids_of, read

if TYPE_CHECKING:
    from torch import nn

    from kbench.data.records import Records
    from kbench.engine.recipe import Precision
    from kbench.engine.runtime import Runtime

# why a fact is not asked: its object is not one token, or not on the list; or its mask is cut off, or not the only one
WHY = {"not_single": 1, "not_listed": 2, "not_one_mask": 3}
# the filters of LAMA-UHN by which a fact is easy: its subject's name holds its object's; a model guesses it
EASY = {"held": 1, "guessed": 2}
# beside what is known of every answer: how many words it was chosen from, why the fact is not asked (0: it is), and the
# sum of the filters by which it is easy
CLOZE = np.dtype(
    [*((name, ANSWER[name]) for name in ANSWER.names or ()), ("among", "i4"), ("why", "i1"), ("easy", "u1")]
)
_CHUNK = 1024  # facts, or words, whose texts are in memory at once


def choices(tokenizer: Any, options: LamaOptions, words: Sequence[str] | None) -> np.ndarray:
    """The token ids that answers are chosen from, int64, ascending [choices].

    Args:
        tokenizer: of the model that is asked.
        options: which words.
        words: LAMA's list, where that is asked for.

    Raises:
        UserError: a tokenizer that shares the words is not on this machine.
    """
    if options.vocabulary is Words.lama:
        if words is None:
            raise ValueError("the records hold no list of words")
        ids = word_ids(tokenizer, _spelt(words, options))
        return np.unique(ids[ids >= 0])
    own = own_words(tokenizer)
    ids = np.array(list(own.values()), dtype=np.int64)
    for name in (options.vocabulary_of or ()) if options.vocabulary is Words.shared else ():
        ids = ids[word_ids(tokenizer_of(name, "vocabulary_of"), list(own)) >= 0]
        own = {word: own[word] for word in _texts(own, ids)}
    return np.sort(ids)


def _texts(own: dict[str, int], ids: np.ndarray) -> Iterator[str]:
    """The words whose ids are left, in order."""
    kept = set(ids.tolist())
    return (word for word, one in own.items() if one in kept)


def _spelt(words: Sequence[str], options: LamaOptions) -> list[str]:
    """Words as the model's tokenizer should read them back."""
    return [word.lower() for word in words] if options.lower_case else list(words)


def own_words(tokenizer: Any) -> dict[str, int]:
    """Every word that is one token of a tokenizer, in the order of the ids: one piece with a letter or digit."""
    special = set(tokenizer.all_special_ids)
    found: dict[str, int] = {}
    for start in range(0, len(tokenizer), _CHUNK):
        ids = [one for one in range(start, min(start + _CHUNK, len(tokenizer))) if one not in special]
        texts = [read(tokenizer, [one]) for one in ids]
        spelt = word_ids(tokenizer, texts)
        found |= {
            text: one
            for text, one, again in zip(texts, ids, spelt.tolist(), strict=True)
            if one == again and any(map(str.isalnum, text)) and len(text.split()) == 1
        }
    return found


def word_ids(tokenizer: Any, words: Sequence[str]) -> np.ndarray:
    """The one token of each word, int64 [words]; -1 of one that has several or is read back otherwise."""
    found = np.full(len(words), -1, dtype=np.int64)
    special = set(tokenizer.all_special_ids)
    for start in range(0, len(words), _CHUNK):
        some = words[start : start + _CHUNK]
        for place, ids in enumerate(ids_of(tokenizer, [f" {word}" for word in some])):
            if len(ids) == 1 and ids[0] not in special and read(tokenizer, ids) == some[place]:
                found[start + place] = ids[0]
    return found


def tokenizer_of(name: str, key: str) -> Any:
    """The tokenizer of a folder, of a backbone's name, or of a hub id; `key` of data.probing.lama gave it.

    Raises:
        UserError: it is not on this machine, or is built from the data.
    """
    from kbench.backbones.load import load_tokenizer

    return load_tokenizer(folder_of(name, key, weights=False))


def folder_of(name: str, key: str, weights: bool) -> Path:
    """The folder of a tokenizer or, with `weights`, of a model; arguments as those of `tokenizer_of`."""
    from kbench import registry
    from kbench.backbones.locate import locate, named

    where = f"data.probing.lama.{key}"
    folder = Path(name).expanduser()
    if not weights and name not in registry.choices("backbone") and folder.is_dir():
        return folder
    located = locate(named(name, where), where)
    if located.folder is None:
        raise DataError(Problem(where, f"{name} is built from the data and knows no words", "name a finished one"))
    return Path(located.folder)


def masked(tokenizer: Any, prompt: str) -> str:
    """A prompt with the mask in the place of [Y], and without the space before it.

    RoBERTa's mask takes that space as its own, BERT does not see it, and byte-level tokenizers whose mask does not take
    it would make a token of it, which in running text belongs to the word.
    """
    return prompt.replace(f" {OBJECT}", tokenizer.mask_token).replace(OBJECT, tokenizer.mask_token)


def told(tokenizer: Any, prompts: Sequence[str], names: Sequence[str], golds: Sequence[int]) -> list[list[int]]:
    """The token ids of prompts with one mask each, special tokens included.

    They are those of the sentence with the object in it, whose one token becomes the mask, as in pre-training. With
    BERT's and RoBERTa's tokenizers that is what the text with the mask gives; others put a space before what follows a
    mask. Where the object is not one token there, at the beginning of a sentence for instance, it is the text's.

    Args:
        tokenizer: of the model that is asked.
        prompts: with [Y] in them.
        names: the objects.
        golds: their tokens; -1 of one that has several.
    """
    found = ids_of(tokenizer, [masked(tokenizer, one) for one in prompts], special=True)
    if not getattr(tokenizer, "is_fast", False) or not prompts:
        return found
    filled = [prompt.replace(OBJECT, name) for prompt, name in zip(prompts, names, strict=True)]
    filled_in = tokenizer(filled, return_offsets_mapping=True, verbose=False)
    for row, (ids, offsets) in enumerate(zip(filled_in["input_ids"], filled_in["offset_mapping"], strict=True)):
        if prompts[row].count(OBJECT) != 1:
            continue  # not asked, as its text says
        start = prompts[row].index(OBJECT)
        stop = start + len(names[row])
        inside = [place for place, (first, last) in enumerate(offsets) if first < stop and last > start]
        if len(inside) == 1 and ids[inside[0]] == golds[row]:
            found[row] = [*ids[: inside[0]], tokenizer.mask_token_id, *ids[inside[0] + 1 :]]
    return found


def prepare(
    tokenizer: Any, records: Records, split: str, room: int, ids: np.ndarray, options: LamaOptions
) -> tuple[Asked, np.ndarray]:
    """The prompts of a split, cut to `room` tokens, which of them are used, and the gold tokens, int64 [facts].

    Args:
        tokenizer: of the model that is asked.
        records: facts.
        split: theirs.
        room: longest prompt in tokens; a fact whose mask would be cut off is not asked.
        ids: what answers are chosen from, ascending [choices].
        options: how objects are spelt.
    """
    count = records.rows(split)
    answers = np.zeros(count, dtype=CLOZE)
    answers["among"] = len(ids)
    places, lengths, golds = (np.zeros(count, dtype=np.int64) for _ in range(3))
    pieces, mask = [], tokenizer.mask_token_id
    inside = np.zeros(count, dtype=bool)
    for start in range(0, count, _CHUNK):
        facts = records.pieces(split, start, start + _CHUNK)
        names = [one[GOLD] for one in facts]
        some = golds[start : start + _CHUNK] = word_ids(tokenizer, _spelt(names, options))
        spelt = told(tokenizer, [one[PROMPT] for one in facts], names, some.tolist())
        flat: list[int] = []
        for row, (tokens, fact) in enumerate(zip(spelt, facts, strict=True), start=start):
            kept = tokens if len(tokens) <= room else [*tokens[: room - 1], tokens[-1]]
            inside[row] = mask in kept and tokens.count(mask) == 1
            answers[row]["easy"] = EASY["held"] * (fact[GOLD].lower() in fact[SUBJECT].lower())
            places[row] = kept.index(mask) if inside[row] else 0
            lengths[row] = len(kept)
            flat += kept
        pieces.append(np.array(flat, dtype=np.int32))
    answers["single"] = golds >= 0
    kept_out = [golds < 0, ~np.isin(golds, ids), ~inside]
    answers["why"] = np.select(kept_out, [WHY[name] for name in ("not_single", "not_listed", "not_one_mask")])
    answers["used"] = answers["why"] == 0
    return Asked(np.concatenate(pieces), np.cumsum(lengths) - lengths, lengths, places, answers), golds


def ask(
    model: nn.Module,
    tokenizer: Any,
    asked: Asked,
    golds: np.ndarray,
    ids: np.ndarray,
    runtime: Runtime,
    precision: Precision,
) -> np.ndarray:
    """The answers to the facts that are used [facts], CLOZE, the same on every process: one pass, all at the mask.

    A log-probability is that among all tokens; of equally probable words the one with the lowest id is the answer.
    """
    import torch

    from kbench.backbones.masked_lm import logits_at

    answers = asked.answers
    used = np.flatnonzero(answers["used"])
    by_length = used[np.argsort(asked.lengths[used], kind="stable")]
    size = runtime.eval_batch_size
    portions = [by_length[start : start + size] for start in range(0, len(by_length), size)]
    chosen = torch.from_numpy(ids).to(runtime.device)
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    with torch.inference_mode(), runtime.autocast(precision):
        for rows in portions[runtime.rank :: runtime.processes]:
            runtime.check_stop()
            batch, attention = asked.batch(rows, 1, tokenizer.pad_token_id)
            at = torch.from_numpy(np.arange(len(rows)) * batch.shape[1] + asked.places[rows])
            inputs = {"input_ids": torch.from_numpy(batch), "attention_mask": torch.from_numpy(attention)}
            inputs = {name: one.to(runtime.device) for name, one in inputs.items()}
            logits = logits_at(model, inputs, at.to(runtime.device)).float()
            best = logits[:, chosen].max(-1)
            sure = best.values - logits.logsumexp(-1)
            found.append((rows, ids[best.indices.cpu().numpy()], sure.cpu().numpy()))
    texts: dict[int, str] = {}
    for rows, tokens, logprobs in runtime.gather(found):
        texts |= {one: read(tokenizer, [one]) for one in tokens.tolist() if one not in texts}
        answers["tokens"][rows], answers["logprob"][rows] = 1, logprobs
        answers["text"][rows] = [texts[one] for one in tokens.tolist()]
        answers["correct"][rows] = tokens == golds[rows]
    return answers
