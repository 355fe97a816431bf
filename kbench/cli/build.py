"""`kbench build`: what is made of a knowledge graph, without a run: its samples, XLR questions, names from a dump."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kbench import __version__
from kbench.cli import console
from kbench.config.compose import compose
from kbench.config.knowledge import Knowledge
from kbench.config.schema import Config
from kbench.errors import ConfigError, Problem, UserError, is_disk_full
from kbench.files import write_atomically
from kbench.runs.prepare import STAGES
from kbench.stages.stage import Stage
from kbench.stages.store import Store

if TYPE_CHECKING:
    from kbench.knowledge.corpus import CorpusText
    from kbench.knowledge.graph import Graph

EXAMPLES = """examples:
  kbench build graph knowledge=toy
  kbench build xlr knowledge=wikidata_mini --to xlr
  kbench build vectors knowledge=wikidata_mini --to vectors
  kbench build corpus knowledge=redocred
  kbench build names latest-all.json.gz --to wikidata5m/names knowledge=wikidata5m
  kbench build names latest-all.json.bz2 --to names --languages en,de --ids ids.txt"""


_WHAT = {
    "graph": "a graph, its cycles and the samples a pre-training reads; prints how many there are",
    "xlr": "the questions of cross-lingual logical reasoning, and a README beside them",
    "vectors": "vectors of entities and relations, trained by TransE; with --to, files of them and a README",
    "corpus": "text whose mentions are linked to a graph; prints how many there are, and ten sentences of it",
    "names": "names in any language from a Wikidata JSON dump; goes on where it was killed",
}


def run(argv: list[str]) -> int:
    """Build what is named; gives the exit code."""
    if not argv or argv[0] not in _WHAT:
        parser = argparse.ArgumentParser(
            prog="kbench build",
            description="Make what a knowledge graph is for, without a run.",
            epilog="what\n" + "\n".join(f"  {name:<8} {told}" for name, told in _WHAT.items()) + f"\n\n{EXAMPLES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("what", choices=_WHAT)
        parser.parse_args(argv[:1])  # prints the help, or what is wrong, and leaves
    arguments = _parser(argv[0]).parse_intermixed_args(argv[1:])
    return {"graph": _graph, "xlr": _xlr, "vectors": _vectors, "corpus": _corpus, "names": _names}[argv[0]](arguments)


def _parser(what: str) -> argparse.ArgumentParser:
    """The options of one word."""
    parser = argparse.ArgumentParser(
        prog=f"kbench build {what}",
        description=f"Makes {_WHAT[what]}.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if what == "names":
        parser.add_argument("dump", type=Path, help="latest-all.json, .gz or .bz2")
        parser.add_argument("--to", type=Path, required=True, help="folder of the tables, <language>.tsv")
        parser.add_argument("--languages", default="", help="separated by commas; else those of the graph")
        parser.add_argument("--ids", type=Path, action="append", default=[], help="a file of the ids to keep")
    elif what == "xlr":
        parser.add_argument("--to", type=Path, help="folder of the files; else outputs/xlr/NAME")
    elif what == "vectors":
        parser.add_argument("--to", type=Path, help="folder of vectors.safetensors and README.md; else none is written")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="which graph, such as knowledge=toy")
    return parser


def _graph(arguments: argparse.Namespace) -> int:
    """Make everything and print the numbers of the paper's table 8."""
    from kbench.knowledge.samples import describe

    config = compose(arguments.overrides)
    stages, store = _stages(config.knowledge), _store(config)
    folders = {name: store.get(stage) for name, stage in stages.items()}
    graph, cycles = _json(folders["graph"] / "graph.json"), _json(folders["cycles"] / "cycles.json")
    console.line("graph", config.knowledge.name)
    _counts("", {name: graph[name] for name in ("entities", "relations", "triples")})
    _counts("left out", {told: graph["skipped"][name] for name, told in _SKIPPED.items() if graph["skipped"][name]})
    _counts("cycles", {told: cycles[name] for name, told in _CYCLES.items()})
    _counts("samples", {name[2:].replace("_", " "): count for name, count in describe(folders["samples"]).items()})
    _languages(config.knowledge, graph, _json(folders["samples"] / "samples.json"))
    for name, folder in folders.items():
        console.line("files", f"{name:<8} {folder}")
    return 0


