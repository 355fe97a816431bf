"""XLR: questions of cross-lingual logical reasoning made of the cycles of a graph (KMLM, section 4.4 and table 10).

A question takes one triple out of a cycle; the others are the context, and one of six relations is the answer.

train.<first>.jsonl, dev.<first>.jsonl   in the first language
test.<language>.jsonl                    the same questions in every language, row by row
keys.npy                                 int64 [test questions]: keys of their cycles, to keep them out of pre-training
xlr.json                                 how many, how balanced, what was rejected, where it departs from the paper

The paper's test questions were filtered by hand; here rules do what rules can (`DEVIATIONS`).
"""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kbench.config.identity import science
from kbench.config.knowledge import Knowledge
from kbench.errors import DataError, Problem
from kbench.knowledge.candidates import Candidates, Speech
from kbench.knowledge.graph import Graph
from kbench.stages.stage import Stage

CHOICES = 6
SPLITS = ("test", "dev", "train")  # in the order they are drawn: the test has the first choice
DEVIATIONS = (
    "The paper's 1,050 test questions were filtered by hand. Here a question is left out where two choices have the "
    "same name in one of the languages, where two entities of the cycle have the same name, or where fewer than six "
    "relations are known around them.",
    "Length-3 and length-4 cycles are tried in turn, so that neither crowds out the other; the paper does not say.",
    "Balance over answers, entities and relation combinations is a largest share of each; the paper gives no numbers.",
    "Choices beside those of the cycle are drawn by how often they stand at the two entities; the paper says sampled.",
)


def xlr_stage(graph: Stage, cycles: Stage, knowledge: Knowledge) -> Stage:
    """The stage of the questions."""
    whole = science(knowledge)
    chosen = {name: whole[name] for name in ("languages", "seed", "xlr")}
    chosen["missing"] = whole["cycles"]["missing"]

    def build(work: Path, folders: Mapping[str, Path]) -> None:
        try:
            write_xlr(Graph(folders["graph"]), folders["cycles"], knowledge, work)
        except DataError:
            shutil.rmtree(work)  # other settings have another key: nobody would continue this
            raise

    return Stage("xlr", 2, chosen, build, {"graph": graph, "cycles": cycles}, alone=True)


@dataclass(frozen=True)
class Question:
    """A question as numbers.

    Attributes:
        key: of its cycle.
        signature: of the cycle's relations.
        nodes: entity indices of the cycle.
        context: the triples told, in the cycle's order.
        asked: the triple asked about, (head, relation, tail).
        choices: relation indices; label: which of them is the answer.
    """

    key: int
    signature: int
    nodes: tuple[int, ...]
    context: tuple[tuple[int, int, int], ...]
    asked: tuple[int, int, int]
    choices: tuple[int, ...]
    label: int


@dataclass
class Balance:
    """Counts an answer, an entity or a combination of relations may not exceed in a split."""

    answer: int
    entity: int
    signature: int
    answers: Counter[int] = field(default_factory=Counter)
    entities: Counter[int] = field(default_factory=Counter)
    signatures: Counter[int] = field(default_factory=Counter)

    @classmethod
    def of(cls, knowledge: Knowledge, size: int) -> Balance:
        """The largest counts that the shares allow, rounded up."""
        xlr = knowledge.xlr
        return cls(*(math.ceil(share * size - 1e-9) for share in (xlr.per_answer, xlr.per_entity, xlr.per_signature)))

    def full(self, answer: int, nodes: tuple[int, ...], signature: int) -> str | None:
        """What there is enough of already; None where one more fits."""
        if self.answers[answer] >= self.answer:
            return "answer"
        if self.signatures[signature] >= self.signature:
            return "signature"
        return "entity" if any(self.entities[node] >= self.entity for node in nodes) else None

    def add(self, question: Question) -> None:
        """Count a question."""
        self.answers[question.asked[1]] += 1
        self.signatures[question.signature] += 1
        self.entities.update(question.nodes)


