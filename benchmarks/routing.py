"""A training step along a knowledge path against a dense one, and what finding the path adds; beside counted FLOPs.

A base-size BERT with random weights: masked LM at 15 % of the tokens, AdamW included. Routed: rho 0.1 in the upper half
of the layers, the gradient cut below. The path is held for 50 steps and comes from 4 sequences by 20 points, all layers
of the upper half scaled at once; its share is that of steps of 32 sequences (facts sheet: B 32, n_a 4, N 50).
    python benchmarks/routing.py [--layers 12] [--rows 8] [--length 128] [--repeats 5] [--threads 1]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForMaskedLM

from kbench.backbones.masked_lm import logits_at
from kbench.methods.attribution import attribute
from kbench.methods.flops import Attribution, Shape, Trained, attribution_flops, step_flops
from kbench.methods.paths import select, shares
from kbench.methods.routed import install

TARGET, ADDED = 0.6, 0.05
RHO, POINTS, SEQUENCES, EVERY, STEP_ROWS = 0.1, 20, 4, 50, 32
NEGATIVES = 200
LR, BETAS, EPS, DECAY = 5e-5, (0.9, 0.98), 1e-6, 0.01


def compare(layers: int = 12, rows: int = 8, length: int = 128, repeats: int = 5) -> dict[str, float]:
    """Seconds of both steps and of an attribution; counted and measured ratios.

    Args:
        layers: of the encoder.
        rows: sequences of a measured step.
        length: tokens of each.
        repeats: measured steps of each kind, taken in turn since machines are noisy; medians are given.
    """
    torch.manual_seed(0)
    config = BertConfig(num_hidden_layers=layers, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    dense: Any = BertForMaskedLM(config).train()
    model: Any = copy.deepcopy(dense)
    ids = torch.randint(1000, config.vocab_size, (rows, length))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    where = torch.arange(0, rows * length, 7)
    labels = ids.flatten()[where]

    half = layers // 2
    upper = list(range(half, layers))
    model.requires_grad_(False)
    head = list(model.cls.predictions.transform.parameters())
    for parameter in head:
        parameter.requires_grad_(True)
    routed = install(model, upper)
    routed.cut(half)
    optimizers = [torch.optim.AdamW(dense.parameters(), lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY, fused=True)]
    optimizers.append(torch.optim.AdamW(head, lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY, fused=True))

    few = {name: value[:SEQUENCES] for name, value in inputs.items()}
    positions = torch.zeros_like(few["input_ids"], dtype=torch.bool)
    positions[:, 10:13] = True
    negatives = torch.randint(1000, config.vocab_size, (NEGATIVES,))

    def probability(copies: int = 1) -> torch.Tensor:
        given = {name: value.repeat(copies, 1) for name, value in few.items()}
        states = model.base_model(**given).last_hidden_state[:, 10:13].mean(1)
        gold = few["input_ids"][:, 11:12].repeat(copies, 1)
        candidates = torch.cat([gold, negatives.expand(len(gold), -1)], 1)
        table = model.get_input_embeddings().weight
        return torch.einsum("bd,bkd->bk", states, table[candidates]).softmax(-1)[:, 0]

    def find() -> None:
        scores = attribute(probability, model, upper, steps=POINTS, positions=positions, scaling="joint")
        routed.set_paths(select(scores["neurons"], RHO))

    def dense_step() -> None:
        cross_entropy(logits_at(dense, inputs, where), labels).backward()
        optimizers[0].step()
        optimizers[0].zero_grad()

    def routed_step() -> None:
        cross_entropy(logits_at(model, inputs, where), labels).backward()
        routed.step(LR, BETAS, EPS, DECAY)
        routed.zero()
        optimizers[1].step()
        optimizers[1].zero_grad()

    kinds: dict[str, Callable[[], None]] = {"find": find, "dense": dense_step, "routed": routed_step}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(repeats + 1):
        for name, step in kinds.items():
            if name == "find" and turn > 1:
                continue  # 20 points take as long as several steps
            began = time.perf_counter()
            step()
            if turn or name == "find":
                seconds[name].append(time.perf_counter() - began)
    found = {name: statistics.median(values) for name, values in seconds.items()}

    shape = Shape(layers, config.hidden_size, config.intermediate_size, config.vocab_size)
    neurons = [0] * half + [len(one) for one in routed.paths]
    trained = Trained(neurons, attention=False, below=False, decoder=False, cut=half)
    whole = step_flops(shape, rows, length, len(where))
    part = step_flops(shape, rows, length, len(where), trained)
    search = attribution_flops(shape, SEQUENCES, length, Attribution(upper, POINTS, "joint"))
    scale = STEP_ROWS / rows * EVERY
    return found | {
        "ratio": found["routed"] / found["dense"],
        "counted_ratio": part / whole,
        "added": found["find"] / (found["routed"] * scale),
        "counted_added": search / (part * scale),
        "gigaflops_dense": whole / 1e9,
        "gigaflops_routed": part / 1e9,
        "neurons": sum(neurons),
        "largest_share": max(shares(routed.paths)),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found = compare(given.layers, given.rows, given.length, given.repeats)
    print(
        f"dense step {found['dense']:.2f} s ({found['gigaflops_dense']:.0f} GFLOP), "
        f"routed {found['routed']:.2f} s ({found['gigaflops_routed']:.0f} GFLOP), "
        f"|J| {found['neurons']:.0f}, at most {found['largest_share']:.0%} of it in a layer"
    )
    print(f"routed / dense: {found['ratio']:.2f}, counted {found['counted_ratio']:.2f} (target <= {TARGET})")
    print(
        f"attribution of {SEQUENCES} sequences {found['find']:.1f} s, every {EVERY} steps of {STEP_ROWS}: "
        f"adds {found['added']:.1%}, counted {found['counted_added']:.1%} (target <= {ADDED:.0%})"
    )
    sys.exit(found["ratio"] > TARGET or found["added"] > ADDED)