_SKIPPED = {
    "self_loops": "triples of an entity with itself",
    "duplicates": "triples that stood there before",
    "nameless_items": "entities and relations without a name in any language",
    "nameless_triples": "triples with one of these, which no sentence tells",
    "empty_names": "names of nothing but blanks or control characters",
    "names_of_others": "names of what is in no triple",
}
_CYCLES = {
    "pairs": "pairs of entities that triples join",
    "pairs_of_several": "of these joined by several",
    "triangles": "cycles of length 3",
    "signatures3": "their combinations of relations",
    "diamonds": "cycles of length 4 with a chord",
    "diamonds_drawn": "of these drawn",
    "node_sets": "sets of four entities of those",
    "signatures4": "their combinations of five relations",
    "signatures4_chord": "of four, and one of the chord",
}


def _counts(head: str, counts: dict[str, int]) -> None:
    """A line for each count, the first with a head."""
    for place, (told, count) in enumerate(counts.items()):
        console.line("" if place else head, f"{told:<56} {count:>15,}")


def _languages(knowledge: Knowledge, graph: dict[str, Any], samples: dict[str, Any]) -> None:
    """What each language has: names, sentences, and cycles of both lengths."""
    rows = []
    for language in knowledge.languages:
        names = graph["languages"][language]
        sentences = samples["switched"].get(language, {}).get("sentences")
        cycles = [samples["reasoning"][length]["languages"][language]["samples"] for length in ("3", "4")]
        counts = [names["labels"], names["names"] - names["labels"], sentences, *cycles]
        rows.append([language, *("" if count is None else f"{count:>12,}" for count in counts)])
    console.table(["language", *(f"{head:>12}" for head in _COLUMNS)], rows)


_COLUMNS = ("labels", "aliases", "sentences", "cycles of 3", "cycles of 4")


def _xlr(arguments: argparse.Namespace) -> int:
    """Make the questions and copy them to a folder of the user's."""
    config = compose(arguments.overrides)
    knowledge = config.knowledge
    if knowledge.xlr is None:
        raise ConfigError(Problem("knowledge.xlr", f"is null: {knowledge.name} has no questions", "take another graph"))
    to = arguments.to or Path(config.outputs).expanduser() / "xlr" / knowledge.name
    if to.is_dir() and any(to.iterdir()) and not (to / "xlr.json").is_file():
        what = "is not empty, and holds no XLR questions"
        raise UserError(Problem(f"--to {to}", what, "choose another folder"))
    stages, store = _stages(knowledge), _store(config)
    with _written(to):
        folder = store.get(stages["xlr"])
        info = _json(folder / "xlr.json")
        for old in (path for split in info["splits"] for path in to.glob(f"{split}.*.jsonl")):
            old.unlink()
        shutil.copyfile(folder / "xlr.json", to / "xlr.json")  # the first: it says whose folder this is
        for path in sorted(path for path in folder.iterdir() if path.suffix in (".jsonl", ".npy")):
            shutil.copyfile(path, to / path.name)
        graph = _json(store.folder(stages["graph"]) / "graph.json")
        words = shlex.join(["kbench", "build", "xlr", *arguments.overrides])
        write_atomically(to / "README.md", readme(knowledge, info, graph, words))
    for split, found in info["splits"].items():
        console.line(
            split,
            f"{found['questions']:>7,} questions: {found['length3']:,} of length 3, {found['length4']:,} of length 4; "
            f"{found['relation_combinations']:,} relation combinations, {len(found['answers'])} answers",
        )
    console.line("files", str(to))
    return 0


def _vectors(arguments: argparse.Namespace) -> int:
    """Train or read the vectors of a graph, print how well they hold it, and copy them to a folder of the user's."""
    from kbench.engine.runtime import Runtime
    from kbench.knowledge.graph import Graph, graph_stage
    from kbench.knowledge.readers import locate
    from kbench.knowledge.vectors import PACKED, GraphVectors, export, locate_vectors, vectors_readme, vectors_stage

    config = compose(arguments.overrides)
    knowledge, to, store = config.knowledge, arguments.to, _store(config)
    if to is not None and to.is_dir() and any(to.iterdir()) and not (to / PACKED).is_file():
        raise UserError(Problem(f"--to {to}", "is not empty, and holds no vectors", "choose another folder"))
    runtime = Runtime(device=config.hardware.device, threads=config.hardware.threads)
    graph = graph_stage(knowledge, locate(knowledge))
    files = locate_vectors(knowledge.vectors)
    say = partial(console.line, "train")
    stage = vectors_stage(graph, knowledge.vectors, files, str(runtime.device), runtime.check_stop, say)
    with _written(to) if to is not None else nullcontext():
        vectors, found = GraphVectors(store.get(stage)), Graph(store.folder(graph))
        info = vectors.info
        if to is not None:
            export(vectors, found, to)
            words = f"`{shlex.join(['kbench', 'build', 'vectors', *arguments.overrides])}` (kbench {__version__})"
            page = vectors_readme(info, knowledge.name, found.info, words, knowledge.licence)
            write_atomically(to / "README.md", page)
    shown = {"of entities": info["entities"], "of relations": info["relations"], "numbers in each": info["dimension"]}
    shown |= {"entities without": info["entities_without"], "relations without": info["relations_without"]}
    _counts("vectors", shown | {"triples with one for each part": info["usable_triples"]})
    scores = info["scores"]
    console.line("scores", f"mean reciprocal rank {scores['mrr']:.3f}, hits at 10 {scores['hits@10']:.3f}: "
                 f"{scores['queries']:,} queries about triples of the graph")  # fmt: skip
    console.line("files", str(to or vectors.folder))
    return 0


