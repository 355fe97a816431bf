"""Seconds and memory of the graph pipeline, on a generated graph of Wikidata5M's shape in Wikidata5M's own files.

    python benchmarks/graph.py [--triples 20600000 --entities 4594485]

The graph has layers (class, gender, country, region, town, organisation, person, work, taxon) and a random tail; its
largest degrees are those of a class and a gender. The pipeline runs in a process of its own, so that the peak is its.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

RELATIONS = 822
# share of the entities that are in a layer; the rest are in none
SHARES = {"region": 0.004, "town": 0.06, "organisation": 0.08, "person": 0.25, "work": 0.22, "taxon": 0.1}
CLASSES, GENDERS, COUNTRIES = 2000, 3, 200

PIPELINE = """
import json, resource, sys, time
from pathlib import Path
from kbench.config import knowledge as schema
from kbench.knowledge.cycles import cycles_stage
from kbench.knowledge.graph import graph_stage
from kbench.knowledge.readers import locate

folder = Path(sys.argv[1])
files = {
    "triples": "wikidata5m_*_triplet.txt", "entities": "wikidata5m_entity.txt",
    "relations": "wikidata5m_relation.txt", "names": "names/*.tsv",
}
cycles = schema.Cycles(
    multi=schema.Multi.uniform, align=schema.Align.shared, unique_by=schema.CycleKey(sys.argv[2]), per_chord=20,
    missing=schema.Missing.english, length3=None, length4=None, balance=1.0, exclude=schema.Exclude.exact,
)
unread = dict.fromkeys(("sentences", "xlr", "text", "corpus", "vectors"))
knowledge = schema.Knowledge(
    name="generated", reader="wikidata5m", languages=["en", "de"], files=files, folder="", path=str(folder), seed=0,
    cycles=cycles, licence="", cite="", **unread,
)
seconds, started = {}, time.perf_counter()

def mark(step):
    global started
    seconds[step] = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_SELF)
    # not ru_maxrss: that begins with the peak of the process that started this one
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    seconds[f"{step}: GiB so far"] = int(peak.split()[1]) / 2**20
    seconds[f"{step}: processor so far"] = used.ru_utime + used.ru_stime
    started = time.perf_counter()

graph = graph_stage(knowledge, locate(knowledge))
mark("hash the files")
folders = {name: folder / name for name in ("graph", "cycles")}
for place in folders.values():
    place.mkdir()
