"""Neighbours and TransE at Wikidata5M's size: seconds, memory, and what a step of a pre-training asks for.

    python benchmarks/vectors.py [--triples 20600000 --entities 4594485 --steps 20]

The graph is generated: heads are drawn uniformly, tails mostly among few hubs, so that the largest degrees are millions
as in Wikidata5M. Both parts run in processes of their own, so that each peak is its. Seconds are the
processor's, of all threads together: with OMP_NUM_THREADS=1 they hold on a shared machine, too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kbench.engine.counter import below, mixed, uniform

RELATIONS = 822
MENTIONS = 4096  # of a step
SECONDS, GIB = 5.0, 3.0  # wanted of neighbours: more seconds and they would be a stage
VECTORS_GIB = 24.0


def main() -> None:
    """Print both parts; the exit code says whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--triples", type=int, default=20_600_000)
    parser.add_argument("--entities", type=int, default=4_594_485)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--part", choices=("neighbours", "transe"))
    chosen = parser.parse_args()
    if chosen.part is not None:
        triples = generate(chosen.triples, chosen.entities)
        good = neighbours(triples, chosen.entities) if chosen.part == "neighbours" else transe(triples, chosen)
        sys.exit(0 if good else 1)
    words = [sys.executable, __file__, *sys.argv[1:]]
    codes = [subprocess.run([*words, "--part", part], check=False).returncode for part in ("neighbours", "transe")]
    sys.exit(max(codes))


def generate(triples: int, entities: int) -> np.ndarray:
    """Head, relation, tail, int32 [t, 3]: distinct, no self-loops."""
    rows = np.arange(triples)
    found = np.empty((triples, 3), dtype=np.int32)
    found[:, 0] = below(entities, 1, rows)
    found[:, 1] = uniform(2, rows) ** 3 * RELATIONS
    found[:, 2] = uniform(3, rows) ** 6 * entities
    found = found[found[:, 0] != found[:, 2]]
    keys = (found[:, 0].astype(np.int64) * RELATIONS + found[:, 1]) * entities + found[:, 2]
    order = np.argsort(keys)
    again = order[1:][keys[order[1:]] == keys[order[:-1]]]
    return np.delete(found, again, axis=0)


def timed(told: str, work: Callable[[], Any], turns: int = 1) -> Any:
    """Do it, print the median of its processor seconds, and give what it gave and the seconds."""
    seconds = []
    for _ in range(turns):
        started = time.process_time()
        found = work()
        seconds.append(time.process_time() - started)
    middle = sorted(seconds)[len(seconds) // 2]
    held = f"resident {memory('VmRSS'):5.2f} GiB, peak {memory('VmHWM'):5.2f} GiB"
    print(f"  {told:<36}{middle:9.3f} s   {held}", flush=True)
    return found, middle


def memory(what: str) -> float:
    """GiB of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) / 2**20


def neighbours(triples: np.ndarray, entities: int) -> bool:
    """Build them, and ask what a step of a pre-training asks."""
    from kbench.knowledge.neighbours import Neighbours

    Path("/proc/self/clear_refs").write_text("5")  # the peak of generating is not theirs
    print(f"neighbours: {len(triples):,} triples, {entities:,} entities, {MENTIONS:,} mentions a step")
    around, built = timed("build", lambda: Neighbours(triples, entities))
    print(f"  largest degree {around.degree.max():,}")
    rows = np.arange(MENTIONS)
    # mentions are of what is known: drawn by degree
    mentioned, keys = triples[below(len(triples), 4, rows), 2 * below(2, 5, rows)], mixed(6, rows)
    (drawn, is_head), _ = timed("draw", lambda: around.draw(mentioned, keys), 5)
    timed("first, the first time", lambda: around.first(mentioned))
    timed("others, at most 200 of each", lambda: around.others(drawn, is_head, 200), 5)
    timed("partner, the first time", lambda: around.partner(mentioned, rows // 8, keys))
    timed("partner", lambda: around.partner(mentioned, rows // 8, keys), 5)
    timed("reach of 1", lambda: around.reach(1))
    timed("reach of 2, estimated", lambda: around.reach(2))
    peak = memory("VmHWM")
    good = built <= SECONDS and peak <= GIB
    print(f"  built in {built:.1f} s, target {SECONDS:.0f}; peak {peak:.2f} GiB, target {GIB:.0f}: "
          f"{'ok' if good else 'MISSED'}")  # fmt: skip
    return good


def transe(triples: np.ndarray, chosen: argparse.Namespace) -> bool:
    """Some steps at the default's sizes, a saved state, and one ranking."""
    from kbench.knowledge.neighbours import Neighbours
    from kbench.knowledge.transe import Rules, Training, ranking

    rules = Rules(dimension=100, epochs=1, lr=0.0246, batch_size=1024, negatives=600, margin=4.0, norm=1, seed=1)
    print(f"transe: {chosen.entities:,} x {rules.dimension}, {os.environ.get('OMP_NUM_THREADS', 'all')} threads")
    with tempfile.TemporaryDirectory() as folder:
        training, _ = timed("first values", lambda: Training(triples, chosen.entities, RELATIONS, rules, Path(folder)))
        _, seconds = timed("step of 1,024 triples", training.advance, chosen.steps)
        timed("save", training.save)
    around = Neighbours(triples, chosen.entities)
    timed("ranks of 20 queries", lambda: ranking(*training.vectors(), around, np.arange(10), 1))
    peak = memory("VmHWM")
    hours = seconds / rules.batch_size * len(triples) / 3600
    print(f"  {rules.batch_size / seconds:,.0f} triples/s, {hours:.1f} h an epoch; peak {peak:.2f} GiB, "
          f"target {VECTORS_GIB:.0f}: {'ok' if peak <= VECTORS_GIB else 'MISSED'}")  # fmt: skip
    return peak <= VECTORS_GIB


if __name__ == "__main__":
    main()
