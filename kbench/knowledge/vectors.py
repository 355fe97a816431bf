"""Vectors of a graph's entities and relations, trained here (TransE) or read from a folder of finished ones.

Finished vectors are those of `kbench.knowledge.vector_files`; what the graph does not have is passed over and counted.

entities.npy, relations.npy         float32 [n, d], [m, d], in the order of the graph; zeros where there is none
has.npy, has_relations.npy          bool [n], [m]: whether there is one
vectors.json                        counts, a content hash, how well they know the graph, how they were trained
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kbench.config.corpus import Norm, Vectors
from kbench.engine.counter import permuted
from kbench.engine.seeding import derive
from kbench.errors import DataError, Problem
from kbench.files import hash_file, write_atomically
from kbench.knowledge.graph import Graph
from kbench.knowledge.neighbours import Neighbours
from kbench.knowledge.vector_files import PACKED, Files, read_vectors
from kbench.knowledge.vector_files import locate_vectors as locate_vectors
from kbench.stages.stage import Stage

ASKED = 500  # triples whose heads and tails are asked for: 1,000 queries, so a share is known to about 1.5 points
_REPORT = "vectors.json"


class GraphVectors:
    """Stored vectors of a graph, memory-mapped.

    Attributes:
        entities, relations: float32 [n, d], [m, d]; zeros where there is none.
        has, has_relation: whether there is one, bool [n], [m].
        info: what `vectors.json` says.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.info: dict[str, Any] = json.loads((folder / _REPORT).read_text(encoding="utf-8"))
        self.entities, self.relations, self.has, self.has_relation = (
            np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in ("entities", "relations", "has", "has_relations")
        )

    def usable(self, triples: np.ndarray) -> np.ndarray:
        """Whether there is a vector for each of the three parts [t]. `triples` [t, 3]."""
        head, relation, tail = triples.T
        has, has_relation = np.asarray(self.has), np.asarray(self.has_relation)
        found: np.ndarray = has[head] & has[tail] & has_relation[relation]
        return found


def vectors_stage(
    graph: Stage,
    vectors: Vectors,
    files: Files,
    device: str = "cpu",
    check_stop: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = lambda told: None,
) -> Stage:
    """The stage that trains or reads the vectors of a graph.

    Args:
        graph: the stage of the graph.
        vectors: how they are trained; of finished ones, only `norm` is read, for the scores.
        files: as `kbench.knowledge.vector_files.locate_vectors` finds them.
        device: cpu or cuda; it may change last bits, and is no part of what they are.
        check_stop: asked before each step of a training, raises where it is to end; it continues another time.
        say: told how far a training is, a line each time.
    """
    names = ("dimension", "epochs", "lr", "batch_size", "negatives", "margin", "seed")
    rules = {**{name: getattr(vectors, name) for name in names}, "norm": vectors.norm.value}
    science: dict[str, Any] = {"trained": rules}
    if files:
        science = {"files": {name: hash_file(path) for name, path in files.items()}, "norm": vectors.norm.value}

    def build(work: Path, folders: Mapping[str, Path]) -> None:
        if (work / _REPORT).is_file():  # the last thing that is written
            return
        found = Graph(folders["graph"])
        if not files:
            _train(found, rules, work, device, check_stop, say)
            return
        try:
            info = _read(found, files, f"knowledge.vectors.path={vectors.path}", work)
        except DataError:
            shutil.rmtree(work)  # mended files have another key: nobody would continue this
            raise
        _report(found, work, info, vectors.norm.value, device)

    return Stage("vectors", 1, science, build, {"graph": graph}, alone=True)


def export(vectors: GraphVectors, graph: Graph, to: Path) -> None:
    """Write what there is as `vectors.safetensors` into a folder, which another `knowledge.vectors.path` may name."""
    from safetensors.numpy import save_file

    has, has_relation = np.flatnonzero(vectors.has), np.flatnonzero(vectors.has_relation)
    arrays = {
        "entities": vectors.entities[has],
        "relations": vectors.relations[has_relation],
        "entity_ids": np.asarray(graph.entities)[has],
        "relation_ids": np.asarray(graph.relations)[has_relation],
    }
    fresh = to / f".{PACKED}.tmp"
    save_file(arrays, fresh, metadata={"content": str(vectors.info["content"])})
    fresh.replace(to / PACKED)


def vectors_readme(info: Mapping[str, Any], name: str, graph: Mapping[str, Any], command: str, licence: str) -> str:
    """The page beside exported vectors.

    Args:
        info: what `vectors.json` says.
        name, graph, licence: of the graph: its name, what `graph.json` says, its terms of use.
        command: what made them, with kbench's version.
    """
    scores, trained = info["scores"], info.get("trained")
    made = f"read from {', '.join(info['files'])}" if trained is None else "trained by TransE"
    lines = [
        f"# Vectors of {name}",
        "",
        f"One vector of {info['dimension']} numbers for each of {info['entities']:,} entities and "
        f"{info['relations']:,} relations, {made}.",
        f"Made by {command}.",
        "",
        "`vectors.safetensors`: `entities`, `relations`, float32; `entity_ids`, `relation_ids`, int64: Wikidata's",
        "numbers of the rows (42 for Q42, P42). To use them: `knowledge.vectors.path=FOLDER`.",
        "",
        f"- graph: {name}, {graph['entities']:,} entities, {graph['relations']:,} relations, {graph['triples']:,} "
        f"triples; content {graph['content'][:16]}",
        f"- licence of the graph: {licence}",
        f"- content of the vectors: {info['content'][:16]}",
    ]
    if trained is not None:
        lines.append("- " + ", ".join(f"{key} {value}" for key, value in trained.items()))
        losses = info["losses"]
        lines.append(f"- mean loss of the first epoch {losses[0]:.4f}, of the last {losses[-1]:.4f}")
    lines += [
        "",
        f"| {scores['norm']}, filtered, {scores['queries']:,} queries | mean reciprocal rank | hits at 10 |",
        "|---|---|---|",
        f"| triples of the graph | {scores['mrr']:.3f} | {scores['hits@10']:.3f} |",
        "",
        "These triples belong to those that a training sees: the scores say how well the vectors hold the graph, not",
        "what they know beyond it.",
    ]
    return "\n".join(lines) + "\n"


