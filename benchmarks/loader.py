"""Samples a second from ids on disk to masked batches: `python benchmarks/loader.py`. No tokenizer and no torch.

The graph is generated: 25,000 entities and 200 relations with names in four languages, about 100,000 names in all, of 1
to 8 tokens each from a vocabulary of 30,000. Rows are drawn at random, as in training.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kbench.engine.counter import below, mixed, permuted
from kbench.knowledge.masking import Masking
from kbench.knowledge.streams import PlainStream, ReasoningStream, SwitchedStream
from kbench.knowledge.tokens import Vocabulary

TARGET = 20_000  # code-switched samples a second on 2 cores
LANGUAGES = ("en", "de", "ja", "ko")
ENTITIES, RELATIONS, TRIPLES, SAMPLES, LINES = 25_000, 200, 100_000, 400_000, 100_000
BATCH, MAX_LENGTH, SECONDS = 256, 128, 3.0
VOCABULARY = Vocabulary(cls=2, sep=3, mask=4, pad=0, unknown=1, period=(5,), special=(0, 1, 2, 3, 4), size=30_000)


def main() -> None:
    """Print the speed of every stream with 1 and 2 processes; the exit code says whether the target is met."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = generate(folder)
        print(f"{names:,} names, batch {BATCH}, at most {MAX_LENGTH} tokens")
        print(f"{'stream':<12} {'tokens':>7} {'1 process':>12} {'2 processes':>12}  samples a second")
        found = {}
        for stream in ("switched", "reasoning", "plain"):
            (one, tokens), (two, _) = measured(folder, stream, 1), measured(folder, stream, 2)
            found[stream] = two
            print(f"{stream:<12} {tokens:>7.1f} {one:>12,.0f} {two:>12,.0f}")
    good = found["switched"] >= TARGET
    print(f"switched, 2 processes: {found['switched']:,.0f}, target {TARGET:,}: {'ok' if good else 'MISSED'}")
    sys.exit(0 if good else 1)


def generate(folder: Path) -> int:
    """Write graph, samples and token ids in the forms of `kbench.knowledge`; gives the number of names."""
    for part in ("graph/names", "samples", "tokens", "plain"):
        (folder / part).mkdir(parents=True)
    items, names = ENTITIES + RELATIONS, 0
    np.save(folder / "graph/entities.npy", np.arange(1, ENTITIES + 1))
    np.save(folder / "graph/relations.npy", np.arange(1, RELATIONS + 1))
    rows = np.arange(TRIPLES)
    heads = below(ENTITIES, 1, rows)
    tails = (heads + 1 + below(ENTITIES - 1, 2, rows)) % ENTITIES
    triples = np.stack([heads, below(RELATIONS, 3, rows), tails], 1).astype(np.int32)
    np.save(folder / "graph/triples.npy", triples)
    info = {}
    for index, lang in enumerate(LANGUAGES):
        counts = 1 + (below(8, 4, index, np.arange(items)) == 0)  # a label, and to some an alias
        owner = np.repeat(np.arange(items, dtype=np.int32), counts)
        table = pa.table({"item": owner, "text": pa.array([f"name {row}" for row in range(len(owner))])})
        with (
            pa.OSFile(str(folder / f"graph/names/{lang}.arrow"), "wb") as sink,
            pa.ipc.new_file(sink, table.schema) as writer,
        ):
            writer.write_table(table)
        np.save(folder / f"graph/names/{lang}.ends.npy", np.cumsum(counts))
        pieces(folder / "tokens", lang, 1 + below(8, 5, index, np.arange(len(owner))))
        info[lang] = {"labels": items, "names": len(owner)}
        names += len(owner)
    graph = {"entities": ENTITIES, "relations": RELATIONS, "triples": TRIPLES, "languages": info}
    (folder / "graph/graph.json").write_text(json.dumps({**graph, "skipped": {}, "content": "generated"}))

    number = np.arange(SAMPLES)
    kind = [("triple", np.int32), ("language", np.int8), ("bits", np.uint8), ("aliases", np.int16, 3)]
    switched = np.zeros(SAMPLES, dtype=kind)
    switched["triple"], switched["bits"] = below(TRIPLES, 6, number), below(8, 7, number)
    switched["language"] = 1 + below(len(LANGUAGES) - 1, 8, number)
    np.save(folder / "samples/switched.npy", switched)
    for cycle, sentences in ((3, 3), (4, 5)):
        kind = [("cycle", np.int32), ("language", np.int8), ("triples", np.int32, sentences)]
        found = np.zeros(SAMPLES // 2, dtype=kind)
        rows = np.arange(len(found))
        found["cycle"], found["language"] = rows, below(len(LANGUAGES), 9, rows)
        found["triples"] = below(TRIPLES, cycle, rows[:, None], np.arange(sentences))
        np.save(folder / f"samples/reasoning{cycle}.npy", found)
    pieces(folder / "plain", "en", 5 + below(50, 10, np.arange(LINES)))
    (folder / "plain/tokens.json").write_text(json.dumps({"lines": {"en": LINES}}))
    return names


def pieces(folder: Path, lang: str, lengths: np.ndarray) -> None:
    """Write ids for texts of some lengths."""
    ids = 6 + below(VOCABULARY.size - 6, 11, np.arange(int(lengths.sum())))
    ids.astype(np.int32).tofile(folder / f"{lang}.ids")
    np.cumsum(lengths).astype(np.int64).tofile(folder / f"{lang}.ends")


def measured(folder: Path, stream: str, processes: int) -> tuple[float, float]:
    """Samples a second of all processes together, and the tokens of a sample."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(processes)
    results: Any = context.Queue()
    workers = [context.Process(target=work, args=(folder, stream, rank, ready, results)) for rank in range(processes)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    return sum(speed for speed, _ in found), float(np.mean([tokens for _, tokens in found]))


def work(folder: Path, name: str, rank: int, ready: Any, results: Any) -> None:
    """Make batches for a while; one process of several."""
    graph, samples, tokens, rules = folder / "graph", folder / "samples", folder / "tokens", Masking()
    stream: Any
    if name == "plain":
        stream = PlainStream(folder / "plain", VOCABULARY, MAX_LENGTH, rules)
    else:
        make = SwitchedStream if name == "switched" else ReasoningStream
        stream = make(graph, samples, tokens, LANGUAGES, VOCABULARY, MAX_LENGTH, rules)
    ready.wait()
    made = total = step = 0
    begun = time.perf_counter()
    while time.perf_counter() - begun < SECONDS:
        places = (np.arange(BATCH) + (2 * step + rank) * BATCH) % len(stream)
        rows = permuted(places, len(stream), 12)
        batch = stream.batch(rows, mixed(13, rows))
        made, total, step = made + BATCH, total + int(batch.attention_mask.sum()), step + 1
    results.put((made / (time.perf_counter() - begun), total / made))


if __name__ == "__main__":
    main()