def write_xlr(graph: Graph, cycles: Path, knowledge: Knowledge, work: Path) -> dict[str, Any]:
    """Draw the questions and write all files; gives what `xlr.json` says.

    Raises:
        DataError: the graph does not give as many questions as are asked for.
    """
    candidates = Candidates(graph, cycles, knowledge)
    questions: dict[str, list[Question]] = {}
    rejected: dict[str, Counter[str]] = {}
    for split in SPLITS:
        taken = {question.key for found in questions.values() for question in found}
        avoid = {question.signature for question in questions.get("test", [])}
        questions[split], rejected[split] = _draw(candidates, knowledge, split, taken, avoid)
    spoken = {language: candidates.speech(language) for language in knowledge.languages}
    first = knowledge.languages[0]
    for split in ("train", "dev"):
        _write(work / f"{split}.{first}.jsonl", questions[split], spoken[first], graph)
    for language in knowledge.languages:
        _write(work / f"test.{language}.jsonl", questions["test"], spoken[language], graph)
    np.save(work / "keys.npy", np.array([question.key for question in questions["test"]], dtype=np.int64))
    info = _statistics(graph, candidates, questions, rejected, knowledge)
    (work / "xlr.json").write_text(json.dumps(info, indent=1, ensure_ascii=False), encoding="utf-8")
    return info


def _draw(
    candidates: Candidates, knowledge: Knowledge, split: str, taken: set[int], avoid: set[int]
) -> tuple[list[Question], Counter[str]]:
    """The questions of a split, and why others were not taken.

    Those whose relations are combined as in a test question are tried only when all others were.
    """
    size = getattr(knowledge.xlr, split)
    balance, found, rejected = Balance.of(knowledge, size), [], Counter[str]()
    taken = set(taken)
    for again in (False, True) if avoid else (False,):
        for question in _questions(candidates, split, taken, avoid, again, balance, rejected):
            balance.add(question)
            taken.add(question.key)
            found.append(question)
            if len(found) == size:
                return found, rejected
    raise DataError(_too_few(candidates, knowledge, split, found, rejected))


def _questions(
    candidates: Candidates,
    split: str,
    taken: set[int],
    avoid: set[int],
    again: bool,
    balance: Balance,
    rejected: Counter[str],
) -> Iterator[Question]:
    """Questions that fit beside those taken so far, in the order of the draw.

    Args:
        taken: keys of the cycles of other questions.
        avoid: combinations of relations of the test; `again`: only those now, else none of them.
        rejected: counts why a candidate was not taken.
    """
    for block in candidates.blocks(everywhere=split == "test"):
        fit = np.ones(len(block.keys), dtype=bool)
        for name, out in (
            ("other part", np.isin(block.signatures, _array(avoid)) != again if avoid else ~fit),
            ("taken", np.isin(block.keys, _array(taken))),
            ("several relations", block.asked < 0),
            ("answer", np.isin(block.answers, _array(_full(balance.answers, balance.answer)))),
            ("signature", np.isin(block.signatures, _array(_full(balance.signatures, balance.signature)))),
            ("entity", np.isin(block.nodes, _array(_full(balance.entities, balance.entity))).any(axis=1)),
        ):
            rejected[name] += int((fit & out).sum())
            fit &= ~out
        fit, alike = candidates.told_apart(block, fit, everywhere=split == "test")
        rejected["entities alike"] += alike
        around = candidates.around(block, fit)
        for place in np.flatnonzero(fit).tolist():
            nodes = tuple(node for node in block.nodes[place].tolist() if node >= 0)
            key, signature = int(block.keys[place]), int(block.signatures[place])
            full = "taken" if key in taken else balance.full(int(block.answers[place]), nodes, signature)
            chosen = None if full else candidates.choices(block, place, around, CHOICES, everywhere=split == "test")
            if full or chosen is None:
                rejected[full or "choices"] += 1
                continue
            choices, label = chosen
            triples = candidates.triples_of(block, place)
            asked = triples.pop(int(block.asked[place]))
            yield Question(key, signature, nodes, tuple(triples), asked, choices, label)


def _full(counts: Counter[int], most: int) -> set[int]:
    return {key for key, count in counts.items() if count >= most}


def _array(keys: set[int]) -> np.ndarray:
    return np.array(sorted(keys), dtype=np.int64)


