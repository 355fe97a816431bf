"""The second filter of LAMA-UHN: what a model guesses from a person's name alone (Poerner et al. 2020, section 2.1).

A fact about a person is easy if a masked language model, bert-base-cased in the paper, has its object among its three
best answers to "Jean is a common name in the following city : [MASK] ." for any word of the subject's name. Templates,
nouns and the number are those of the released code (create_lama_uhn.py); facts of other relations are never easy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kbench.data.facts import GOLD, RELATION, SUBJECT
from kbench.data.prompts import OBJECT
from kbench.data.prompts import SUBJECT as NAME
from kbench.errors import DataError, Problem
from kbench.tasks.asking import ids_of
from kbench.tasks.cloze import folder_of, masked

if TYPE_CHECKING:
    from torch import nn

    from kbench.data.records import Records
    from kbench.engine.runtime import Runtime

# relation -> what it is asked for
NOUNS = {
    "place_of_birth": "city", "place_of_death": "city", "P19": "city", "P20": "city", "P27": "country",
    "P1412": "language", "P103": "language",
}  # fmt: skip
BEST = 3
_TEMPLATE = f"{NAME} is a common name in the following noun : {OBJECT} ."
_CHUNK = 1024  # facts whose texts are in memory at once


def load(name: str, runtime: Runtime) -> tuple[nn.Module, Any]:
    """The model that guesses, on the runtime's device, and its tokenizer. `name` as data.probing.lama.uhn_model.

    Raises:
        UserError: it is not on this machine, or is no masked language model.
    """
    from kbench.backbones.load import load_masked_lm, load_tokenizer

    folder = folder_of(name, "uhn_model", weights=True)
    tokenizer = load_tokenizer(folder)
    if tokenizer.mask_token_id is None:
        hint = "take a masked language model"
        raise DataError(Problem("data.probing.lama.uhn_model", f"the tokenizer of {name} has no mask token", hint))
    return load_masked_lm(folder, seed=0).to(runtime.device).eval(), tokenizer


def guessed(model: nn.Module, tokenizer: Any, records: Records, split: str, runtime: Runtime) -> np.ndarray:
    """Whether a model guesses the object of each fact from a word of its subject's name [facts], bool.

    In float32, whatever the model that is probed is computed in: which facts are asked must not hang on that. Each word
    is asked once for each noun; an object is compared by its token, so that one of several tokens is never guessed.
    """
    names: dict[tuple[str, str], int] = {}
    facts, pairs, golds = [], [], np.full(records.rows(split), -1, dtype=np.int64)
    for start in range(0, len(golds), _CHUNK):
        some = records.pieces(split, start, start + _CHUNK)
        for row, (fact, ids) in enumerate(
            zip(some, ids_of(tokenizer, [f" {one[GOLD]}" for one in some]), strict=True), start=start
        ):
            noun = NOUNS.get(fact[RELATION])
            if noun is None or len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
                continue
            golds[row] = ids[0]
            for word in dict.fromkeys(fact[SUBJECT].split()):
                facts.append(row)
                pairs.append(names.setdefault((word, noun), len(names)))
    found = np.zeros(len(golds), dtype=bool)
    if names:
        best = _best(model, tokenizer, list(names), runtime)
        held = (best[pairs] == golds[facts][:, None]).any(1)
        found[np.array(facts)[held]] = True
    return found


def _best(model: nn.Module, tokenizer: Any, names: list[tuple[str, str]], runtime: Runtime) -> np.ndarray:
    """The most probable tokens for each word and noun, int64 [names, 3]; of a word that holds the mask itself, -1."""
    import torch

    from kbench.backbones.masked_lm import logits_at

    mask, size = tokenizer.mask_token_id, runtime.eval_batch_size
    prompts = [_TEMPLATE.replace("noun", noun).replace(NAME, word) for word, noun in names]
    told = ids_of(tokenizer, [masked(tokenizer, prompt) for prompt in prompts], special=True)
    usable = [row for row, ids in enumerate(told) if ids.count(mask) == 1]
    by_length = sorted(usable, key=lambda row: (len(told[row]), row))
    portions = [by_length[start : start + size] for start in range(0, len(by_length), size)]
    found: list[tuple[list[int], np.ndarray]] = []
    with torch.inference_mode():
        for rows in portions[runtime.rank :: runtime.processes]:
            runtime.check_stop()
            width = max(len(told[row]) for row in rows)
            ids = torch.full((len(rows), width), tokenizer.pad_token_id, dtype=torch.long)
            for line, row in enumerate(rows):
                ids[line, : len(told[row])] = torch.tensor(told[row])
            there = torch.arange(width) < torch.tensor([len(told[row]) for row in rows])[:, None]
            at = torch.tensor([line * width + told[row].index(mask) for line, row in enumerate(rows)])
            inputs = {"input_ids": ids.to(runtime.device), "attention_mask": there.long().to(runtime.device)}
            logits = logits_at(model, inputs, at.to(runtime.device)).float()
            found.append((rows, logits.topk(BEST, dim=-1).indices.cpu().numpy()))
    best = np.full((len(names), BEST), -1, dtype=np.int64)
    for rows, tokens in runtime.gather(found):
        best[rows] = tokens
    return best
