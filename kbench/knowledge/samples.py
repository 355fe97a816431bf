"""What a pre-training on a graph reads, as ids: code-switched and alias sentences, and cycles to reason about.

switched.npy     a row a sentence (`SWITCHED`), by language, then triple; of a triple the sentence of labels first
reasoning3.npy   a row a length-3 sample (`reasoning_type(3)`), by language, then cycle; reasoning4.npy likewise
samples.json     counts by language and form, and what was left out

Every draw is a function of the seed, the numbers Wikidata gave the items, and the language: of no order, of no other
language, of no process. KMLM, section 2.1 and 2.2 of the paper; facts on the released code decide the options.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kbench.config.identity import science
from kbench.config.knowledge import AliasMissing, AliasPool, Align, Exclude, Knowledge, Missing, Multi, Sentences
from kbench.engine.counter import below, mixed
from kbench.engine.seeding import derive
from kbench.errors import DataError, Problem
from kbench.knowledge.cycles import balanced, cycle_key, signatures
from kbench.knowledge.graph import Graph
from kbench.knowledge.rows import RowFile
from kbench.knowledge.telling import Several, Telling, reasoning_type
from kbench.stages.stage import Stage

SWITCHED = np.dtype([("triple", "<i4"), ("language", "i1"), ("bits", "u1"), ("aliases", "<i2", (3,))])
_CHUNK = 1 << 18
_BITS, _TRIPLE, _ALIAS = range(3)  # what a number is drawn for; aliases take three places
_MOST_ALIASES = 2**15 - 1  # of an item in a language that are drawn from: what int16 counts
Tables = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
FILES = {3: "triangles.npy", 4: "diamonds.npy"}


def samples_stage(graph: Stage, cycles: Stage, xlr: Stage | None, knowledge: Knowledge, chunk: int = _CHUNK) -> Stage:
    """The stage of all samples.

    Args:
        graph, cycles: the stages of the graph and of its cycles.
        xlr: the questions whose test cycles are kept out; None: nothing is kept out.
        chunk: triples or cycles worked on at a time; decides memory, not the result.
    """
    whole = science(knowledge)
    chosen = {name: whole[name] for name in ("languages", "seed", "sentences", "cycles")}
    parents = {"graph": graph, "cycles": cycles, **({"xlr": xlr} if xlr else {})}

    def build(work: Path, folders: Mapping[str, Path]) -> None:
        try:
            keys = np.load(folders["xlr"] / "keys.npy", allow_pickle=False) if xlr else np.zeros(0, np.int64)
            loaded = Graph(folders["graph"])
            info: dict[str, Any] = {"languages": list(knowledge.languages)}
            info["switched"] = write_switched(loaded, knowledge, work, chunk)
            info["reasoning"] = write_reasoning(loaded, folders["cycles"], keys, knowledge, work, chunk)
            (work / "samples.json").write_text(json.dumps(info, indent=1), encoding="utf-8")
        except DataError:
            shutil.rmtree(work)  # other settings have another key: nobody would continue this
            raise

    return Stage("samples", 1, chosen, build, parents, alone=True)


def describe(folder: Path) -> dict[str, Any]:
    """Totals of a stage of samples, named as in the paper's table 8.

    n_cycle3_samples and n_cycle4_samples count every language; the relation combinations are those of any language.
    """
    info = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    found = {
        "n_languages": len(info["languages"]),
        "n_code_switched_sentences": sum(one["sentences"] for one in info["switched"].values()),
    }
    for length in (3, 4):
        of = info["reasoning"][str(length)]
        found[f"n_cycle{length}_relation_combinations"] = of["signatures"]
        found[f"n_cycle{length}_samples"] = sum(one["samples"] for one in of["languages"].values())
    return found


class _Numbers:
    """What the draws for triples are keyed by: the numbers Wikidata gave their items, not where they stand here."""

    def __init__(self, graph: Graph, seed: int):
        self.graph, self.seed = graph, seed

    def keys(self, triples: np.ndarray) -> np.ndarray:
        """One key a triple; (seed, head, relation, tail). `triples` [n, 3] -> uint64 [n]."""
        entities, relations = self.graph.entities, self.graph.relations
        head, relation, tail = triples.T
        return mixed(self.seed, entities[head], relations[relation], entities[tail])


def write_switched(graph: Graph, knowledge: Knowledge, work: Path, chunk: int = _CHUNK) -> dict[str, Any]:
    """Write `switched.npy`; gives language -> counts.

    For each triple and language other than the first: three fair bits; a part whose bit is 1 is said in the language
    where it has a label there, else in the first language (paper, section 2.1). The alias sentence keeps the
    languages and puts a uniformly drawn alias for each label.
    """
    options = knowledge.sentences
    numbers = _Numbers(graph, derive(knowledge.seed, "sentences"))
    first = graph.names(knowledge.languages[0])
    base = _aliases(first.counts, options)
    info = {}
    with RowFile(work / "switched.npy", SWITCHED) as file:
        for index, language in enumerate(knowledge.languages[1:], start=1):
            names, key = graph.names(language), derive(knowledge.seed, "language", language)
            tables = (np.asarray(first.has), np.asarray(names.has), base, _aliases(names.counts, options))
            rows = _drawn(numbers, key, options.triples, chunk)
            counts = dict.fromkeys(_COUNTS, 0)
            counts["triples"] = len(rows)
            for start in range(0, len(rows), chunk):
                part = rows[start : start + chunk]
                file.append(_sentences(numbers, key, part, index, tables, options, counts))
            info[language] = counts
    return info


_COUNTS = (
    "triples",  # drawn for the pair
    "sentences",  # written: of labels and of aliases
    "of_labels",
    "of_aliases",
    "unswitched",  # written, all of it in the first language
    "without_first",  # triples left out: a part to be said in the first language has no name there
    "without_name",  # triples left out: a part drawn to be said in the language has no name there (missing=drop)
    "without_alias",  # alias sentences left out (alias_missing=drop)
    "left_unswitched",  # triples left out: all of it in the first language (drop_unswitched)
    "parts_without_name",  # parts drawn to be said in the language that are said in the first for want of a name
)


def _aliases(counts: np.ndarray, options: Sentences) -> np.ndarray:
    """How many aliases of each item are drawn from, int16 [items]; a name list is the label, then the aliases."""
    found = np.maximum(np.asarray(counts) - 1, 0)
    if options.alias_pool is AliasPool.first_half:  # released code: aliases[: n // 2 + 1]
        found = np.minimum(found, found // 2 + 1)
    return np.minimum(found, _MOST_ALIASES).astype(np.int16)


def _drawn(numbers: _Numbers, key: int, size: int | None, chunk: int) -> np.ndarray:
    """The triples of a language pair, ascending: all, or the `size` of the smallest keyed hash."""
    triples = numbers.graph.triples
    if size is None or size >= len(triples):
        return np.arange(len(triples), dtype=np.int32)
    score = np.empty(len(triples), dtype=np.uint64)
    for start in range(0, len(triples), chunk):
        score[start : start + chunk] = mixed(numbers.keys(triples[start : start + chunk]), key, _TRIPLE)
    return np.sort(np.argpartition(score, size - 1)[:size]).astype(np.int32)


def _sentences(
    numbers: _Numbers,
    key: int,
    rows: np.ndarray,
    index: int,
    tables: Tables,
    options: Sentences,
    counts: dict[str, int],
) -> np.ndarray:
    """The sentences of some triples in one language, `SWITCHED` [k]; what happened is added to the counts.

    Args:
        key: of the language.
        rows: the triples [n].
        index: of the language.
        tables: by item: whether it has a name in the first language, in this one; aliases to draw from, likewise.
    """
    has_first, has, aliases_first, aliases = tables
    triples = numbers.graph.triples[rows]
    items = triples + np.array([0, len(numbers.graph.entities), 0], dtype=np.int64)  # [n, 3]
    base = numbers.keys(triples)
    drawn = (mixed(base, key, _BITS)[:, None] >> np.arange(61, 64, dtype=np.uint64)) & np.uint64(1) > 0
    said = drawn & has[items]  # in the language; the others in the first
    nameless = (drawn & ~said).any(axis=1) & (options.missing is Missing.drop)
    silent = ~nameless & (~said & ~has_first[items]).any(axis=1)
    keep = ~nameless & ~silent
    unswitched = keep & ~said.any(axis=1)
    counts["without_name"] += int(nameless.sum())
    counts["without_first"] += int(silent.sum())
    if options.drop_unswitched:
        counts["left_unswitched"] += int(unswitched.sum())
        keep &= ~unswitched
    counts["parts_without_name"] += int((drawn & ~said)[keep].sum())

    forms = 1 + options.aliases
    made = np.zeros((len(rows), forms), dtype=SWITCHED)
    made["triple"], made["language"] = rows[:, None], index
    made["bits"] = np.packbits(said, axis=1, bitorder="little")
    written = np.repeat(keep[:, None], forms, axis=1)
    if options.aliases:
        pool = np.where(said, aliases[items], aliases_first[items])  # [n, 3]
        which = below(pool, base[:, None], key, _ALIAS + np.arange(3))
        made["aliases"][:, 1] = np.where(pool > 0, which + 1, 0)
        if options.alias_missing is AliasMissing.drop:
            lacking = (pool == 0).any(axis=1)
            counts["without_alias"] += int((keep & lacking).sum())
            written[:, 1] &= ~lacking
        counts["of_aliases"] += int(written[:, 1].sum())
    counts["of_labels"] += int(written[:, 0].sum())
    counts["sentences"] += int(written.sum())
    counts["unswitched"] += int((written & ~said.any(axis=1)[:, None]).sum())
    found: np.ndarray = made[written]
    return found


def write_reasoning(
    graph: Graph, cycles: Path, keys: np.ndarray, knowledge: Knowledge, work: Path, chunk: int = _CHUNK
) -> dict[str, Any]:
    """Write `reasoning3.npy` and `reasoning4.npy`; gives length -> what is in them and what was left out.

    A cycle is said in a language where its entities have labels there, and its relations have, or else English ones
    (`cycles.missing`). Test cycles, `keys` [K] int64, are kept out of every language. What is left is cut to size by
    signature, for each language on its own.

    Raises:
        DataError: not one sample in any language.
    """
    options, info = knowledge.cycles, {}
    keys = np.sort(keys)
    redraws = options.align is Align.per_language and options.multi is not Multi.all
    pairs = Several(graph, cycles) if redraws else None
    for length in (3, 4):
        table = np.load(cycles / FILES[length], mmap_mode="r", allow_pickle=False)
        free = _free(table, length, keys, options.exclude, chunk)
        of: dict[str, Any] = {"cycles": len(table), "excluded": int((~free).sum()), "languages": {}}
        combinations = np.zeros(0, dtype=np.int64)
        with RowFile(work / f"reasoning{length}.npy", reasoning_type(length)) as file:
            for index, language in enumerate(knowledge.languages):
                told = Telling(graph, language, knowledge, pairs)
                parts = [
                    told.cycles(table, start + np.flatnonzero(free[start : start + chunk]), length)
                    for start in range(0, len(table), chunk)
                ]
                made = np.concatenate([np.zeros(0, reasoning_type(length)), *parts])
                made["language"] = index
                signature, chosen = _cut(graph, table, made, length, knowledge, chunk)
                file.append(made[chosen])
                own = np.unique(signature[chosen])
                combinations = np.union1d(combinations, own)
                counts = {"usable": len(made), "samples": len(chosen), "signatures": len(own)}
                of["languages"][language] = counts
        of["signatures"] = len(combinations)
        info[str(length)] = of
    if not any(one["samples"] for of in info.values() for one in of["languages"].values()):
        raise DataError(_no_cycles(info, knowledge))
    return info


def _free(table: np.ndarray, length: int, keys: np.ndarray, exclude: Exclude, chunk: int) -> np.ndarray:
    """Whether a cycle is none of the test's; of length-4 cycles, if asked, whether neither triangle in it is [T]."""
    groups = [list(range(length))]
    if length == 4 and exclude is Exclude.superset:
        groups += [[0, 1, 2], [0, 1, 3]]  # chord and one apex
    found = np.ones(len(table), dtype=bool)
    for start in range(0, len(table) if len(keys) else 0, chunk):
        part = np.asarray(table[start : start + chunk, :length])
        for group in groups:
            of = cycle_key(part[:, group])
            place = np.minimum(np.searchsorted(keys, of), len(keys) - 1)
            found[start : start + chunk] &= keys[place] != of
    return found