def _too_few(
    candidates: Candidates, knowledge: Knowledge, split: str, found: list[Question], rejected: Counter[str]
) -> Problem:
    """What to do when the graph does not give enough."""
    xlr, size = knowledge.xlr, getattr(knowledge.xlr, split)
    pool = candidates.everywhere if split == "test" else candidates.sayable
    where, what = f"knowledge.xlr.{split}", f"asks for {size:,} questions; the graph gives {len(found):,}"
    if pool == 0:
        named = "every language" if split == "test" else knowledge.languages[0]
        why = f"none of its {candidates.cycles:,} cycles has names for all its entities and relations in {named}"
        return Problem(where, f"{what}: {why}", "take fewer languages, or knowledge.cycles.missing=english")
    shares = {name: rejected[name] for name in ("answer", "entity", "signature") if rejected[name]}
    hint = f"knowledge.xlr.{split}={len(found)}, or fewer" if found else "take another graph"
    if shares:  # of the number that is asked for: to ask for what was found would give less again
        name = max(shares, key=lambda one: shares[one])
        limit = f"knowledge.xlr.per_{name}={getattr(xlr, f'per_{name}')}"
        hint = f"a larger {limit}, for which {shares[name]:,} cycles were passed over; or another graph"
    told = {"several relations": "no pair with one relation", "choices": f"no {CHOICES} different choices"}
    told["entities alike"] = "entities of one name"
    why = ", ".join(f"{told[name]}: {count:,}" for name, count in rejected.items() if name in told and count)
    return Problem(where, what + f" of {pool:,} cycles" + (f" ({why})" if why else ""), hint)


def _write(path: Path, questions: list[Question], speech: Speech, graph: Graph) -> None:
    """A file of questions in one language."""
    names = speech.entities({node for question in questions for node in question.nodes})
    relations = speech.relations
    with path.open("w", encoding="utf-8") as file:
        for number, question in enumerate(questions):
            head, relation, tail = question.asked
            context = " ".join(f"({names[h]}, {relations[r]}, {names[t]})" for h, r, t in question.context)
            row = {
                "id": number,
                "nodes": [f"Q{graph.entities[node]}" for node in question.nodes],
                "context": context,
                "question": f"What is the relation between {names[head]} and {names[tail]}?",
                "choices": [relations[choice] for choice in question.choices],
                "label": question.label,
                "answer": f"P{graph.relations[relation]}",
                "lang": speech.language,
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _statistics(
    graph: Graph,
    candidates: Candidates,
    questions: dict[str, list[Question]],
    rejected: dict[str, Counter[str]],
    knowledge: Knowledge,
) -> dict[str, Any]:
    """Numbers of table 10, histograms, overlaps."""
    splits = {}
    test = {question.signature for question in questions["test"]}
    for split in ("train", "dev", "test"):
        found = questions[split]
        answers = Counter(f"P{graph.relations[question.asked[1]]}" for question in found)
        entities = Counter(f"Q{graph.entities[node]}" for question in found for node in question.nodes)
        signatures = Counter(question.signature for question in found)
        splits[split] = {
            "questions": len(found),
            "length3": sum(len(question.nodes) == 3 for question in found),
            "length4": sum(len(question.nodes) == 4 for question in found),
            "relation_combinations": len(signatures),
            "answers": dict(sorted(answers.items(), key=lambda one: (-one[1], one[0]))),
            "entities": {"different": len(entities), "commonest": dict(entities.most_common(20))},
            "questions_of_a_combination": dict(sorted(Counter(signatures.values()).items())),
            "labels": [sum(question.label == place for question in found) for place in range(CHOICES)],
            "combinations_of_test": sum(question.signature in test for question in found),
            "largest_share": {
                "answer": max(answers.values()) / len(found),
                "entity": max(entities.values()) / len(found),
                "signature": max(signatures.values()) / len(found),
            },
            "passed_over": {name: count for name, count in rejected[split].items() if count and name != "other part"},
        }
    pool = {"cycles": candidates.cycles, "sayable": candidates.sayable, "everywhere": candidates.everywhere}
    return {"languages": list(knowledge.languages), "pool": pool, "splits": splits, "deviations": list(DEVIATIONS)}