@contextmanager
def _written(to: Path) -> Iterator[None]:
    """A folder that is there and can be written into; one that was made here and stays empty is taken away."""
    made = not to.is_dir()
    try:
        to.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=to):
            pass
    except OSError as error:
        if is_disk_full(error):
            raise
        what = "is a file" if to.is_file() else f"cannot be written: {error.strerror}"
        raise UserError(Problem(f"--to {to}", what, "choose another folder")) from error
    try:
        yield
    finally:
        if made and not any(to.iterdir()):
            to.rmdir()


def _corpus(arguments: argparse.Namespace) -> int:
    """Make a corpus, print its counts, and some of its sentences with their links."""
    from kbench.knowledge.corpora import locate_corpus
    from kbench.knowledge.corpus import CorpusText, corpus_stage
    from kbench.knowledge.graph import Graph, graph_stage
    from kbench.knowledge.readers import locate

    config = compose(arguments.overrides)
    knowledge, store = config.knowledge, _store(config)
    if knowledge.corpus is None:
        what = f"is null: {knowledge.name} has no text with mentions"
        raise ConfigError(Problem("knowledge.corpus", what, "take another graph, such as knowledge=redocred"))
    graph = graph_stage(knowledge, locate(knowledge))
    folder = store.get(corpus_stage(knowledge, locate_corpus(knowledge.corpus), graph))
    corpus, opened = CorpusText(folder), Graph(store.folder(graph))
    console.line("corpus", f"{knowledge.corpus.name}, linked by {knowledge.corpus.linker.value}")
    _counts("", {told: corpus.info[name] for name, told in _CORPUS.items()})
    for sentence in linked_sentences(corpus, opened, knowledge.languages[0], 10):
        console.line("text", sentence)
    console.line("files", str(folder))
    return 0


_CORPUS = {
    "documents": "documents",
    "sentences": "sentences",
    "characters": "characters",
    "mentions": "mentions",
    "linked": "of these of an entity of the graph",
    "unknown": "of one that the graph has not got",
    "entities": "entities of the graph that are mentioned",
    "overlaps": "mentions dropped that overlap a longer one",
}


def linked_sentences(corpus: CorpusText, graph: Graph, language: str, count: int) -> list[str]:
    """Sentences with mentions, evenly spread over a corpus: [text|Q42], with the entity's label if it is another."""
    mentions = corpus.mentions  # at least one: a corpus without any is not stored
    places = np.linspace(0, len(mentions) - 1, count, dtype=np.int64)
    names, told = graph.names(language), []
    for sentence in np.unique(mentions["sentence"][places]).tolist():
        (text,), at, shown = corpus.texts(sentence, sentence + 1), 0, ""
        for start, end, entity in mentions[corpus.mentions_of(sentence, sentence + 1)][["start", "end", "entity"]]:
            label = names.label(entity) if entity >= 0 else None
            whom = f"Q{graph.entities[entity]}" if entity >= 0 else "?"
            other = f" {label}" if label is not None and label != text[start:end] else ""
            shown, at = f"{shown}{text[at:start]}[{text[start:end]}|{whom}{other}]", int(end)
        told.append(shown + text[at:])
    return told