def _train(
    graph: Graph, chosen: dict[str, Any], work: Path, device: str, check_stop: Callable[[], None],
    say: Callable[[str], None],
) -> None:  # fmt: skip
    from kbench.knowledge.transe import Rules, Training

    rules = Rules(**{**chosen, "norm": 2 if chosen["norm"] == Norm.l2.value else 1})
    sizes = {"entities": len(graph.entities), "relations": len(graph.relations)}
    training = Training(np.asarray(graph.triples), **sizes, rules=rules, work=work, device=device)
    training.run(check_stop, say)
    training.save()  # or a kill while they are scored would cost the training
    for name, array in zip(sizes, training.vectors(), strict=True):
        np.save(work / f"{name}.npy", array, allow_pickle=False)
    for name, size in zip(("has", "has_relations"), sizes.values(), strict=True):
        np.save(work / f"{name}.npy", np.ones(size, dtype=bool), allow_pickle=False)
    _report(graph, work, {"trained": chosen, "losses": training.losses}, chosen["norm"], device)
    training.forget()


def _report(graph: Graph, work: Path, info: dict[str, Any], norm: str, device: str) -> None:
    """Write vectors.json, last of all files."""
    from kbench.knowledge.transe import ranking

    content = hashlib.sha256()
    arrays = {}
    for name in ("entities", "relations", "has", "has_relations"):
        arrays[name] = np.load(work / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        content.update(f"{name} {arrays[name].shape}\n".encode())
        content.update(np.ascontiguousarray(arrays[name]).data)
    triples = np.asarray(graph.triples)
    head, relation, tail = triples.T
    usable = np.flatnonzero(arrays["has"][head] & arrays["has"][tail] & arrays["has_relations"][relation])
    places = permuted(np.arange(min(ASKED, len(usable))), len(usable), derive(0, "vectors", "asked"))
    neighbours, power = Neighbours(triples, len(graph.entities)), 2 if norm == Norm.l2.value else 1
    scores = ranking(arrays["entities"], arrays["relations"], neighbours, usable[places], power, device)
    shown = {
        "entities": int(arrays["has"].sum()), "relations": int(arrays["has_relations"].sum()),
        "dimension": arrays["entities"].shape[1],
        "entities_without": int((~arrays["has"]).sum()), "relations_without": int((~arrays["has_relations"]).sum()),
        "usable_triples": len(usable), "scores": {"norm": norm, **scores}, "content": content.hexdigest(), **info,
    }  # fmt: skip
    write_atomically(work / _REPORT, json.dumps(shown, indent=1))


def _read(graph: Graph, files: Files, where: str, work: Path) -> dict[str, Any]:
    """Write the arrays out of finished vectors; gives what was passed over."""
    widths, others = {}, {}
    marks = {"entities": (graph.entities, "has"), "relations": (graph.relations, "has_relations")}
    for name, (numbers, mark) in marks.items():
        path, ids, blocks = read_vectors(files, name)
        places, has, read = _places(np.asarray(numbers), ids), np.zeros(len(numbers), dtype=bool), 0
        for start, block in blocks:
            read = start + len(block)
            if read > len(ids):
                break
            if not start:
                widths[name] = block.shape[1]
                shape = (len(numbers), block.shape[1])
                out = np.lib.format.open_memmap(work / f"{name}.npy", mode="w+", dtype=np.float32, shape=shape)
            kept = places[start:read] >= 0
            chosen = places[start:read][kept]
            out[chosen], has[chosen] = block[kept], True
        if read != len(ids):
            count = f"more than {len(ids):,}" if read > len(ids) else f"{read:,}"
            raise DataError(Problem(str(path), f"has {count} rows of {name}, there are {len(ids):,} ids of them"))
        if not has.any():
            hint = f"the graph has {len(numbers):,}, the files {len(ids):,}: are both of Wikidata?"
            raise DataError(Problem(where, f"there is no vector for any of the graph's {name}", hint))
        others[name] = int((places < 0).sum())
        np.save(work / f"{mark}.npy", has, allow_pickle=False)
        out.flush()
    if widths["entities"] != widths["relations"]:
        what = f"entities have {widths['entities']} numbers, relations {widths['relations']}"
        raise DataError(Problem(where, what, "head + relation is to be near tail, so all are of one length"))
    return {"files": sorted(files), "vectors_of_others": others}


def _places(numbers: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Place of each id among ascending numbers, int64; -1 where it is none of them."""
    places = np.minimum(np.searchsorted(numbers, ids), len(numbers) - 1)
    return np.where(numbers[places] == ids, places, -1)
