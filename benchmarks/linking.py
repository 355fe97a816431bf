"""Text that names are looked for in, in a second of one core, and the memory it takes: `python benchmarks/linking.py`.

The graph is generated: a million names of 400,000 entities and as many triples. A name has one to three words, drawn so
that the common words of the text are also words of names; a word has 2 to 10 letters. The text is of the same words,
mostly in lower case, with a name of the graph after every 12 words or so. Beside it: pyahocorasick's automaton over the
same names, which finds each occurrence without asking for word bounds and for whom it is.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from kbench.engine.counter import below, uniform
from kbench.knowledge.graph import Graph
from kbench.knowledge.linkers import AliasLinker, common_words

SPEED, MEMORY = 5.0, 1.5  # megabytes of text a second; gigabytes resident
NAMES, ENTITIES, TRIPLES, WORDS = 1_000_000, 400_000, 1_000_000, 200_000
SENTENCES, LENGTH, DOCUMENT, ROUNDS = 40_000, 24, 10, 5  # sentences, words of one, sentences of a document


def main() -> None:
    """Print speed and memory; the exit code says whether the targets are met."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = vocabulary()
        names = generate(folder, words)
        texts = sentences(words, names)
        size = sum(len(text.encode()) for text in texts) / 1e6
        before, begun = held(), time.process_time()
        linker = AliasLinker(Graph(folder), "en", common=common_words(texts, 10_000))
        built, grown = time.process_time() - begun, held() - before
        speeds, links = [], 0
        for _ in range(ROUNDS):
            begun = time.process_time()
            links = sum(map(len, linker.link(texts, np.arange(len(texts)) // DOCUMENT)))
            speeds.append(size / (time.process_time() - begun))
        memory = resident()
    print(f"{len(names):,} names, {linker.names:,} of them looked for, {size:.1f} MB of text, {links:,} mentions")
    print(f"built in {built:.1f} s, {1e9 * grown / len(names):.0f} bytes a name")
    speed = float(np.median(speeds))
    good = [told("speed", speed, SPEED, "MB/s", speed >= SPEED), told("memory", memory, MEMORY, "GB", memory <= MEMORY)]
    if "--automaton" in sys.argv[1:]:
        for fold in (False, True):
            automaton(names, texts, size, fold)
    sys.exit(0 if all(good) else 1)


def told(what: str, found: float, target: float, unit: str, good: bool) -> bool:
    """Print a number beside its target."""
    print(f"{what:<8} {found:>8.2f} {unit}, target {target}: {'ok' if good else 'MISSED'}")
    return good


def resident() -> float:
    """The most memory this process has held, in gigabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def held() -> float:
    """The memory this process holds now, in gigabytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e9


def vocabulary() -> list[str]:
    """Words of letters about as frequent as in English."""
    letters, row = np.array(list("eeeetttaaaooiinnsshhrrddlluucmfwygpbvk")), np.arange(WORDS)
    drawn = letters[below(len(letters), 1, row[:, None], np.arange(10))]
    return ["".join(one[:length]) for one, length in zip(drawn.tolist(), (2 + below(9, 2, row)).tolist(), strict=True)]


def drawn(*keys: int | np.ndarray) -> np.ndarray:
    """Places of words, the first ones most often, as in a text."""
    return (WORDS ** uniform(*keys)).astype(np.int64) - 1


def generate(folder: Path, words: list[str]) -> list[str]:
    """Write a graph in the form of `kbench.knowledge.graph`; gives its names."""
    row = np.arange(NAMES)
    places, counts = drawn(3, row[:, None], np.arange(3)), 1 + below(3, 4, row)
    places[counts == 1, 0] = below(WORDS, 5, row[counts == 1])  # names of one word are seldom a common one
    names = [
        " ".join(words[one].title() for one in found[:count])
        for found, count in zip(places.tolist(), counts.tolist(), strict=True)
    ]
    owner = np.sort(below(ENTITIES, 6, row)).astype(np.int32)
    (folder / "names").mkdir()
    table = pa.table({"item": owner, "text": pa.array(names)})
    with pa.OSFile(str(folder / "names/en.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    np.save(folder / "names/en.ends.npy", np.cumsum(np.bincount(owner, minlength=ENTITIES + 1)))
    np.save(folder / "entities.npy", np.arange(1, ENTITIES + 1))
    np.save(folder / "relations.npy", np.arange(1, 2))
    triples = np.stack([below(ENTITIES, side, np.arange(TRIPLES)) for side in (7, 8)], 1)
    np.save(folder / "triples.npy", np.insert(triples, 1, 0, axis=1).astype(np.int32))
    info = {"languages": {"en": {}}, "content": "generated"}
    (folder / "graph.json").write_text(json.dumps(info))
    return names


def sentences(words: list[str], names: list[str]) -> list[str]:
    """Text with names in it."""
    row = np.arange(SENTENCES)[:, None]
    places, column = drawn(9, row, np.arange(LENGTH)).tolist(), np.arange(LENGTH)
    named = (uniform(10, row, column) < 1 / 12).tolist()
    which = below(len(names), 11, row, column).tolist()
    return [
        " ".join(names[name] if is_name else words[place] for place, is_name, name in zip(*one, strict=True)) + "."
        for one in zip(places, named, which, strict=True)
    ]


def automaton(names: list[str], texts: list[str], size: float, fold: bool) -> None:
    """Print the same numbers of pyahocorasick."""
    import ahocorasick

    if fold:
        names, texts = [name.lower() for name in names], [text.lower() for text in texts]
    before, begun = held(), time.process_time()
    found = ahocorasick.Automaton(ahocorasick.STORE_INTS)
    for place, name in enumerate(names):
        found.add_word(name, place)
    found.make_automaton()
    built, grown, speeds = time.process_time() - begun, held() - before, {}
    for kind in ("iter", "iter_long"):
        begun = time.process_time()
        for text in texts:
            np.fromiter(chain.from_iterable(getattr(found, kind)(text)), dtype=np.int64)
        speeds[kind] = size / (time.process_time() - begun)
    told = ", ".join(f"{kind} {speed:.2f} MB/s" for kind, speed in speeds.items())
    case = "in lower case" if fold else "as written"
    print(f"pyahocorasick, {case}: {built:.1f} s, {1e9 * grown / len(names):.0f} bytes a name, {told}")


if __name__ == "__main__":
    main()