def _names(arguments: argparse.Namespace) -> int:
    """Stream names out of a dump."""
    from kbench.knowledge.dump import language_keys, names_from_dump
    from kbench.knowledge.readers import locate
    from kbench.knowledge.wanted import Wanted

    languages, files = [name for name in arguments.languages.split(",") if name], list(arguments.ids)
    if arguments.overrides:
        knowledge = compose(arguments.overrides).knowledge
        found = locate(knowledge)
        if "triples" not in found:
            what = "is generated: Wikidata has no names for it"
            raise UserError(Problem(f"knowledge={knowledge.name}", what, "name another graph, or --ids FILE"))
        files += found["triples"]
        languages = languages or list(knowledge.languages)
    if not languages:
        raise UserError(Problem("--languages", "none is named", "such as --languages en,de; or name a graph"))
    for language in languages:
        console.line("names", f"{language}: first of {', '.join(language_keys(language))}")
    wanted = Wanted.of(*files) if files else None
    console.line("ids", f"{wanted.count:,} wanted" if wanted else "all items and properties")
    with _written(arguments.to):
        info = names_from_dump(
            arguments.dump, arguments.to, languages, wanted, lambda told: console.line("reading", told)
        )
    for language in languages:
        labels, names = info["labels"].get(language, 0), info["names"].get(language, 0)
        told = f"{labels:>12,} labels, {names - labels:>12,} aliases"
        console.line(language, told if labels else "not one label, so no table; is this its code at Wikidata?")
    console.line("files", str(arguments.to))
    return 0


def readme(knowledge: Knowledge, info: dict[str, Any], graph: dict[str, Any], command: str) -> str:
    """The page beside the questions: what they are made of, how many, and where they depart from the paper's."""
    first, xlr, spoken = knowledge.languages[0], knowledge.xlr, ",".join(knowledge.languages)
    lines = [
        "# XLR: cross-lingual logical reasoning",
        "",
        "Questions about the cycles of a knowledge graph, after Liu et al., Knowledge Based Multilingual Language",
        "Model (arXiv 2111.10962), section 4.4: which of six relations holds between two entities, given the other",
        "triples of a cycle of length 3 or 4. Training and validation are in one language, the test is in all.",
        "",
        f"Made by `{command}` (kbench {__version__}). To learn and to be tested on it:",
        f"`kbench method=finetune data=xlr data.path=FOLDER 'data.zero_shot.tested=[{spoken}]'`.",
        "",
        f"- graph: {knowledge.name}, {graph['entities']:,} entities, {graph['relations']:,} relations, "
        f"{graph['triples']:,} triples; content {graph['content'][:16]}",
        f"- seed: {knowledge.seed}; languages: {', '.join(knowledge.languages)}",
        f"- largest shares: an answer {xlr.per_answer}, an entity {xlr.per_entity}, relations {xlr.per_signature}",
        f"- a relation without a name in a language: {knowledge.cycles.missing.value}",
        f"- licence of the graph: {knowledge.licence}",
        f"- source of the graph: {knowledge.cite}",
        "",
        "| split | file | questions | length 3 | length 4 | relation combinations | with one of the test's |",
        "|---|---|---|---|---|---|---|",
    ]
    for split, found in info["splits"].items():
        name = (
            f"test.<language>.jsonl, {len(knowledge.languages)} of them"
            if split == "test"
            else f"{split}.{first}.jsonl"
        )
        shared = "" if split == "test" else f"{found['combinations_of_test']:,}"
        counts = [f"{found[key]:,}" for key in ("questions", "length3", "length4", "relation_combinations")]
        lines.append(f"| {' | '.join([split, name, *counts, shared])} |")
    lines += [
        "",
        "A row: `context`, `question`, six `choices`, `label` (place of the answer among them, from 0), `answer` (its",
        "id), `nodes` (ids of the cycle's entities). Row n of every test file is the same question; entities and",
        "relations are named in the file's language, the words of the question are English.",
        "",
        "`xlr.json`: all counts. `keys.npy`: the test's cycles, which a pre-training of kbench leaves out.",
        "",
        "## Where they depart from the paper's",
        "",
        *(f"- {one}" for one in info["deviations"]),
    ]
    return "\n".join(lines) + "\n"


def _stages(knowledge: Knowledge) -> dict[str, Stage]:
    """The stages of a graph, by name."""
    from kbench.knowledge.cycles import cycles_stage
    from kbench.knowledge.graph import graph_stage
    from kbench.knowledge.readers import locate
    from kbench.knowledge.samples import samples_stage
    from kbench.knowledge.xlr import xlr_stage

    graph = graph_stage(knowledge, locate(knowledge))
    cycles = cycles_stage(graph, knowledge)
    stages = {"graph": graph, "cycles": cycles}
    if knowledge.xlr is not None:
        stages["xlr"] = xlr_stage(graph, cycles, knowledge)
    return {**stages, "samples": samples_stage(graph, cycles, stages.get("xlr"), knowledge)}


def _store(config: Config) -> Store:
    return Store(Path(config.outputs).expanduser() / STAGES, say=console.stage)


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