graph.build(folders["graph"], {})
mark("graph")
cycles_stage(graph, knowledge).build(folders["cycles"], folders)
mark("cycles")
found = {name: json.loads((place / f"{name}.json").read_text()) for name, place in folders.items()}
print(json.dumps({"seconds": seconds, **found}))
"""


def generate(folder: Path, triples: int, entities: int, seed: int = 0) -> int:
    """Write a graph of about so many triples into a folder; gives the largest degree."""
    rng = np.random.default_rng(seed)
    sizes = {"class": CLASSES, "gender": GENDERS, "country": COUNTRIES}
    sizes |= {name: int(entities * share) for name, share in SHARES.items()}
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]), strict=False))

    def some(layer: str, size: int, skew: float = 3.0) -> np.ndarray:
        """Entities of a layer, the first ones much oftener than the last."""
        return starts[layer] + (rng.random(size) ** skew * sizes[layer]).astype(np.int64)

    def all_of(layer: str) -> np.ndarray:
        return starts[layer] + np.arange(sizes[layer])

    heads, relations, tails = [], [], []

    def add(head: np.ndarray, relation: int, tail: np.ndarray, share: float = 1.0) -> None:
        kept = rng.random(len(head)) < share
        heads.append(head[kept])
        relations.append(np.full(int(kept.sum()), relation))
        tails.append(tail[kept])

    country = np.zeros(entities, dtype=np.int64)
    country[all_of("country")] = all_of("country")
    region, town, organisation, person, work = (all_of(n) for n in ("region", "town", "organisation", "person", "work"))
    country[region] = some("country", len(region))
    region_of = some("region", len(town), 1.5)
    country[town] = country[region_of]
    seat = some("town", len(organisation))
    country[organisation] = country[seat]
    home, school = some("town", len(person), 2.0), some("organisation", len(person))
    country[person] = np.where(rng.random(len(person)) < 0.85, country[home], some("country", len(person)))
    author, publisher = some("person", len(work), 2.0), some("organisation", len(work))
    country[work] = np.where(rng.random(len(work)) < 0.7, country[author], some("country", len(work)))
    for relation, layer in enumerate(("region", "town", "organisation", "work")):
        add(all_of(layer), 10, country[all_of(layer)], 0.9)
        add(all_of(layer), 11, np.full(sizes[layer], relation + 10))
    add(town, 12, region_of)
    add(organisation, 13, seat, 0.6)
    add(person, 11, np.zeros(len(person), dtype=np.int64))
    add(person, 14, starts["gender"] + (rng.random(len(person)) < 0.2))
    add(person, 15, country[person], 0.9)
    add(person, 16, home, 0.7)
    add(person, 17, some("town", len(person), 2.0), 0.3)
    add(person, 18, some("class", len(person)))
    add(person, 19, school, 0.5)
    add(person, 20, some("organisation", len(person)), 0.5)
    add(all_of("gender"), 30, np.zeros(GENDERS, dtype=np.int64))  # a chord with a million people on it
    near = np.minimum(person + rng.integers(1, 6, len(person)), person[-1])
    add(person, 21, near, 0.2)
    add(near, 22, person, 0.1)
    add(work, 23, author, 0.8)
    add(work, 24, some("person", len(work)), 0.5)
    add(work, 25, publisher, 0.4)
    add(author, 26, publisher, 0.1)
    add(work, 27, some("class", len(work)), 0.8)
    taxon = all_of("taxon")
    parent = starts["taxon"] + (rng.random(len(taxon)) ** 2 * np.arange(len(taxon))).astype(np.int64)
    add(taxon, 11, np.full(len(taxon), 20))
    add(taxon, 28, parent)
    add(taxon, 29, starts["class"] + 30 + rng.integers(0, 40, len(taxon)))

    head, relation, tail = (np.concatenate(column) for column in (heads, relations, tails))
    rest = max(0, triples - len(head))
    head = np.concatenate([head, rng.integers(0, entities, rest)])[:triples]
    relation = np.concatenate([relation, (rng.random(rest) ** 3 * RELATIONS).astype(np.int64)])[:triples]
    tail = np.concatenate([tail, (rng.random(rest) ** 2 * entities).astype(np.int64)])[:triples]
    degree = int((np.bincount(head, minlength=entities) + np.bincount(tail, minlength=entities)).max())

    # ids as Wikidata's are: up to a hundred million, in no order
    numbers = rng.permutation(np.arange(1, entities + 1) * (100_000_000 // entities))
    order = rng.permutation(len(head))
    ids = {"h": ("Q", numbers[head[order]]), "r": ("P", relation[order] + 1), "t": ("Q", numbers[tail[order]])}
    frame = pl.DataFrame({name: column for name, (_, column) in ids.items()})
    spelt = [pl.format(f"{letter}{{}}", name).alias(name) for name, (letter, _) in ids.items()]
    _write(frame.lazy().select(spelt), folder / "wikidata5m_transductive_train_triplet.txt")
    _names(folder, numbers, rng)
    return degree


def _names(folder: Path, numbers: np.ndarray, rng: np.random.Generator) -> None:
    """A label and one to four aliases in English, a label in German for a third of the entities."""
    frame = pl.DataFrame(
        {"n": numbers, "x": rng.integers(0, 1 << 40, len(numbers)), "k": rng.integers(1, 5, len(numbers))}
    )
    name = pl.format("name {} of {}", pl.col("x") % 99991, "n")
    more = [
        pl.when(pl.col("k") >= k).then(pl.format("\tother {} {}", pl.lit(k), "x")).otherwise(pl.lit(""))
        for k in range(1, 5)
    ]
    _write(frame.lazy().select(pl.concat_str(pl.format("Q{}\t{}", "n", name), *more)), folder / "wikidata5m_entity.txt")
    relations = pl.DataFrame({"n": np.arange(1, RELATIONS + 1)}).lazy()
    _write(relations.select(pl.format("P{}\trelation {}\tis {}", "n", "n", "n")), folder / "wikidata5m_relation.txt")
    (folder / "names").mkdir()
    third = frame.lazy().filter(pl.col("x") % 3 == 0)
    _write(third.select(pl.format("Q{}\t0\tName {}", "n", "x")), folder / "names" / "de.tsv")


def _write(frame: pl.LazyFrame, path: Path) -> None:
    frame.collect().write_csv(path, separator="\t", include_header=False, quote_style="never")


def measure(triples: int, entities: int, unique_by: str = "diamond") -> dict:
    """Generate a graph in a temporary folder, run the pipeline on it, and give what it found and took."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        degree = generate(Path(folder), triples, entities)
        generated = time.perf_counter() - started
        command = [sys.executable, "-c", PIPELINE, folder, unique_by]
        done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
        if done.returncode:
            raise RuntimeError(done.stderr)
    return {"generate": generated, "largest degree": degree, **json.loads(done.stdout)}


def main() -> None:
    """Print a line a step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--triples", type=int, default=20_600_000)
    parser.add_argument("--entities", type=int, default=4_594_485)
    parser.add_argument("--unique-by", choices=("diamond", "node_set"), default="diamond")
    chosen = parser.parse_args()
    found = measure(chosen.triples, chosen.entities, chosen.unique_by)
    print(f"{os.cpu_count()} cores; largest degree {found['largest degree']:,}; generated in {found['generate']:.0f} s")
    seconds = found["seconds"]
    for step in [name for name in seconds if ":" not in name]:
        memory, processor = seconds[f"{step}: GiB so far"], seconds[f"{step}: processor so far"]
        print(f"{step:<16}{seconds[step]:7.1f} s   so far: processor {processor:.1f} s, peak {memory:.2f} GiB")
    total = sum(value for name, value in seconds.items() if ":" not in name)
    print(f"{'together':<16}{total:7.1f} s   (at most 90 s and 6 GiB wanted)")
    print(json.dumps(found["graph"]["skipped"]), json.dumps(found["cycles"]))


if __name__ == "__main__":
    main()