def _cut(
    graph: Graph, table: np.ndarray, made: np.ndarray, length: int, knowledge: Knowledge, chunk: int
) -> tuple[np.ndarray, np.ndarray]:
    """The signature of each sample of a language [n], and the samples that are kept, ascending."""
    signature, keys = np.empty(len(made), np.int64), np.empty(len(made), np.int64)
    for start in range(0, len(made), chunk):
        part = made[start : start + chunk]
        nodes = np.asarray(table[part["cycle"], :length])
        signature[start : start + chunk] = signatures(graph, np.concatenate([nodes, part["triples"]], axis=1))
        heads, relations, _ = np.moveaxis(graph.triples[part["triples"]], (0, 1, 2), (2, 1, 0))  # [edges, n] each
        numbers = [*graph.entities[nodes].T, *graph.entities[heads], *graph.relations[relations]]
        keys[start : start + chunk] = mixed(*numbers).view(np.int64)
    budget = getattr(knowledge.cycles, f"length{length}")
    seed = derive(knowledge.seed, "reasoning", length)  # of no language: they keep the same cycles where they can
    return signature, balanced(signature, keys, budget, knowledge.cycles.balance, seed)


def _no_cycles(info: dict[str, Any], knowledge: Knowledge) -> Problem:
    """Why there is nothing to reason about."""
    cycles, excluded = (sum(of[name] for of in info.values()) for name in ("cycles", "excluded"))
    if excluded == cycles:
        hint = "take fewer test questions (knowledge.xlr.test), or a larger graph"
        return Problem("knowledge", f"all of its {cycles:,} cycles are test questions of XLR", hint)
    what = f"not one of its {cycles:,} cycles has names for all its entities and relations in any language"
    return Problem("knowledge", what, "knowledge.cycles.missing=english names relations in the first language instead")
