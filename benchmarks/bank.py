"""Milliseconds and memory of a memory bank in files at the paper's size: `python benchmarks/bank.py`.

3,085,345 entities of width 768: a local memory in half precision and a global one in single are 14.2 GB once all of
them were seen. A step has 256 sequences with 8 mentions each; entities are drawn as they come in text, a few of them
very often (Zipf's law, exponent 1). A checkpoint begins every 250 steps. The bank runs in a process of its own, so that
the memory is its. Beside it stands what a base-size encoder takes for the same sequences (12 layers, 128 tokens,
forward and backward, no head), measured with few of them on a CPU, with all of them on a GPU where there is one.

    python benchmarks/bank.py [--steps 1000] [--durable]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time

ENTITIES, WIDTH = 3_085_345, 768
SEQUENCES, MENTIONS, LENGTH = 256, 8, 128
GROWN = 1024  # MiB of resident memory at most

CHILD = """
import json, sys, time
from pathlib import Path
import numpy as np, torch
from kbench.engine.counter import mixed, permuted, uniform
from kbench.methods.mapped_bank import MappedBank

folder, steps, durable, entities, width, rows = json.loads(sys.argv[1])

def resident(name):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024

def initial(wanted):
    return torch.zeros(len(wanted), width)

bank = MappedBank(Path(folder), entities, width, initial, graph="none", durable=durable)
notes, cls = torch.randn(2, rows, width)
seconds = {"read": [], "write": [], "checkpoint": []}
before, touched, distinct = resident("VmRSS"), np.zeros(entities, dtype=bool), []

def timed(name, call, *given):
    began = time.perf_counter()
    call(*given)
    seconds[name].append(time.perf_counter() - began)

for step in range(steps):
    rank = (entities ** uniform(1, step, np.arange(rows))).astype(np.int64) - 1
    drawn = permuted(rank, entities, 2)
    once = np.unique(drawn)
    touched[once] = True
    distinct.append(len(once))
    timed("read", bank.read, once)
    timed("write", bank.write, drawn, mixed(step, np.arange(rows)), notes, cls)
    if (step + 1) % 250 == 0:
        timed("checkpoint", lambda: (bank.prepare(step + 1), bank.commit(step + 1)))
        print(f"step {step + 1}: {resident('VmRSS') - before:.0f} MiB more of memory", file=sys.stderr, flush=True)
print(json.dumps({
    "seconds": {name: [float(np.median(each)), float(np.max(each)) if each else 0.0] for name, each in seconds.items()},
    "grown": resident("VmHWM") - before, "distinct": float(np.mean(distinct)), "touched": int(touched.sum()),
    "disk": sum(path.stat().st_blocks * 512 for path in Path(folder).iterdir()),
}))
"""


def encoder_step(rows: int = 4, repeats: int = 2) -> tuple[float, str]:
    """Seconds that a base-size encoder takes for a sequence of a step, forward and backward, and on what."""
    import torch
    from transformers import RobertaConfig, RobertaModel

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = SEQUENCES if device == "cuda" else rows
    repeats = 10 if device == "cuda" else repeats
    model = RobertaModel(RobertaConfig(vocab_size=50_265, max_position_embeddings=514, pad_token_id=1)).to(device)
    ids = torch.randint(5, 50_000, (rows, LENGTH), device=device)
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            model(input_ids=ids).last_hidden_state.float().square().mean().backward()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    name = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return min(seconds[1:]) / rows, name


def main() -> None:
    """Print times and memory; the exit code says whether memory stays below the target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--durable", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        words = json.dumps([folder, chosen.steps, chosen.durable, ENTITIES, WIDTH, SEQUENCES * MENTIONS])
        done = subprocess.run([sys.executable, "-c", CHILD, words], stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    mentions = f"{SEQUENCES * MENTIONS:,} mentions of {found['distinct']:,.0f} entities a step"
    print(f"{ENTITIES:,} entities x {WIDTH}, {mentions}")
    for name, (median, largest) in found["seconds"].items():
        print(f"{name:<12}{median * 1000:8.1f} ms (largest {largest * 1000:.0f})")
    print(f"{found['touched']:,} entities written in {chosen.steps} steps: {found['disk'] / 2**30:.1f} GiB on the disk")
    of_bank = (found["seconds"]["read"][0] + found["seconds"]["write"][0]) / SEQUENCES
    of_model, device = encoder_step()
    print(
        f"a sequence: bank {of_bank * 1000:.2f} ms, base-size encoder {of_model * 1000:.2f} ms ({device}): "
        f"{of_bank / of_model:.2%} more"
    )
    good = found["grown"] <= GROWN
    print(f"resident memory grown by {found['grown']:,.0f} MiB at most, target {GROWN:,}: {'ok' if good else 'MISSED'}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
